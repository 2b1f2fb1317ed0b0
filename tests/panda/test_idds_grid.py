"""What the grid says about attempts, step by step, against a service that tells a story.

The story is told by the port that :class:`scheduler.panda.idds.IddsClient` fills; that client is proven against the
real servers in ``tests/live``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, IsQueued, IsRunning, WasCancelled
from scheduler.core.specs import Function, Resources
from scheduler.errors import RunnerError, RunnerUnavailableError
from scheduler.panda.grid import Grid
from scheduler.panda.grid_names import internal_id
from scheduler.panda.grid_replies import Result, Transform, TransformStatus
from scheduler.panda.idds import OpenWorkflow, Site
from scheduler.panda.locate import FunctionLocation
from scheduler.panda.sandbox import Tarball
from scheduler.panda.shipment import Shipment
from scheduler.runners.base_runner import Attempt, OutputOrder

GRACE_S = 30.0
REQUEST = 7


@dataclass
class Service:
    """PanDA and iDDS without a broker: what they would answer now, and what they were asked."""

    works: dict[int, Transform] = field(default_factory=dict)
    published: list[Result] = field(default_factory=list)
    tasks: dict[int, str | None] = field(default_factory=dict)
    orders: list[object] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    kills: list[int] = field(default_factory=list)
    refusal: str | None = None
    trouble: RunnerError | None = None
    lost_answers: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def _answer(self, question):
        self.asked.append(question)
        if self.trouble is not None:
            raise self.trouble

    def broker(self):
        self._answer("broker")

    def open_workflow(self, name, site, broker):
        self._answer("open")
        return OpenWorkflow(REQUEST, "alice", None)

    def upload(self, tarball, name):
        self._answer("upload")
        self.uploads.append(name)
        return f"https://cache.example.org/cache/{name}"

    def submit(self, workflow, order):
        self._answer("submit")
        self.orders.append(order)
        transform_id = 10 + len(self.orders)
        self.works[transform_id] = Transform(transform_id, order.name, TransformStatus.NEW, None)
        if order.name in self.lost_answers:
            raise RunnerUnavailableError("no answer")
        return transform_id

    def transforms(self, request_id):
        self._answer("transforms")
        return list(self.works.values())

    def results(self, request_id, transform_id=None):
        self._answer("results")
        return [each for each in self.published if transform_id in {None, each.transform_id}]

    def task_status(self, task_id):
        self._answer("task")
        return self.tasks.get(task_id)

    def kill(self, task_id):
        self._answer("kill")
        self.kills.append(task_id)
        return self.refusal

    def request_ids(self, pattern):
        self._answer("names")
        return [REQUEST] if self.works else []


LINK = "PanDA task 99"  # what stands for a link without PANDAMON_URL


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def clock():
    return SimpleNamespace(now=1000.0)


@pytest.fixture
def grid(service, clock):
    site = Site("US", "Q", "wlcg", "", enable_separate_log=True)
    opened = Grid(service, site, prefix=None, on_result=lambda: None, grace_s=GRACE_S, clock=lambda: clock.now)
    yield opened
    opened.close()


@pytest.fixture
def shipment(tmp_path):
    def objective(x):
        return x

    def make(label="ab12-0-sim-None", *, output=None, returns_result=True, follows="", digest="d1", **arguments):
        attempt = Attempt(
            label,
            Function(objective),
            arguments,
            tmp_path / "trials" / label,
            output=output,
            returns_result=returns_result,
            follows=follows,
        )
        return Shipment(
            attempt,
            attempt.payload,
            FunctionLocation("sim.py", "sim", "objective"),
            SimpleNamespace(),
            Tarball(tmp_path / "source.tar.gz", digest),
            Resources(cores=2, memory_mb=3000, walltime_s=60.4),
        )

    return make


@pytest.fixture
def look(grid, service, clock):
    """Lets the work be in a state, time pass, and looks."""

    def at(ids, status=None, *, task=None, task_status=None, after=60.0):
        (text,) = ids.values()
        number = int(text.split("/")[0].split(".")[1])
        if status is not None:
            service.works[number] = Transform(number, "n", status, task)
            service.tasks[task] = task_status
        clock.now += after
        return grid.poll(ids).get(next(iter(ids)))

    return at


def publish(service, value, *, error=None, transform_id=11):
    service.published.append(Result(REQUEST, transform_id, value, error))


def test_that_a_work_carries_the_limits_and_the_name_of_the_attempt(grid, service, shipment):
    assert grid.submit([shipment(x=1)]) == {"ab12-0-sim-None": "7.11"}
    (order,) = service.orders
    assert (order.name, order.function) == ("ab12-0-sim-None", "sim.py:sim:objective")
    assert (order.cores, order.memory_mb, order.walltime_s) == (2, 3000, 60)
    assert order.kwargs == {"x": 1}
    assert order.source_url.endswith(service.uploads[0])


def test_that_a_run_has_one_workflow_and_each_tarball_is_uploaded_once(grid, service, shipment):
    grid.submit([shipment("ab12-0-a"), shipment("ab12-1-a")])
    grid.submit([shipment("ab12-2-a"), shipment("ab12-3-a", digest="d2")])
    assert service.asked.count("open") == 1
    assert len(service.uploads) == 2


def test_that_a_refused_work_fails_with_the_reason(grid, service, shipment, monkeypatch):
    def refuse(workflow, order):
        raise RunnerError("iDDS did not carry out 'submit_work': too large")

    monkeypatch.setattr(service, "submit", refuse)
    answer = grid.submit([shipment()])
    assert answer == {"ab12-0-sim-None": Failure(Cause.SUBMISSION, "iDDS did not carry out 'submit_work': too large")}


def test_that_a_lost_answer_leaves_the_label_out_and_it_is_found(grid, service, shipment):
    service.lost_answers = {"ab12-1-a"}
    assert grid.submit([shipment("ab12-0-a"), shipment("ab12-1-a")]).keys() == {"ab12-0-a"}
    assert grid.find(["ab12-1-a", "ab12-2-a"]).keys() == {"ab12-1-a"}


def test_that_nothing_is_known_when_no_answer_arrives(grid, service, shipment):
    service.lost_answers = {"ab12-0-a"}
    with pytest.raises(RunnerUnavailableError):
        grid.submit([shipment("ab12-0-a")])
    assert grid.find(["ab12-0-a"]) == {"ab12-0-a": "7.11"}


@pytest.mark.parametrize(
    ("status", "task_status", "seen"),
    [
        (TransformStatus.NEW, None, IsQueued(LINK)),
        (TransformStatus.THROTTLING, None, IsQueued(LINK)),
        (TransformStatus.TRANSFORMING, None, IsQueued(LINK)),
        (TransformStatus.TRANSFORMING, "pending", IsQueued(LINK)),
        (TransformStatus.TRANSFORMING, "paused", IsQueued(LINK)),
        (TransformStatus.TRANSFORMING, "running", IsRunning(LINK)),
        (TransformStatus.SUSPENDED, "pending", IsQueued(LINK)),
        (TransformStatus.CANCELLED, "aborted", WasCancelled()),
    ],
)
def test_that_pandas_state_tells_queued_from_running_with_a_link_to_the_task(
    grid, shipment, look, status, task_status, seen
):
    ids = grid.submit([shipment()])
    look(ids, status, task=99, task_status=task_status)
    assert look(ids) == seen


def test_that_a_result_counts_whatever_the_state(grid, service, shipment, look):
    ids = grid.submit([shipment()])
    publish(service, {"y": 1})
    assert look(ids, TransformStatus.TRANSFORMING) == HasSucceeded({"y": 1})


def test_that_the_first_of_two_results_counts(grid, service, shipment, look):
    ids = grid.submit([shipment()])
    publish(service, {"y": 1})
    publish(service, {"y": 2})
    assert look(ids, TransformStatus.FINISHED) == HasSucceeded({"y": 1})


def test_that_an_exception_has_its_text_and_the_link_to_the_task(grid, service, shipment, look, monkeypatch):
    monkeypatch.setenv("PANDAMON_URL", "https://monitor.example.org/")
    ids = grid.submit([shipment()])
    publish(service, None, error="no solution at 2")
    assert look(ids, TransformStatus.TRANSFORMING, task=99) == HasFailed(
        Failure(Cause.EXCEPTION, "no solution at 2 (https://monitor.example.org/task/99)")
    )


@pytest.mark.parametrize(
    ("status", "task", "cause"),
    [
        (TransformStatus.FINISHED, 99, Cause.LOST),
        (TransformStatus.SUB_FINISHED, 99, Cause.LOST),
        (TransformStatus.EXPIRED, 99, Cause.LOST),
        (TransformStatus.FAILED, 99, Cause.KILLED),
        (TransformStatus.FAILED, None, Cause.SUBMISSION),
    ],
)
def test_that_an_end_without_a_result_fails_after_the_grace_period_only(grid, shipment, look, status, task, cause):
    ids = grid.submit([shipment()])
    assert look(ids, status, task=task) == IsRunning()
    assert look(ids, after=GRACE_S / 2) == IsRunning()
    seen = look(ids, after=GRACE_S)
    assert isinstance(seen, HasFailed)
    assert seen.failure.cause is cause


def test_that_a_late_result_is_still_taken(grid, service, shipment, look):
    ids = grid.submit([shipment()])
    assert look(ids, TransformStatus.FINISHED) == IsRunning()
    publish(service, {"y": 1})
    assert look(ids, after=GRACE_S + 1) == HasSucceeded({"y": 1})


def test_that_a_dataset_is_complete_only_when_its_work_is(grid, service, shipment, look):
    ids = grid.submit([shipment(output=OutputOrder("user.a.b", "f", 2, 2, 1))])
    assert list(ids.values()) == ["7.11/2"]
    publish(service, {"y": 1})
    publish(service, {"y": 2})
    look(ids, TransformStatus.TRANSFORMING, task=99, task_status="running")
    assert look(ids) == IsRunning(LINK)
    assert look(ids, TransformStatus.FINISHED, task=99, task_status="done") == HasSucceeded({"y": 2})


def test_that_one_failed_slice_fails_the_attempt(grid, service, shipment, look):
    ids = grid.submit([shipment(output=OutputOrder("user.a.b", "f", 2, 2, 1))])
    publish(service, {"y": 1})
    look(ids, TransformStatus.SUB_FINISHED, task=99)
    seen = look(ids)
    assert isinstance(seen, HasFailed)
    assert "the dataset is incomplete" in seen.failure.message


def test_that_a_dataset_that_nobody_wants_more_of_is_complete_without_a_result(grid, service, shipment, look):
    ids = grid.submit([shipment(output=OutputOrder("user.a.b", "f", 2, 2, 1), returns_result=False)])
    assert list(ids.values()) == ["7.11/files2"]
    assert look(ids, TransformStatus.FINISHED, task=99, task_status="done") == HasSucceeded(None)


def test_that_a_complete_dataset_counts_although_the_result_is_lost(grid, service, shipment, look):
    ids = grid.submit([shipment(output=OutputOrder("user.a.b", "f", 2, 2, 1))])
    assert look(ids, TransformStatus.FINISHED, task=99, task_status="done") == IsRunning()
    assert look(ids, after=GRACE_S) == HasSucceeded(None)


def test_that_half_a_dataset_is_a_failure_even_if_nobody_wants_a_result(grid, service, shipment, look):
    ids = grid.submit([shipment(output=OutputOrder("user.a.b", "f", 2, 2, 1), returns_result=False)])
    look(ids, TransformStatus.SUB_FINISHED, task=99, task_status="finished")
    seen = look(ids, after=GRACE_S)
    assert isinstance(seen, HasFailed)
    assert "the dataset is incomplete" in seen.failure.message


def test_that_a_follower_names_the_work_whose_dataset_it_reads_and_joins_its_workflow(grid, service, shipment):
    (parent,) = grid.submit([shipment("ab12-0-make", output=OutputOrder("user.a.b", "f", 1, 1, 1))]).values()
    assert grid.may_be_followed(parent)

    grid.submit([shipment("ab12-0-read", follows=parent)])

    first, second = service.orders
    assert (first.follows, second.follows) == (None, internal_id(first.name))
    assert service.asked.count("open") == 1


def test_that_works_of_an_earlier_program_cannot_be_followed(grid):
    assert not grid.may_be_followed("7.11/2")


def test_that_a_found_producer_still_knows_its_slices(grid, shipment):
    ids = grid.submit([shipment(output=OutputOrder("user.a.b", "f", 2, 2, 1))])
    assert grid.find(list(ids)) == ids


def test_that_a_cancelled_attempt_is_over_when_panda_says_so(grid, service, shipment, look):
    ids = grid.submit([shipment()])
    look(ids, TransformStatus.TRANSFORMING, task=99, task_status="running")
    look(ids)
    grid.cancel(ids)
    assert service.kills == [99]
    assert look(ids, TransformStatus.TRANSFORMING, task=99, task_status="aborting") == IsRunning(LINK)
    assert look(ids, TransformStatus.TRANSFORMING, task=99, task_status="aborted") == WasCancelled()
    assert service.kills == [99]


def test_that_an_attempt_without_a_task_is_killed_when_it_has_one(grid, service, shipment, look):
    ids = grid.submit([shipment()])
    grid.cancel(ids)
    assert service.kills == []
    look(ids, TransformStatus.TRANSFORMING, task=99, task_status="pending")
    assert service.kills == [99]


def test_that_a_refused_kill_is_said_once_and_tried_again(grid, service, shipment, look, caplog):
    ids = grid.submit([shipment()])
    service.refusal = "not the task owner"
    service.works[11] = Transform(11, "n", TransformStatus.TRANSFORMING, 99)
    grid.cancel(ids)
    look(ids)
    assert service.kills == [99, 99]
    assert len([each for each in caplog.records if "not the task owner" in each.getMessage()]) == 1


def test_that_an_outage_is_no_news(grid, service, shipment, look):
    ids = grid.submit([shipment()])
    look(ids, TransformStatus.TRANSFORMING)
    service.trouble = RunnerUnavailableError("connection refused")
    with pytest.raises(RunnerUnavailableError, match="connection refused"):
        look(ids)
    service.trouble = None
    assert look(ids) == IsQueued()


def test_that_results_that_were_heard_are_not_held_back_by_an_outage(grid, service, shipment, clock):
    ids = grid.submit([shipment("ab12-0-a"), shipment("ab12-1-a")])
    publish(service, {"y": 1})
    clock.now += 60
    first = next(label for label, id_ in ids.items() if id_ == "7.11")
    assert grid.poll(ids)[first] == HasSucceeded({"y": 1})
    service.trouble = RunnerUnavailableError("connection refused")
    clock.now += 60
    assert grid.poll(ids)[first] == HasSucceeded({"y": 1})


def test_that_a_work_that_idds_does_not_mention_is_left_out(grid, service, shipment, look):
    ids = grid.submit([shipment()])
    service.works.clear()
    assert look(ids) is None


def test_that_ids_of_other_runners_are_left_out(grid):
    assert grid.poll({"a": "attempt-1"}) == {}


def test_that_looking_often_asks_seldom(grid, service, shipment, clock):
    ids = grid.submit([shipment(f"ab12-{n}-a") for n in range(20)])
    service.asked.clear()
    for _ in range(300):
        clock.now += 0.2
        grid.poll(ids)
    assert len(service.asked) <= 40  # a minute without a broker: the details and the results, every few seconds
