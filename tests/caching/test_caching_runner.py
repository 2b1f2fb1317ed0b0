"""The cache in front of a runner, driven by an engine on a simulated world."""

from __future__ import annotations

import importlib
import logging
import sys
from dataclasses import replace

import pytest

from scheduler.caching.runner import CachingRunner, with_cache
from scheduler.core.events import Submitted, Succeeded
from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, WasCancelled
from scheduler.core.plan import JobId
from scheduler.core.specs import Dependency, Function, RetryPolicy, StepSpec, WorkflowSpec
from scheduler.core.states import TrialState
from scheduler.engine import Engine, EngineSettings, World
from scheduler.errors import RunnerUnavailableError
from scheduler.runners.base_runner import Attempt
from scheduler.testing import FakeOptimizer, FakeRunner, Fate, InlineLane, MemoryRun, SimulatedMailbox
from scheduler.testing.fake_runner import call_it


def simulate(x):
    return {"v": 2 * x}


def merge(x, v):
    return {"objective": x + v}


WORKFLOW = WorkflowSpec(
    (
        StepSpec("sim", Function(simulate), "fake", cache=True),
        StepSpec("end", Function(merge), "fake", dependencies=(Dependency("sim", parameter="v"),)),
    ),
    "end",
)


class Life:
    """A run of its own over the same cache."""

    def __init__(self, directory, *, workflow=WORKFLOW, fate=call_it, run=None, settings=None):
        self.mailbox, self.run = SimulatedMailbox(), run or MemoryRun()
        self.inner = FakeRunner(fate, clock=self.mailbox.monotonic, alarm=self.mailbox.at)
        runners = with_cache({"fake": self.inner}, workflow, directory=directory, run_id=self.run.run_id)
        self.runner = runners["fake"]
        world = World(self.mailbox, InlineLane)
        settings = settings or EngineSettings(max_parallel_trials=1, min_failed_trials=99)
        self.optimizer = FakeOptimizer()
        self.engine = Engine(workflow, self.optimizer, runners, self.run, settings=settings, world=world)

    def optimize(self, trials):
        self.engine.optimize(trials)
        self.engine.state.check()
        self.runner.close()
        return self

    @property
    def submitted(self):
        return [attempt.label.split("-")[2] for attempt in self.inner.submitted]

    @property
    def sources(self):
        return [event.source for event in self.run.events if isinstance(event, Succeeded)]


@pytest.fixture
def start(tmp_path):
    return lambda **options: Life(tmp_path / "cache", **options)


