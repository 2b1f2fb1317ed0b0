"""The lines of the doctor's table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


class Verdict(StrEnum):
    """How it stands."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line.

    Attributes:
        subject: What was looked at.
        verdict: How it stands.
        found: What was found, without secrets.
        remedy: What to do; empty when all is well.
    """

    subject: str
    verdict: Verdict
    found: str
    remedy: str = ""


def as_json(check: Check) -> str:
    """One line of JSON."""
    return json.dumps(asdict(check))


def as_table(checks: Sequence[Check]) -> Table:
    """All lines for a terminal."""
    from rich.table import Table
    from rich.text import Text

    colours = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}
    table = Table("", "what", "found", "remedy", box=None, header_style="bold")
    for check in checks:
        cells = (check.subject, check.found, check.remedy)
        table.add_row(Text(check.verdict.value, colours[check.verdict]), *(Text(cell) for cell in cells))
    return table
