"""How a benchmark states a figure: a line for people, and one that run.py makes a table of."""

from __future__ import annotations

import json

MARK = "FIGURE "


def state(what: str, value: float, unit: str = "", *, at_most: float | None = None, note: str = "") -> None:
    """Print a figure.

    Args:
        what: What was measured.
        value: The figure.
        unit: Its unit; empty for a ratio.
        at_most: The target; None for a figure that stands beside others.
        note: What one must know to read it.
    """
    target = "" if at_most is None else f" (at most {at_most:g} {unit})".replace(" )", ")")
    print(f"  {what}: {value:.4g} {unit}{target}{f'; {note}' if note else ''}".replace("  ", " "))
    record = {"what": what, "value": value, "unit": unit, "at_most": at_most, "note": note}
    print(MARK + json.dumps(record), flush=True)
