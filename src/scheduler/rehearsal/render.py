"""The findings of a rehearsal as people and programs read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

from scheduler.rehearsal.findings import Finding, Severity
from scheduler.rehearsal.performance import Outcome


def as_text(outcome: Outcome) -> str:
    """One paragraph per finding, then the verdict."""
    lines = [line for finding in outcome.findings for line in _paragraph(finding)]
    return "\n".join([*lines, _verdict(outcome)])


def as_json(outcome: Outcome) -> str:
    """All of it as one JSON object."""
    facts = {
        "would_fail": outcome.would_fail,
        "seconds": round(outcome.seconds, 3),
        "directory": str(outcome.directory),
        "findings": [asdict(finding) for finding in outcome.findings],
    }
    return json.dumps(facts, indent=2)


def _paragraph(finding: Finding) -> Iterator[str]:
    where = ": ".join(part for part in (finding.place, f"step '{finding.step}'" if finding.step else "") if part)
    yield f"{finding.severity} ({finding.kind}) " + (f"{where}: " if where else "") + finding.message
    if finding.remedy:
        yield f"    remedy: {finding.remedy}"


def _verdict(outcome: Outcome) -> str:
    errors, warnings = outcome.count(Severity.ERROR), outcome.count(Severity.WARNING)
    found = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    if outcome.would_fail:
        return f"This would fail on the grid: {found}. Logs are in {outcome.directory}"
    return f"Nothing was found that would fail on the grid ({found}; {outcome.seconds:.0f} s)"
