"""A runner that answers for another one when a result is in the cache."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from scheduler.caching.entries import Entry, StepCache
from scheduler.caching.keys import KeyMaker
from scheduler.core.failures import Failure
from scheduler.core.observations import HasSucceeded, Observation
from scheduler.core.plan import JobId
from scheduler.core.specs import Payload, StepSpec, WorkflowSpec
from scheduler.runners.base_runner import Attempt, BaseRunner, JobEnvironment

logger = logging.getLogger(__name__)

_DIGITS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class _Hit:
    native_id: str
    observation: HasSucceeded


def with_cache(
    runners: Mapping[str, BaseRunner], workflow: WorkflowSpec, *, directory: Path, run_id: str
) -> dict[str, BaseRunner]:
    """The runners, those of cached steps with the cache in front.

    Args:
        runners: Runner name -> runner.
        workflow: Says which steps are cached.
        directory: Where results are kept.
        run_id: The run whose results they become.
    """
    cached: dict[str, list[Payload]] = {}
    for step in workflow.steps:
        if step.cache:
            cached.setdefault(step.runner, []).append(step.payload)
    return {
        name: CachingRunner(runner, StepCache(directory), run_id=run_id, payloads=cached[name])
        if name in cached
        else runner
        for name, runner in runners.items()
    }


class CachingRunner(BaseRunner):
    """Takes results of attempts with ``cache`` from a cache, and has the others run.

    What the engine accepts of those others is put into the cache, by a thread of its own, because disks may be slow.

    Args:
        runner: Runs what is not in the cache.
        cache: The cache.
        run_id: The run that results are computed by.
        payloads: What will be run and cached: the sooner it is looked at, the surer it is what the program began with.
    """

    def __init__(self, runner: BaseRunner, cache: StepCache, *, run_id: str, payloads: Sequence[Payload] = ()) -> None:
        self._runner, self._cache, self._run_id = runner, cache, run_id
        self._keys = KeyMaker(runner)
        self._hits: dict[str, _Hit] = {}
        self._to_keep: dict[str, str] = {}
        self._writer: ThreadPoolExecutor | None = None
        self._is_broken = False
        self.stages_inputs, self.stages_outputs = runner.stages_inputs, runner.stages_outputs
        self.chains_datasets, self.runs_here = runner.chains_datasets, runner.runs_here
        self.appends_outputs, self.waiting_room = runner.appends_outputs, runner.waiting_room
        for payload in payloads:
            self._keys.look_at(payload)

    def __repr__(self) -> str:
        return f"CachingRunner({self._runner!r})"

    @property
    def capacity(self) -> int | None:  # type: ignore[override]  # the runner may count its places when it is asked
        """How many attempts fit into the runner."""
        return self._runner.capacity

    def on_wake(self, wake: Callable[[], None]) -> None:
        """See :meth:`BaseRunner.on_wake`."""
        super().on_wake(wake)
        self._runner.on_wake(wake)

    def check(self, step: StepSpec) -> None:
        """See :meth:`BaseRunner.check`."""
        self._runner.check(step)

    def may_be_followed(self, native_id: str) -> bool:
        """See :meth:`BaseRunner.may_be_followed`."""
        return self._runner.may_be_followed(native_id)

    def environment(self) -> JobEnvironment | None:
        """See :meth:`BaseRunner.environment`."""
        return self._runner.environment()

    def contents(self, attempt: Attempt) -> Mapping[str, tuple[str, ...]] | None:
        """See :meth:`BaseRunner.contents`."""
        return self._runner.contents(attempt)

    def submit(self, batch: Sequence[Attempt]) -> dict[str, str | Failure]:
        """See :meth:`BaseRunner.submit`. The native id of a result that is there already says so."""
        if self._writer is not None:
            self._writer.submit(lambda: None).result()  # what has been accepted by now can be taken now
        misses = [attempt for attempt in batch if not self._take(attempt)]
        answer: dict[str, str | Failure] = {**self._found([attempt.label for attempt in batch])}
        if answer:
            self.wake()
        if misses:
            try:
                answer.update(self._runner.submit(misses))
            except Exception:
                if not answer:
                    raise
                # What is left out is asked for and submitted again, without hits beside it.
                logger.warning("%r took none of %d jobs", self._runner, len(misses), exc_info=True)
        return answer

    def poll(self, attempts: Mapping[str, str]) -> dict[str, Observation]:
        """See :meth:`BaseRunner.poll`. The runner is asked about what is not from the cache, if there is any."""
        hits: dict[str, Observation] = {
            label: self._hits[label].observation for label in attempts if label in self._hits
        }
        others = {label: native_id for label, native_id in attempts.items() if label not in hits}
        return {**hits, **(self._runner.poll(others) if others else {})}

    def cancel(self, attempts: Mapping[str, str]) -> None:
        """See :meth:`BaseRunner.cancel`. A result from the cache stays one: it is over."""
        others = {label: native_id for label, native_id in attempts.items() if label not in self._hits}
        if others:
            self._runner.cancel(others)

    def find(self, labels: Sequence[str]) -> dict[str, str]:
        """See :meth:`BaseRunner.find`. After a restart a hit is not known: it is submitted, and found, again."""
        hits = self._found(labels)
        others = [label for label in labels if label not in hits]
        return {**hits, **(self._runner.find(others) if others else {})}

    def keep(self, attempt: Attempt, job: JobId, returned: object) -> None:
        """Put a result into the cache, unless it comes from there or nothing is known about how it came about."""
        self._runner.keep(attempt, job, returned)
        key = self._to_keep.pop(attempt.label, None)
        if key is None:
            return
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="scheduler-cache")
        self._writer.submit(self._write, key, attempt, job, returned)

    def close(self) -> None:
        """Finish writing, and close the runner."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.shutdown(wait=True)
        self._runner.close()

    def _found(self, labels: Sequence[str]) -> dict[str, str]:
        """The native ids of the attempts whose results are from the cache."""
        return {label: self._hits[label].native_id for label in labels if label in self._hits}

    def _take(self, attempt: Attempt) -> bool:
        """Whether the result is there; if it is not, remember under which key it shall be kept."""
        key = self._keys.key_of(attempt) if attempt.cache else None
        if key is None:
            return False
        entry = self._cache.take(key)
        if entry is None:
            self._to_keep[attempt.label] = key
            return False
        source = f"the cache ({key[:_DIGITS_SHOWN]}, first computed by run {entry.run}, trial {entry.trial})"
        self._hits[attempt.label] = _Hit(f"cache:{key}", HasSucceeded(entry.result, source))
        return True

    def _write(self, key: str, attempt: Attempt, job: JobId, returned: object) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            self._keys.check_unchanged(attempt.payload)
            self._cache.put(key, Entry(returned, self._run_id, job.trial, job.step, at))
        except (OSError, ValueError, TypeError) as error:
            level = logging.DEBUG if self._is_broken else logging.WARNING
            self._is_broken = True
            logger.log(level, "the result of %s is not kept in the cache: %s", job, error)
