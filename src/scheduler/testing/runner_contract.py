"""The contract of runners, as tests."""
# ruff: noqa: S101, D102 - these are tests: they assert, and their names say what

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, IsQueued, IsRunning, Observation, WasCancelled
from scheduler.core.specs import Resources
from scheduler.runners.base_runner import Attempt, BaseRunner
from scheduler.testing import payloads
from scheduler.testing.bench import Bench, is_alive


class RunnerContract:
    """What every runner must do, as a test class to inherit from.

    A subclass defines a fixture ``runner`` that yields a new runner (the contract closes it) and switches off what its
    backend cannot do. A runner that ships files overrides :meth:`payload` to give functions that can be shipped.

    Attributes:
        runs_processes: Jobs are processes with a working directory and a log of their own, and results pass as JSON.
        can_kill: A cancelled job ends at once, with all its processes.
        limits_time: ``Resources.walltime_s`` is enforced.
        limits_memory: ``Resources.memory_mb`` is enforced.
        patience_s: How long one thing may take on this backend, in seconds.

    Example::

        class TestMyRunner(RunnerContract):
            limits_memory = False

            @pytest.fixture
            def runner(self):
                return MyRunner(queue="test")
    """

    runs_processes = True
    can_kill = True
    limits_time = True
    limits_memory = True
    patience_s = 30.0

    def payload(self, name: str) -> Callable[..., object]:
        """A function of :mod:`scheduler.testing.payloads`, such that the runner can run it."""
        function: Callable[..., object] = getattr(payloads, name)
        return function

    @pytest.fixture
    def bench(self, runner: BaseRunner, tmp_path: Path) -> Iterator[Bench]:
        """The runner, ready for use."""
        yield Bench(runner, tmp_path, payload=self.payload, patience_s=self.patience_s)
        runner.close()

    # ------------------------------------------------------------------------------------------------ results

    @pytest.mark.parametrize("value", [None, True, 3, 0.1, "µ→e", [1, [2.5]], {"a": {"b": []}}], ids=repr)
    def test_that_a_result_is_seen_exactly_as_it_was_returned(self, bench: Bench, value: object) -> None:
        assert bench.run(bench.attempt("echo", value=value)) == [HasSucceeded({"value": value})]

    def test_that_several_attempts_in_one_batch_get_their_own_results(self, bench: Bench) -> None:
        outcomes = bench.run(*(bench.attempt("add", x=index, y=0.5) for index in range(8)))

        assert outcomes == [HasSucceeded({"sum": index + 0.5}) for index in range(8)]

    def test_that_job_keys_arrive_as_the_tuples_they_are(self, bench: Bench) -> None:
        merged = {(("eta", 0.1), ("particle", "pi+")): 3.0}

        outcomes = bench.run(bench.attempt("look_up", values=merged, key=(("eta", 0.1), ("particle", "pi+"))))

        assert outcomes == [HasSucceeded({"value": 3.0})]

    def test_that_a_function_that_takes_a_mapping_gets_all_arguments_as_one(self, bench: Bench) -> None:
        outcomes = bench.run(bench.attempt("count_names", takes_mapping=True, x=1, y=2))

        assert outcomes == [HasSucceeded({"names": 2})]

    def test_that_a_result_that_json_cannot_express_is_a_failure_that_says_where(self, bench: Bench) -> None:
        self.need(runs_processes=True)

        failure = failure_of(bench.run(bench.attempt("return_a_set"))[0])

        assert failure.cause is Cause.RESULT
        assert "result['members']" in failure.message
        assert "set" in failure.message

    # ----------------------------------------------------------------------------------------------- failures

    def test_that_a_raised_exception_is_a_failure_with_its_type_and_message(self, bench: Bench) -> None:
        failure = failure_of(bench.run(bench.attempt("fail", message="the beam is off"))[0])

        assert failure.cause is Cause.EXCEPTION
        assert "ValueError: the beam is off" in failure.message

    def test_that_the_traceback_is_in_the_log(self, bench: Bench) -> None:
        self.need(runs_processes=True)

        failure = failure_of(bench.run(bench.attempt("fail", message="the beam is off"))[0])

        assert failure.log is not None
        log = Path(failure.log).read_text(encoding="utf-8")
        assert "Traceback" in log
        assert "in fail" in log

    def test_that_a_failing_attempt_does_not_disturb_the_others(self, bench: Bench) -> None:
        first, broken, last = bench.run(
            bench.attempt("add", x=1, y=1), bench.attempt("fail", message="no"), bench.attempt("add", x=2, y=2)
        )

        assert (first, last) == (HasSucceeded({"sum": 2}), HasSucceeded({"sum": 4}))
        assert isinstance(broken, HasFailed)

    @pytest.mark.parametrize(
        ("payload", "number", "word"),
        [
            ("leave", 3, "exit code 3"),
            ("leave", 0, "exit code 0"),
            ("be_killed", int(signal.SIGKILL), "SIGKILL"),
            ("be_killed", int(signal.SIGSEGV), "SIGSEGV"),
        ],
    )
    def test_that_a_killed_process_is_named_and_others_go_on(
        self, bench: Bench, payload: str, number: int, word: str
    ) -> None:
        self.need(runs_processes=True)
        go = bench.directory / "go"
        waiting = bench.attempt("wait_for_file", path=str(go), patience_s=self.patience_s)
        waiting_id = bench.submit(waiting)

        failure = failure_of(bench.run(bench.attempt(payload, number=number))[0])
        go.touch()

        assert failure.cause is Cause.KILLED
        assert word in failure.message
        assert bench.wait_for_end(waiting_id) == {waiting.label: HasSucceeded({"found": str(go)})}

    def test_that_attempts_can_be_submitted_after_a_crash(self, bench: Bench) -> None:
        self.need(runs_processes=True)
        bench.run(bench.attempt("be_killed", number=int(signal.SIGKILL)))

        assert bench.run(bench.attempt("add", x=1, y=2)) == [HasSucceeded({"sum": 3})]

    # ------------------------------------------------------------------------------------------------- limits

    def test_that_an_attempt_over_its_time_fails_with_the_limit_in_the_message(self, bench: Bench) -> None:
        self.need(limits_time=True)

        late, quick = bench.run(
            bench.attempt("sleep", seconds=600, resources=Resources(walltime_s=1)), bench.attempt("add", x=1, y=2)
        )

        assert failure_of(late).cause is Cause.TIMEOUT
        assert "walltime_s=1" in failure_of(late).message
        assert quick == HasSucceeded({"sum": 3})

    def test_that_an_attempt_over_its_memory_fails_with_the_limit_in_the_message(self, bench: Bench) -> None:
        self.need(limits_memory=True)

        hungry = bench.attempt("take_memory", megabytes=600, seconds=600, resources=Resources(memory_mb=300))
        modest = bench.attempt("take_memory", megabytes=1, seconds=0, resources=Resources(memory_mb=300))
        too_much, enough = bench.run(hungry, modest)

        assert failure_of(too_much).cause is Cause.MEMORY
        assert "memory_mb=300" in failure_of(too_much).message
        assert enough == HasSucceeded({"bytes": 1_000_000})

    # ------------------------------------------------------------------------------------------------- cancel

    def test_that_a_cancelled_attempt_ends_with_all_its_processes(self, bench: Bench) -> None:
        self.need(runs_processes=True, can_kill=True)
        ids, pids = self.start_family(bench)

        bench.runner.cancel(ids)

        assert list(bench.wait_for_end(ids).values()) == [WasCancelled()]
        assert bench.wait_until(lambda: list(filter(is_alive, pids)), lambda alive: not alive) == []

    def test_that_cancelling_one_attempt_does_not_disturb_the_others(self, bench: Bench) -> None:
        self.need(can_kill=True)
        go = bench.directory / "go"
        patient = bench.attempt("wait_for_file", path=str(go), patience_s=self.patience_s)
        patient_id = bench.submit(patient)
        doomed = bench.attempt("sleep", seconds=600)
        doomed_id = bench.submit(doomed)

        bench.runner.cancel(doomed_id)
        outcome = bench.wait_for_end(doomed_id)
        go.touch()

        assert outcome == {doomed.label: WasCancelled()}
        assert bench.wait_for_end(patient_id) == {patient.label: HasSucceeded({"found": str(go)})}

    def test_that_attempts_cancelled_while_they_wait_never_run(self, bench: Bench) -> None:
        self.need(can_kill=True)
        capacity = bench.runner.capacity
        if capacity is None:
            pytest.skip("this backend has a queue of its own")
        go = bench.directory / "go"
        blocking = (bench.attempt("wait_for_file", path=str(go), patience_s=self.patience_s) for _ in range(capacity))
        running = bench.submit(*blocking)
        mark = bench.directory / "mark"
        waiting = bench.submit(bench.attempt("touch", path=str(mark)))

        bench.runner.cancel(waiting)
        outcome = bench.wait_for_end(waiting)
        go.touch()
        bench.wait_for_end(running)

        assert list(outcome.values()) == [WasCancelled()]
        assert not mark.exists()

    def test_that_cancelling_a_finished_attempt_does_no_harm(self, bench: Bench) -> None:
        ids = bench.submit(bench.attempt("add", x=1, y=2))
        before = bench.wait_for_end(ids)

        bench.runner.cancel(ids)

        assert bench.runner.poll(ids) == before

    def test_that_cancelling_an_unknown_attempt_does_no_harm(self, bench: Bench) -> None:
        bench.runner.cancel({"nobody": "knows-it"})

        assert bench.run(bench.attempt("add", x=1, y=2)) == [HasSucceeded({"sum": 3})]

    # ------------------------------------------------------------------------------------------ poll and find

    def test_that_poll_leaves_out_what_the_backend_does_not_know(self, bench: Bench) -> None:
        ids = bench.submit(bench.attempt("add", x=1, y=2))
        bench.wait_for_end(ids)

        assert set(bench.runner.poll({**ids, "nobody": "knows-it"})) == set(ids)

    def test_that_repeated_polls_agree(self, bench: Bench) -> None:
        ids = bench.submit(bench.attempt("add", x=1, y=2), bench.attempt("fail", message="no"))
        outcomes = bench.wait_for_end(ids)

        assert [bench.runner.poll(ids) for _ in range(3)] == [outcomes] * 3

    def test_that_an_attempt_is_seen_running_while_it_runs(self, bench: Bench) -> None:
        self.need(runs_processes=True)
        go = bench.directory / "go"
        attempt = bench.attempt("wait_for_file", path=str(go), patience_s=self.patience_s)
        ids = bench.submit(attempt)

        seen = bench.wait_until(lambda: bench.runner.poll(ids).get(attempt.label), lambda each: each != IsQueued())
        go.touch()

        assert seen == IsRunning()
        bench.wait_for_end(ids)

    def test_that_submitted_attempts_are_found_by_their_labels(self, bench: Bench) -> None:
        ids = bench.submit(bench.attempt("add", x=1, y=2), bench.attempt("add", x=3, y=4))

        assert bench.runner.find([*ids, "nobody"]) == ids

    def test_that_the_bell_rings_when_an_attempt_ends(self, bench: Bench) -> None:
        ids = bench.submit(bench.attempt("add", x=1, y=2))
        bench.wait_for_end(ids)

        assert bench.wait_until(lambda: bench.rings, lambda rings: rings > 0) > 0

    # ---------------------------------------------------------------------------------- directories and closing

    def test_that_every_attempt_has_a_working_directory_and_a_log_of_its_own(self, bench: Bench) -> None:
        self.need(runs_processes=True)
        attempts = [bench.attempt("say", text=f"I am number {index}") for index in range(2)]

        directories = [self.directory_of(outcome) for outcome in bench.run(*attempts)]

        assert directories[0] != directories[1]
        for index, attempt in enumerate(attempts):
            assert directories[index].is_relative_to(attempt.directory.resolve())
            assert self.read_logs(attempt) == f"I am number {index}\n"

    def test_that_closing_ends_what_runs_and_may_be_repeated(self, bench: Bench) -> None:
        self.need(runs_processes=True, can_kill=True)
        _, pids = self.start_family(bench)

        bench.runner.close()
        bench.runner.close()

        assert bench.wait_until(lambda: list(filter(is_alive, pids)), lambda alive: not alive) == []

    def test_that_a_runner_that_never_ran_anything_can_be_closed(self, bench: Bench) -> None:
        bench.runner.close()
        bench.runner.close()

        assert bench.runner.poll({"nobody": "knows-it"}) == {}

    # -------------------------------------------------------------------------------------------------- helpers

    def need(self, **abilities: bool) -> None:
        """Skip the test for a runner that lacks an ability."""
        for name in abilities:
            if not getattr(self, name):
                pytest.skip(f"{type(self).__name__}: {name} is False")

    def start_family(self, bench: Bench) -> tuple[dict[str, str], list[int]]:
        """Start an attempt with a child and a grandchild; its id and the process ids of the three."""
        file = bench.directory / "pids"
        ids = bench.submit(bench.attempt("start_family", pids_file=str(file), seconds=600.0))
        bench.wait_until(file.exists, bool)
        pids = [int(word) for word in file.read_text(encoding="ascii").split()]
        assert all(map(is_alive, pids))
        return ids, pids

    def directory_of(self, outcome: Observation) -> Path:
        """The working directory that the payload ``say`` returned."""
        assert isinstance(outcome, HasSucceeded), outcome
        assert isinstance(outcome.result, dict)
        return Path(outcome.result["directory"]).resolve()

    def read_logs(self, attempt: Attempt) -> str:
        """What an attempt printed; the file ``log.txt`` in its directory unless a subclass knows better."""
        return (attempt.directory / "log.txt").read_text(encoding="utf-8")


def failure_of(observation: Observation) -> Failure:
    """The failure that was observed.

    Raises:
        AssertionError: Something else was.
    """
    assert isinstance(observation, HasFailed), f"expected a failure, got {observation}"
    return observation.failure
