"""``scheduler rehearse``: one trial of a program as bare as on a node, and all that would fail there."""

from scheduler.rehearsal.findings import Finding, Kind, Severity
from scheduler.rehearsal.performance import Outcome, rehearse

__all__ = ["Finding", "Kind", "Outcome", "Severity", "rehearse"]