def entries(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.json"))


def test_that_a_second_run_takes_what_the_first_computed_and_says_from_where(start, tmp_path):
    first = start().optimize(3)
    second = start().optimize(4)

    assert first.submitted == ["sim", "end"] * 3
    assert second.submitted == ["end"] * 3 + ["sim", "end"]
    assert {t: first.engine.state.result(t) for t in range(3)} == {t: second.engine.state.result(t) for t in range(3)}
    key = next(path.stem for path in entries(tmp_path) if '"trial": 1' in path.read_text())
    assert second.sources[2] == f"the cache ({key[:12]}, first computed by run memory, trial 1)"
    assert second.sources[1::2] == [""] * 4, "the steps without cache ran"
    native_ids = [event.native_id for event in second.run.events if isinstance(event, Submitted)]
    assert native_ids[2] == f"cache:{key}"


def test_that_a_later_trial_of_the_same_run_takes_it_too(start):
    life = start()

    life.engine.start([life.optimizer.attach({"x": 5}), life.optimizer.attach({"x": 6})])
    life.engine.run_until(lambda: not life.engine.state.live)
    life.engine.start([life.optimizer.attach({"x": 5})])
    life.engine.run_until(lambda: not life.engine.state.live)

    assert life.submitted.count("sim") == 2
    assert life.engine.state.result(2) == life.engine.state.result(0)
    assert [bool(source) for source in life.sources].count(True) == 1


def test_that_bad_results_failures_and_cancelled_jobs_are_never_kept(start, tmp_path):
    outcomes = [
        HasSucceeded({"w": 1}),
        HasSucceeded({"v": float("nan")}),
        HasSucceeded("text"),
        HasFailed(Failure(Cause.EXCEPTION, "no beam")),
        WasCancelled(),
    ]
    fates = iter(outcomes)

    life = start(fate=lambda attempt: Fate(next(fates))).optimize(len(outcomes))

    assert all(trial.state is not TrialState.COMPLETED for trial in life.engine.state.trials.values())
    assert entries(tmp_path) == []


def test_that_a_result_that_comes_after_its_trial_failed_is_not_kept(start, tmp_path):
    slow = lambda attempt: Fate(HasSucceeded({"v": 1}), running_s=100)
    settings = EngineSettings(max_parallel_trials=1, trial_timeout_s=50, min_failed_trials=9)
    life = start(fate=slow, settings=settings)
    life.inner.cancel = lambda attempts: None  # a backend that does not obey

    life.optimize(2)

    assert entries(tmp_path) == []


def test_that_a_result_of_a_retry_is_kept(start, tmp_path):
    def fate(attempt):
        fails = attempt.label.endswith(".1") and "-sim-" in attempt.label
        return Fate(HasFailed(Failure(Cause.EXCEPTION, "no beam"))) if fails else call_it(attempt)

    steps = tuple(replace(step, retry=RetryPolicy(failed=1)) for step in WORKFLOW.steps)
    start(fate=fate, workflow=replace(WORKFLOW, steps=steps)).optimize(1)

    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("events", range(1, 12))
def test_that_a_run_that_ends_anywhere_is_resumed_with_the_same_results(start, events):
    start().optimize(1)
    whole = start().optimize(1)
    kept = whole.run.events[:events]

    resumed = start()
    resumed.run.events.extend(kept)
    resumed.engine.resume(enumerate(kept, start=1), saved_at=0)
    resumed.engine.run_until(lambda: not resumed.engine.state.live)

    assert "sim" not in resumed.submitted, "a promised hit is found again"
    assert resumed.engine.state.result(0) == whole.engine.state.result(0)


def test_that_an_adopted_attempt_whose_beginnings_nobody_saw_is_not_kept(start, tmp_path):
    life = start()
    attempt = Attempt("old-0-sim-None", WORKFLOW.step("sim").payload, {"x": 1}, tmp_path, cache=True)
    life.inner.submit([attempt])

    assert life.runner.find([attempt.label]) == life.inner.find([attempt.label])
    life.runner.keep(attempt, JobId(0, "sim"), {"v": 2})
    life.runner.close()

    assert entries(tmp_path) == []


def test_that_an_outage_of_the_backend_fails_neither_hits_nor_misses(start):
    start().optimize(2)
    life = start(settings=EngineSettings(max_parallel_trials=4, min_failed_trials=9))
    answer, down = life.inner.submit, iter([True, True, True])

    def submit(batch):
        if next(down, False):
            raise RunnerUnavailableError("the backend is down")
        return answer(batch)

    life.inner.submit = submit
    life.optimize(4)

    assert all(trial.state is TrialState.COMPLETED for trial in life.engine.state.trials.values())
    assert sum(map(bool, life.sources)) == 2


def test_that_a_backend_that_refuses_a_batch_takes_no_hit_with_it(start, tmp_path):
    start().optimize(1)
    life = start()
    hit = Attempt("a", WORKFLOW.step("sim").payload, {"x": 0.0}, tmp_path, cache=True)

    def refuse(batch):
        raise ValueError("no")

    life.inner.submit = refuse

    assert life.runner.submit([replace(hit, label="b", arguments={"x": 9}), hit]).keys() == {"a"}
    with pytest.raises(ValueError, match="no"):
        life.runner.submit([replace(hit, label="b", arguments={"x": 9})])


def test_that_a_hit_is_over_rings_the_bell_and_cannot_be_cancelled(start, tmp_path):
    start().optimize(1)
    life = start()
    rings = []
    life.runner.on_wake(lambda: rings.append(1))

    ids = life.runner.submit([Attempt("a", WORKFLOW.step("sim").payload, {"x": 0.0}, tmp_path, cache=True)])
    life.runner.cancel(ids)

    assert rings
    assert not life.inner.cancelled
    assert life.runner.find(["a", "b"]) == ids
    (seen,) = life.runner.poll({**ids, "b": "unknown"}).values()
    assert seen.result == {"v": 0.0}


def test_that_a_cache_that_cannot_be_written_is_one_warning_and_costs_no_result(start, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the directory should be")

    with caplog.at_level(logging.WARNING):
        life = start().optimize(3)

    assert all(trial.state is TrialState.COMPLETED for trial in life.engine.state.trials.values())
    assert caplog.text.count("is not kept in the cache") == 1


def test_that_steps_without_cache_get_no_cache_in_front(start):
    workflow = replace(WORKFLOW, steps=tuple(replace(step, cache=False) for step in WORKFLOW.steps))

    assert not isinstance(start(workflow=workflow).runner, CachingRunner)


def test_that_a_damaged_entry_runs_the_job_and_is_mended(start, tmp_path):
    start().optimize(1)
    (path,) = entries(tmp_path)
    path.write_bytes(path.read_bytes()[:50])

    assert start().optimize(1).submitted == ["sim", "end"]
    assert start().optimize(1).submitted == ["end"]


def test_that_a_result_whose_source_was_edited_while_it_ran_is_not_kept(start, tmp_path, monkeypatch, caplog):
    source = tmp_path / "edited_while_it_ran.py"
    source.write_text("def simulate(x):\n    return {'v': x}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(source.stem)
    life = start()
    attempt = Attempt("a", Function(module.simulate), {"x": 1}, tmp_path, cache=True)
    life.runner.submit([attempt])

    source.write_text("def simulate(x):\n    return {'v': 2 * x}\n")
    life.runner.keep(attempt, JobId(0, "sim"), {"v": 1})
    life.runner.close()

    assert entries(tmp_path) == []
    assert f"{source.name} was changed after this program began" in caplog.text
    del sys.modules[source.stem]
