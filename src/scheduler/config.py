"""The ``config`` of :class:`~scheduler.AxScheduler`: names, defaults, checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from scheduler.core.names import did_you_mean
from scheduler.core.specs import RetryPolicy
from scheduler.engine import EngineSettings
from scheduler.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """What a program can set.

    Attributes:
        monitoring_interval: The longest pause in seconds between two looks at a backend that does not report by
            itself. Local workers do, so they are not affected.
        max_trial_monitoring_time: A trial that takes longer than this many seconds fails; None for no limit.
        job_output_dir: Where run directories are made, one per run, named after the experiment.
        run_dir: The run directory itself; overrides ``job_output_dir``. It must be new or empty, or
            hold the run to resume.
        resume: Go on with the run in ``run_dir``, or with the newest one of this experiment in ``job_output_dir``;
            start one if there is none. The environment variable SCHEDULER_RESUME (``1``, or a run directory) does the
            same.
        cleanup_after_completion: Delete the job directories of trials that succeeded, at the end of a call.
        synchronous: Run one trial after the other; ``run_trial`` returns when its trial is over.
        max_parallel_trials: Trials under way at once; None: what the generation strategy allows, at most as many as the
            widest runner has places (8 for a runner that queues by itself).
        ask_ahead: While no place for a trial is free, compute the next candidate, so that the next free place need not
            wait for it. It knows the trials that run as pending. Not with a single place, where each candidate shall
            know the result of the one before.
        stale_after: A candidate computed ahead is dropped, and another one computed when its place is free, when more
            than this many results have come since. None: never. Quasi-random candidates are never dropped.
        straggler_factor: In steps with ``speculative=True``, a job that runs longer than this many times the median of
            its siblings gets a second attempt.
        optimizer_threads: How many threads torch may take while Ax works. None: one when jobs run on this machine, as
            more of them would take the cores from the jobs and be slower themselves; torch's own choice otherwise.
        failure_rate: The run stops when a larger part of the finished trials failed ...
        min_failed_trials: ... and at least this many trials have finished.
        retries: How often a job that failed is tried again; a step may say otherwise.
        lost_retries: How often a job is tried again that vanished, or whose worker or site broke down.
        retry_failed_designs: Whether Ax may propose the design of a failed trial again. None: yes after trouble with
            the infrastructure (lost, killed, cancelled, not submitted, environment), no after an error of the program
            (exception, result, missing output) or a limit (time, memory), which would only fail again.
        cache_dir: Where results of steps with ``cache=True`` are kept, for all runs that name the directory; None for
            ``.cache`` in ``job_output_dir``.
        progress: True or None: a live view on a terminal, plain lines elsewhere. False: nothing.
    """

    monitoring_interval: float = 10.0
    max_trial_monitoring_time: float | None = None
    job_output_dir: str = "scheduler_runs"
    run_dir: str | None = None
    resume: bool = False
    cleanup_after_completion: bool = False
    synchronous: bool = False
    max_parallel_trials: int | None = None
    ask_ahead: bool = True
    stale_after: int | None = 2
    straggler_factor: float = 2.0
    optimizer_threads: int | None = None
    failure_rate: float = 0.5
    min_failed_trials: int = 5
    retries: int = 0
    lost_retries: int = 2
    retry_failed_designs: bool | None = None
    cache_dir: str | None = None
    progress: bool | None = None

    @classmethod
    def from_mapping(cls, given: Mapping[str, object] | None) -> SchedulerConfig:
        """The configuration of a program.

        Raises:
            ConfigurationError: An unknown key (the message lists the valid ones with their defaults), or a value that
                cannot be.
        """
        defaults = {field.name: field.default for field in fields(cls)}
        for key in given or {}:
            if key not in defaults:
                valid = ", ".join(f"{name} ({value!r})" for name, value in defaults.items())
                raise ConfigurationError(
                    f"unknown config key '{key}'{did_you_mean(str(key), defaults)}; valid keys and defaults: {valid}"
                )
        config = cls(**(given or {}))  # type: ignore[arg-type]
        _check(config)
        return config

    @property
    def engine_settings(self) -> EngineSettings:
        """The part that the engine needs."""
        return EngineSettings(
            max_parallel_trials=1 if self.synchronous else self.max_parallel_trials,
            ask_ahead=self.ask_ahead,
            stale_after=self.stale_after,
            straggler_factor=self.straggler_factor,
            trial_timeout_s=self.max_trial_monitoring_time,
            failure_rate=self.failure_rate,
            min_failed_trials=self.min_failed_trials,
            retry_failed_designs=self.retry_failed_designs,
            poll_max_s=self.monitoring_interval,
            poll_min_s=min(EngineSettings().poll_min_s, self.monitoring_interval),
        )

    @property
    def cache_directory(self) -> Path:
        """Where results of cached steps are kept."""
        chosen = Path(self.job_output_dir) / ".cache" if self.cache_dir is None else Path(self.cache_dir).expanduser()
        return chosen.absolute()

    @property
    def retry_policy(self) -> RetryPolicy:
        """What applies to steps that do not say otherwise."""
        return RetryPolicy(failed=self.retries, lost=self.lost_retries)


_WHOLE_NUMBERS = {
    "max_parallel_trials": 1,
    "stale_after": 0,
    "optimizer_threads": 1,
    "min_failed_trials": 1,
    "retries": 0,
    "lost_retries": 0,
}
"""Key -> the least it may be."""
_MAY_BE_NONE = frozenset({"max_parallel_trials", "stale_after", "optimizer_threads"})


def _check(config: SchedulerConfig) -> None:
    _number(config, "monitoring_interval", above=0)
    _number(config, "max_trial_monitoring_time", above=0, may_be_none=True)
    _number(config, "straggler_factor", above=1)
    _number(config, "failure_rate", above=-1e-9, at_most=1)
    for name, least in _WHOLE_NUMBERS.items():
        value = getattr(config, name)
        if value is None and name in _MAY_BE_NONE:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigurationError(f"config['{name}'] is {value!r}; give a whole number of at least {least}")
    for name in ("resume", "cleanup_after_completion", "synchronous", "ask_ahead"):
        if not isinstance(getattr(config, name), bool):
            raise ConfigurationError(f"config['{name}'] is {getattr(config, name)!r}; give True or False")
    for name in ("progress", "retry_failed_designs"):
        if getattr(config, name) not in {True, False, None}:
            raise ConfigurationError(f"config['{name}'] is {getattr(config, name)!r}; give True, False or None")
    for name in ("job_output_dir", "run_dir", "cache_dir"):
        value = getattr(config, name)
        if not isinstance(value, str | Path) and not (value is None and name != "job_output_dir"):
            raise ConfigurationError(f"config['{name}'] is {value!r}; give the path of a directory")


def _number(
    config: SchedulerConfig, name: str, *, above: float, at_most: float = float("inf"), may_be_none: bool = False
) -> None:
    value = getattr(config, name)
    if value is None and may_be_none:
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not above < value <= at_most:
        limit = "" if at_most == float("inf") else f" and at most {at_most:g}"
        raise ConfigurationError(f"config['{name}'] is {value!r}; give a number above {max(above, 0):g}{limit}")
