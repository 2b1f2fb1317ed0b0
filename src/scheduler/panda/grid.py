"""The real grid: works in iDDS, tasks in PanDA, and the results that come back.

All methods are called from one thread, that of the engine's lane; results arrive in threads of the channel and are kept
until the next look. What is asked of the services is asked of many attempts at once, and seldom: a result needs no
question.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, IsQueued, IsRunning, Observation, WasCancelled
from scheduler.errors import RunnerError, RunnerUnavailableError
from scheduler.panda.grid_channel import ResultChannel
from scheduler.panda.grid_names import (
    NativeId,
    Yield,
    family_of,
    internal_id,
    new_archive_name,
    new_workflow_name,
    with_yield,
    without_yield,
    work_name,
    workflow_pattern,
)
from scheduler.panda.grid_replies import TASKS_OVER, TASKS_RUNNING, Result, Transform, TransformStatus
from scheduler.panda.idds import IddsClient, OpenWorkflow, Site, WorkOrder, monitor_link
from scheduler.panda.shipment import Shipment
from scheduler.runners.attempt_files import describe_call, write_attempt_files
from scheduler.runners.base_runner import Attempt

logger = logging.getLogger(__name__)
T = TypeVar("T")
A = TypeVar("A")

_THREADS = 4
_WORKS_PER_WORKFLOW = 400
"""A workflow's results are asked for together, and iDDS gives at most 1000 messages."""

_FIRST_LOOK_S, _LONGEST_LOOK_S = 2.0, 30.0
_LONGEST_LOOK_WITHOUT_BROKER_S = 5.0
_FIRST_TASK_LOOK_S, _LONGEST_TASK_LOOK_S, _TASK_LOOK_GROWTH = 8.0, 120.0, 2.5
_KILL_AGAIN_S = 10.0
_LOOK_COST = 10.0
"""Nobody looks again before this many times the duration of the last look have passed."""

_GRACE_S = 30.0
"""How long a result may be missing after the job is over."""


@dataclass(slots=True)
class _Session:
    """A workflow of this program that takes works."""

    workflow: OpenWorkflow
    works: int = 0
    urls: dict[str, str] = field(default_factory=dict)  # by digest


@dataclass(frozen=True, slots=True)
class _Order:
    """A job, the workflow that takes it, and what that is told."""

    job: Shipment
    session: _Session
    work: WorkOrder


@dataclass(slots=True)
class _Task:
    """What PanDA says of a task."""

    status: str | None = None
    pause_s: float = _FIRST_TASK_LOOK_S
    look_at: float = 0.0
    is_killed: bool = False
    kill_at: float = 0.0  # when to try again, after a refusal


@dataclass(slots=True)
class _Watch:
    """What is known of a request."""

    transforms: dict[int, Transform] = field(default_factory=dict)
    over_since: dict[int, float] = field(default_factory=dict)
    asked_for: dict[int, float] = field(default_factory=dict)  # when results of a work that is over were looked up
    pause_s: float = _FIRST_LOOK_S
    look_at: float = 0.0
    has_gap: bool = True


