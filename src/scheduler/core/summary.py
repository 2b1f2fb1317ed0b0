"""A picture of a run for people: small, frozen, cheap to make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many jobs of one step are in which condition.

    Attributes:
        waiting: Not yet submitted.
        queued: Submitted, not yet running.
        running: Running.
        done: Completed.
        failed: Failed for good.
        stopped: Cancelled, for example with their trial, or found the design infeasible.
    """

    waiting: int = 0
    queued: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    stopped: int = 0


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Where a run stands.

    Attributes:
        max_trials: How many trials this call shall run.
        completed: Trials that gave a result.
        running: Trials under way.
        failed: Trials that failed.
        infeasible: Trials whose designs turned out to be infeasible.
        steps: Step name -> job counts over all trials of this call.
        phase: What the optimizer is doing, for example the name of its generation node.
        best: The best result so far in one line, or the hypervolume; empty when there is none.
        activity: What the run is waiting for besides jobs, for example a candidate; empty when nothing.
        common_failure: The commonest failure message so far; empty when nothing failed.
        links: Where to look at some of the jobs under way, in the backend's own pages, oldest first.
    """

    max_trials: int
    completed: int = 0
    running: int = 0
    failed: int = 0
    infeasible: int = 0
    steps: Mapping[str, JobCounts] = field(default_factory=dict)
    phase: str = ""
    best: str = ""
    activity: str = ""
    common_failure: str = ""
    links: tuple[str, ...] = ()
