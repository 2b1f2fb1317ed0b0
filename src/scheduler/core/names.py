"""Names that other systems have to accept, and names that a user may have meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from scheduler.errors import ConfigurationError

_MAX_NAME = 250
_MAX_SCOPE = 25
_REFUSED_CHARACTER = re.compile(r"[^A-Za-z0-9._/-]")
_PERSONAL = ("user", "group")


def scope_of(name: str) -> str:
    """The Rucio scope of a dataset: ``user.alice`` of ``user.alice.x``, ``mc`` of ``mc.x``."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] in _PERSONAL else parts[0]


def check_dataset_name(name: str) -> None:
    """Refuse a name of a dataset, or of a file in one, that Rucio would refuse.

    Raises:
        ConfigurationError: With the name and what is wrong with it.
    """
    if not name:
        raise ConfigurationError("a dataset name cannot be empty; a usual one is 'user.<you>.<experiment>.<step>'")
    refused = sorted(set(_REFUSED_CHARACTER.findall(name)))
    if refused:
        raise ConfigurationError(
            f"dataset name {name!r} contains {', '.join(map(repr, refused))}; "
            "allowed are letters, digits, '.', '_', '/' and '-'"
        )
    if not name[0].isalnum():
        raise ConfigurationError(f"dataset name {name!r} must begin with a letter or a digit")
    if len(name) > _MAX_NAME:
        raise ConfigurationError(f"dataset name {name!r} has {len(name)} characters; at most {_MAX_NAME} are allowed")
    scope = scope_of(name)
    if len(scope) > _MAX_SCOPE:
        raise ConfigurationError(
            f"dataset name {name!r} has the scope {scope!r} of {len(scope)} characters; at most {_MAX_SCOPE} are "
            "allowed: the scope ends at the first dot, after 'user.' or 'group.' at the second"
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known names that resemble this one, as the end of a sentence, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
