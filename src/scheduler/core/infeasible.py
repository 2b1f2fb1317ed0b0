"""Designs that need no evaluation to the end: how a step says so, over any transport, and what it said.

From a job on the grid only the text of its exception comes back. So the text has everything, for people first and then,
after a mark, as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.core.results import Measurement
from scheduler.errors import INFEASIBLE_MARK


@dataclass(frozen=True, slots=True)
class Infeasibility:
    """Why a design is infeasible.

    Attributes:
        reason: In words.
        metrics: The violated constraint's metric -> (mean, standard error or None); None when none was named.
    """

    reason: str
    metrics: Mapping[str, Measurement] | None = None


def read_infeasibility(message: str) -> Infeasibility | None:
    """What the text of a :class:`~scheduler.Infeasible` says, whatever stands around it; None for any other text."""
    texts = message.split(INFEASIBLE_MARK)[1:]
    found = (_read(INFEASIBLE_MARK.join(texts[start:])) for start in range(len(texts)))
    return next((each for each in found if each is not None), None)  # the reason may have the mark, too


def _read(text: str) -> Infeasibility | None:
    try:
        content, _ = json.JSONDecoder().raw_decode(text)
        reason, constraint, value = content["reason"], content.get("constraint"), content.get("value")
        metrics = None if constraint is None else {str(constraint): _measurement(value)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # somebody else's text, or cut off on its way: an exception like any other
    return Infeasibility(str(reason), metrics)


def _measurement(value: Any) -> Measurement:  # noqa: ANN401 - whatever JSON gave
    mean, error = value if isinstance(value, list) else (value, None)
    measurement = float(mean), None if error is None else float(error)
    if not math.isfinite(measurement[0]) or not (measurement[1] is None or measurement[1] >= 0):
        raise ValueError(value)
    return measurement
