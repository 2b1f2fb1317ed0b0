"""How patient the engine is, and how much it does at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The numbers behind the engine's policies.

    Attributes:
        max_parallel_trials: Upper bound of trials under way at once; None: the capacity of the widest runner.
        ask_ahead: Whether a candidate is computed while no place is free, so that the next free place need not wait.
        stale_after: A candidate computed ahead is dropped when more than this many results are newer; None: never.
        straggler_factor: A job of a speculative step is slow when it takes this many times its siblings' median.
        trial_timeout_s: A trial that takes longer fails; None for no limit.
        failure_rate: The run stops when a larger part of the finished trials failed ...
        min_failed_trials: ... and at least this many trials have finished.
        retry_failed_designs: Whether the optimizer may propose the design of a failed trial again; None: only after
            trouble with the infrastructure.
        poll_min_s: The first pause between two looks at a backend that does not ring.
        poll_max_s: The longest pause; pauses grow while nothing changes.
        lost_after_s: An attempt that its backend has not mentioned for this long is lost.
        stop_patience_s: How long a stopping run waits for backends to confirm that jobs were cancelled.
        report_every_s: The shortest time between two progress reports.
    """

    max_parallel_trials: int | None = None
    ask_ahead: bool = True
    stale_after: int | None = 2
    straggler_factor: float = 2.0
    trial_timeout_s: float | None = None
    failure_rate: float = 0.5
    min_failed_trials: int = 5
    retry_failed_designs: bool | None = None
    poll_min_s: float = 0.2
    poll_max_s: float = 10.0
    lost_after_s: float = 120.0
    stop_patience_s: float = 10.0
    report_every_s: float = 0.2