class Grid:
    """Submits attempts, and says how they are.

    Args:
        client: The services.
        site: Where and how tasks run.
        prefix: What the names of tasks begin with; None for the label alone.
        on_result: Called from any thread when a result has arrived.
        grace_s: How long a result may be missing after the job is over, in seconds.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        client: IddsClient,
        site: Site,
        *,
        prefix: str | None,
        on_result: Callable[[], None],
        grace_s: float = _GRACE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._site, self._prefix = client, site, prefix
        self._on_result, self._grace_s, self._clock = on_result, grace_s, clock
        self._sessions: dict[str, _Session] = {}
        self._by_request: dict[int, _Session] = {}
        self._internal_ids: dict[str, str] = {}  # by native id: the works that others may follow
        self._watches: dict[int, _Watch] = {}
        self._tasks: dict[int, _Task] = {}
        self._unwanted: set[tuple[int, int]] = set()
        self._results: dict[tuple[int, int], list[Result]] = {}
        self._results_lock = threading.Lock()
        self._channel: ResultChannel | None = None
        self._knows_broker = False
        self._outage: RunnerUnavailableError | None = None
        self._try_again_at = 0.0
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="grid")

    # Submission -----------------------------------------------------------------------------------------------------

    def submit(self, jobs: Sequence[Shipment]) -> dict[str, str | Failure]:
        """Make a work of each job.

        Returns:
            By label the native id or why it was refused; what is left out may have been taken or not.

        Raises:
            RunnerUnavailableError: Nothing is known about any of them.
        """
        orders: list[_Order] = []
        answer: dict[str, str | Failure] = {}
        self._tend_channel(at_once=True)  # before anything can be published
        for job in jobs:
            try:
                session = self._session_for(job)
            except RunnerUnavailableError:
                raise
            except RunnerError as error:
                answer[job.attempt.label] = Failure(Cause.SUBMISSION, str(error))
            else:
                orders.append(_Order(job, session, self._work_order(job, session)))
        outcomes = self._in_parallel(lambda each: self._client.submit(each.session.workflow, each.work), orders)
        answer.update(self._answers(orders, outcomes))
        return answer

    def _answers(
        self, orders: Sequence[_Order], outcomes: Sequence[int | RunnerError]
    ) -> Iterator[tuple[str, str | Failure]]:
        """By label what became of orders; those whose answer did not arrive are left out.

        Raises:
            RunnerUnavailableError: No answer arrived at all.
        """
        silent = [each for each in outcomes if isinstance(each, RunnerUnavailableError)]
        if silent and len(silent) == len(outcomes):
            raise silent[0]
        if silent:
            logger.warning("%d of %d jobs may not have been taken: %s", len(silent), len(orders), silent[0])
        for order, outcome in zip(orders, outcomes, strict=True):
            if isinstance(outcome, int):
                yield order.job.attempt.label, str(self._took(order, outcome))
            elif not isinstance(outcome, RunnerUnavailableError):
                yield order.job.attempt.label, Failure(Cause.SUBMISSION, str(outcome))

    def _session_for(self, job: Shipment) -> _Session:
        """The workflow that takes the job, with its tarball uploaded."""
        family = family_of(job.attempt.label)
        parent = NativeId.parse(job.attempt.follows)
        session = self._sessions.get(family) if parent is None else self._by_request[parent.request_id]
        if session is None or (session.works >= _WORKS_PER_WORKFLOW and parent is None):
            channel = self._open_channel()
            name = new_workflow_name(self._prefix, family)
            workflow = self._client.open_workflow(name, self._site, None if channel is None else channel.broker)
            logger.info("workflow %s is request %d in iDDS", name, workflow.request_id)
            urls = session.urls if session is not None else {}
            session = self._sessions[family] = self._by_request[workflow.request_id] = _Session(workflow, urls=urls)
            self._watch(workflow.request_id, has_gap=False).look_at = self._clock() + _FIRST_LOOK_S
        if job.tarball.digest not in session.urls:
            session.urls[job.tarball.digest] = self._client.upload(job.tarball.path, new_archive_name())
        session.works += 1
        return session

    def _work_order(self, job: Shipment, session: _Session) -> WorkOrder:
        attempt, location = job.attempt, job.location
        arguments = dict(attempt.arguments)
        as_mapping = job.function.takes_mapping
        return WorkOrder(
            name=with_yield(work_name(self._prefix, attempt.label), _yield_of(attempt)),
            function=f"{location.file}:{location.module}:{location.qualname}",
            args=(arguments,) if as_mapping else (),
            kwargs={} if as_mapping else arguments,
            source_url=session.urls[job.tarball.digest],
            cores=job.resources.cores or 1,
            memory_mb=job.resources.memory_mb or 1,
            walltime_s=max(1, round(job.resources.walltime_s or 0)),
            inputs=attempt.inputs,
            output=attempt.output,
            follows=self._followed(attempt),
        )

    def _followed(self, attempt: Attempt) -> str | None:
        return self._internal_ids[attempt.follows] if attempt.follows else None

    def _took(self, order: _Order, transform_id: int) -> NativeId:
        attempt, request_id = order.job.attempt, order.session.workflow.request_id
        native_id = NativeId(request_id, transform_id, _yield_of(attempt))
        self._internal_ids[str(native_id)] = internal_id(order.work.name)
        call = describe_call(order.job.function, attempt.arguments)
        command = f"# work {order.work.name}, {native_id} in iDDS\n{call}"
        try:
            write_attempt_files(attempt, attempt.directory.absolute(), command=command)
        except OSError as error:  # the work is taken; only what people would read about it is missing
            logger.warning("cannot write what %s is called with: %s", attempt.label, error)
        watch = self._watches[request_id]
        watch.pause_s = _FIRST_LOOK_S
        watch.look_at = min(watch.look_at, self._clock() + _FIRST_LOOK_S)
        return native_id

    def may_be_followed(self, native_id: str) -> bool:
        """Whether a work may be chained to this one: iDDS looks for the parent in the same workflow, which is ours."""
        return native_id in self._internal_ids

    # Looking --------------------------------------------------------------------------------------------------------

    def poll(self, attempts: Mapping[str, str]) -> dict[str, Observation]:
        """What is known of attempts, given as label -> native id; asks the services when it is time to.

        Raises:
            RunnerUnavailableError: They do not answer, and nothing has arrived meanwhile.
        """
        ids = {label: id_ for label, text in attempts.items() if (id_ := NativeId.parse(text)) is not None}
        trouble = self._look(ids.values())
        seen = {label: seen for label, id_ in ids.items() if (seen := self._judge(id_)) is not None}
        if trouble is not None and not any(
            isinstance(each, HasSucceeded | HasFailed | WasCancelled) for each in seen.values()
        ):
            raise trouble
        return seen

    def _look(self, ids: Iterable[NativeId]) -> RunnerUnavailableError | None:
        """Ask for what is due; the trouble, when the services do not answer."""
        if self._outage is not None and self._clock() < self._try_again_at:
            return self._outage
        wanted: dict[int, list[NativeId]] = {}
        for each in ids:
            if not self._is_decided(each):
                wanted.setdefault(each.request_id, []).append(each)
        try:
            if wanted:
                self._tend_channel()
            for request_id, works in wanted.items():
                self._look_at_request(request_id, works)
            self._look_at_tasks(wanted)
        except RunnerUnavailableError as error:
            self._outage, self._try_again_at = error, self._clock() + 1.0
            return error
        self._outage = None
        return None

    def _tend_channel(self, *, at_once: bool = False) -> None:
        channel = self._open_channel()
        if channel is not None and channel.keep_alive(at_once=at_once):
            for watch in self._watches.values():
                watch.has_gap = True

    def _look_at_request(self, request_id: int, works: Sequence[NativeId]) -> None:
        watch, start = self._watch(request_id), self._clock()
        if watch.has_gap:
            self._fetch_results(request_id)
            watch.has_gap = False
        if start < watch.look_at and not any(map(self._lacks_link, works)):
            return
        watch.transforms = {each.id: each for each in self._client.transforms(request_id)}
        for work in works:
            transform = watch.transforms.get(work.transform_id)
            if transform is not None and transform.status.is_over:
                watch.over_since.setdefault(work.transform_id, start)
        if not self._hears_everything():
            self._fetch_results(request_id)
        missing = [work for work in works if self._must_look_up(watch, work)]
        if missing:
            self._look_up(request_id, watch, missing)
        end = self._clock()
        longest = _LONGEST_LOOK_S if self._hears_everything() else _LONGEST_LOOK_WITHOUT_BROKER_S
        watch.pause_s = min(watch.pause_s * 1.5, longest)
        watch.look_at = end + max(watch.pause_s, _LOOK_COST * (end - start))

    def _must_look_up(self, watch: _Watch, work: NativeId) -> bool:
        """Whether nobody has asked for the missing result of a work that is over: at once, and when patience ends."""
        since = watch.over_since.get(work.transform_id)
        if since is None or (self._results_of(work) and not work.yields.slices):
            return False
        asked = watch.asked_for.get(work.transform_id)
        return asked is None or asked < since + self._grace_s <= self._clock()

    def _look_up(self, request_id: int, watch: _Watch, works: Sequence[NativeId]) -> None:
        """Ask work by work for results that are missing: there may be more than iDDS gives for a whole request."""
        now = self._clock()
        for results in self._in_parallel(lambda each: self._client.results(request_id, each.transform_id), works):
            if isinstance(results, Exception):
                raise results
            self._keep(results)
        watch.asked_for.update((work.transform_id, now) for work in works)

    def _is_given_up(self, watch: _Watch, work: NativeId) -> bool:
        """Whether the result of a work that is over was asked for when patience was at an end."""
        since, asked = watch.over_since.get(work.transform_id), watch.asked_for.get(work.transform_id)
        return since is not None and asked is not None and asked >= since + self._grace_s

    def _fetch_results(self, request_id: int) -> None:
        self._keep(self._client.results(request_id))

    def _look_at_tasks(self, wanted: Mapping[int, Sequence[NativeId]]) -> None:
        """Ask PanDA about tasks that may have started, and about those that shall end; kill what is to be killed."""
        now = self._clock()
        due: list[int] = []
        for work in (each for works in wanted.values() for each in works):
            transform = self._watches[work.request_id].transforms.get(work.transform_id)
            if transform is None or transform.task_id is None:
                continue
            task = self._tasks.setdefault(transform.task_id, _Task(look_at=now + _FIRST_TASK_LOOK_S))
            is_unwanted = (work.request_id, work.transform_id) in self._unwanted
            if is_unwanted and not task.is_killed and not transform.status.is_over and now >= task.kill_at:
                self._kill(transform.task_id, task)
            needs_look = task.status not in TASKS_RUNNING or is_unwanted
            if needs_look and not transform.status.is_over and task.status not in TASKS_OVER and now >= task.look_at:
                due.append(transform.task_id)
        statuses = self._in_parallel(self._client.task_status, due)
        for task_id, status in zip(due, statuses, strict=True):
            if isinstance(status, Exception):
                raise status
            task = self._tasks[task_id]
            task.status = status or task.status
            task.pause_s = min(task.pause_s * _TASK_LOOK_GROWTH, _LONGEST_TASK_LOOK_S)
            task.look_at = now + (_FIRST_LOOK_S if task.is_killed else task.pause_s)

    # Judging --------------------------------------------------------------------------------------------------------

    def _is_decided(self, work: NativeId) -> bool:
        """Whether the result is here and nothing else is waited for."""
        return not work.yields.slices and bool(self._results_of(work)) and not self._lacks_link(work)

    def _lacks_link(self, work: NativeId) -> bool:
        """Whether a function raised and its task, which has the log, is not known yet."""
        watch = self._watches.get(work.request_id)
        transform = None if watch is None else watch.transforms.get(work.transform_id)
        has_raised = any(each.error is not None for each in self._results_of(work))
        return has_raised and (transform is None or transform.task_id is None)

    def _judge(self, work: NativeId) -> Observation | None:
        """How an attempt is; None when iDDS does not mention it."""
        results = self._results_of(work)
        watch = self._watches.get(work.request_id)
        transform = None if watch is None else watch.transforms.get(work.transform_id)
        if results and not work.yields.slices:
            return _outcome(results[0], transform)  # one that comes twice counts once, and it is the first
        if watch is None or transform is None:
            return None
        if transform.status.is_over:
            return self._judge_end(work, watch, transform, results)
        task = self._tasks.get(transform.task_id or 0)
        status = task.status if task is not None else None
        if (work.request_id, work.transform_id) in self._unwanted and status in TASKS_OVER:
            return WasCancelled()
        link = "" if transform.task_id is None else monitor_link(transform.task_id)
        return IsRunning(link) if status in TASKS_RUNNING else IsQueued(link)

    def _judge_end(
        self, work: NativeId, watch: _Watch, transform: Transform, results: Sequence[Result]
    ) -> Observation | None:
        """How an attempt is whose transform is over."""
        if transform.status is TransformStatus.CANCELLED or (work.request_id, work.transform_id) in self._unwanted:
            return WasCancelled()
        raised = next((each for each in results if each.error is not None), None)
        if raised is not None:
            return _outcome(raised, transform)
        if results and transform.status is TransformStatus.FINISHED:
            return _outcome(results[-1], transform)  # of several slices the last one counts, as on the embedded site
        is_given_up = self._is_given_up(watch, work)
        has_dataset = work.yields.slices > 0 and transform.status is TransformStatus.FINISHED
        if has_dataset and (work.yields.is_silent or is_given_up):
            # Enough, unless a step wants a metric of what the function returned: that is the engine's to say.
            return HasSucceeded(None)
        if not is_given_up:
            return IsRunning()
        return HasFailed(_explain_silence(transform, results, work.yields.slices))

    def _results_of(self, work: NativeId) -> list[Result]:
        with self._results_lock:
            return list(self._results.get((work.request_id, work.transform_id), ()))

    def _keep(self, results: Iterable[Result]) -> bool:
        """Keep results; whether any of them is new."""
        is_new = False
        with self._results_lock:
            for result in results:
                known = self._results.setdefault((result.request_id, result.transform_id), [])
                if result not in known:
                    known.append(result)
                    is_new = True
        return is_new

    def _heard(self, result: Result) -> None:
        """A result came in; called in a thread of the channel."""
        if self._keep([result]):
            self._on_result()

    # Cancelling and finding -----------------------------------------------------------------------------------------

    def cancel(self, attempts: Mapping[str, str]) -> None:
        """Have PanDA end the tasks of attempts. One that has no task yet is ended as soon as it has one.

        Raises:
            RunnerUnavailableError: The services do not answer; the wish is remembered.
        """
        ids = [id_ for text in attempts.values() if (id_ := NativeId.parse(text)) is not None]
        self._unwanted.update((each.request_id, each.transform_id) for each in ids)
        for request_id in {each.request_id for each in ids}:
            self._watch(request_id).look_at = 0.0
        trouble = self._look(ids)
        if trouble is not None:
            raise trouble

    def _kill(self, task_id: int, task: _Task) -> None:
        refusal = self._client.kill(task_id)
        task.is_killed = refusal is None
        task.look_at, task.pause_s = 0.0, _FIRST_LOOK_S
        if refusal is None:
            logger.info("asked PanDA to kill task %d", task_id)
            return
        log = logger.debug if task.kill_at else logger.warning
        log("PanDA refuses to kill task %d (%s), trying again; see %s", task_id, refusal, monitor_link(task_id))
        task.kill_at = self._clock() + _KILL_AGAIN_S

    def find(self, labels: Sequence[str]) -> dict[str, str]:
        """The native ids of those of these labels that have a work in iDDS.

        Raises:
            RunnerUnavailableError: iDDS does not answer.
        """
        names = {work_name(self._prefix, label): label for label in labels}
        found: dict[str, str] = {}
        for family in {family_of(label) for label in labels}:
            for request_id in self._client.request_ids(workflow_pattern(self._prefix, family)):
                for transform in self._client.transforms(request_id):
                    name, yields = without_yield(transform.name)
                    if name in names:
                        found.setdefault(names[name], str(NativeId(request_id, transform.id, yields)))
        return found

    def close(self) -> None:
        """Disconnect. Jobs go on."""
        if self._channel is not None:
            self._channel.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    # Means ----------------------------------------------------------------------------------------------------------

    def _hears_everything(self) -> bool:
        return self._channel is not None and self._channel.is_complete

    def _open_channel(self) -> ResultChannel | None:
        """The channel for results; None when they only come over HTTP."""
        if not self._knows_broker:
            broker = self._client.broker()
            self._knows_broker = True
            if broker is None:
                logger.info("the service has no message broker: results are asked for over HTTP")
            else:
                self._channel = ResultChannel(broker, self._heard, self._on_result)
        return self._channel

    def _watch(self, request_id: int, *, has_gap: bool = True) -> _Watch:
        """What is known of a request; from now on its results are heard."""
        if request_id not in self._watches:
            self._watches[request_id] = _Watch(has_gap=has_gap)
            if self._channel is not None:
                self._channel.listen(request_id)
        return self._watches[request_id]

    def _in_parallel(self, call: Callable[[A], T], items: Sequence[A]) -> list[T | RunnerError]:
        """Call for each item; where it raised an error of the service, the error."""

        def attempt(item: A) -> T | RunnerError:
            try:
                return call(item)
            except RunnerError as error:
                return error

        return list(self._pool.map(attempt, items))


def _yield_of(attempt: Attempt) -> Yield:
    return Yield() if attempt.output is None else Yield(attempt.output.slices, is_silent=not attempt.returns_result)


def _outcome(result: Result, transform: Transform | None) -> Observation:
    """What a result says about its attempt."""
    if result.error is None:
        return HasSucceeded(result.value)
    text = result.error or "the function raised an exception without a text"
    return HasFailed(Failure(Cause.EXCEPTION, f"{text} ({_where(transform)})"))


def _explain_silence(transform: Transform, results: Sequence[Result], slices: int) -> Failure:
    """Why an attempt is over without what was wanted of it."""
    where = _where(transform)
    match transform.status:
        case TransformStatus.FAILED if transform.task_id is None:
            return Failure(Cause.SUBMISSION, "iDDS took the job, but could not submit it to PanDA")
        case TransformStatus.FAILED:
            return Failure(Cause.KILLED, f"the task failed and its function said nothing: look at its log ({where})")
        case TransformStatus.EXPIRED:
            return Failure(Cause.LOST, f"the task expired in iDDS before it was done ({where})")
        case TransformStatus.SUB_FINISHED if slices:
            return Failure(
                Cause.KILLED,
                f"some of the {slices} jobs failed, {len(results)} returned: the dataset is incomplete ({where})",
            )
        case _:
            return Failure(Cause.LOST, f"the task is done, but no result of it arrived or was kept ({where})")


def _where(transform: Transform | None) -> str:
    if transform is None or transform.task_id is None:
        return "its task is not known yet"
    return monitor_link(transform.task_id)
