"""The loop: the only writer of a run's state.

It carries out what :func:`scheduler.core.machine.decide` says, writes every event into the journal before it takes
effect, and sleeps only in its mailbox. Runners and the optimizer are called in lanes of their own.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar, assert_never

from scheduler.core.events import (
    Cancelled,
    CancelRequested,
    Event,
    Failed,
    FoundInfeasible,
    RetryScheduled,
    Started,
    Submitted,
    Submitting,
    Succeeded,
    TrialStarted,
    TrialTold,
    Withdrawn,
)
from scheduler.core.failures import Cause, Failure
from scheduler.core.infeasible import Infeasibility, read_infeasibility
from scheduler.core.machine import (
    Drop,
    ExperimentState,
    JobRecord,
    Stop,
    Submit,
    Tell,
    TrialRecord,
    Withdraw,
    decide,
    next_due,
    verdict,
)
from scheduler.core.observations import HasFailed, HasSucceeded, IsQueued, IsRunning, Observation, WasCancelled
from scheduler.core.plan import JobId, arguments_of, dataset_name, input_name, job_token, parent_links
from scheduler.core.results import check_final_result, check_step_result, measurements_of
from scheduler.core.specs import Output, WorkflowSpec
from scheduler.core.states import JobState, TrialState
from scheduler.core.summary import JobCounts, RunSummary
from scheduler.core.takeover import TakenTrial
from scheduler.engine.advisor import Advice, Advisor, Outcome, Reserve
from scheduler.engine.driver import Flight, RunnerDriver
from scheduler.engine.ports import Run, World
from scheduler.engine.settings import EngineSettings
from scheduler.engine.speculation import Speculation, labels_of
from scheduler.errors import (
    GenerationError,
    OptimizationInterrupted,
    ResultError,
    TooManyFailuresError,
)
from scheduler.optimizer import Candidate, Measurement, Optimizer
from scheduler.runners.base_runner import Attempt, BaseRunner, OutputOrder

logger = logging.getLogger(__name__)
T = TypeVar("T")


_COMMIT_AFTER_S = 0.05
"""Events are committed together, at the latest after this time, and always before a backend is given a job that would
outlive this program. Jobs of this machine die with it: what is not committed of them did not happen."""

_LINKS_SHOWN = 3
_RESULTS = frozenset({TrialState.COMPLETED, TrialState.INFEASIBLE})
"""The ends of a trial that teach the optimizer something."""

DEFAULT_PARALLEL_TRIALS = 8
"""Trials under way at once when a backend queues by itself and the user did not say."""


class Engine:
    """Runs trials of one workflow until they are told.

    Args:
        workflow: The graph of every trial.
        optimizer: Proposes designs and takes their outcomes; called from one lane only.
        runners: Runner name -> runner.
        run: Takes every event before anything follows from it, and says where the files go.
        settings: Patience and limits.
        world: Time and threads.
    """

    def __init__(
        self,
        workflow: WorkflowSpec,
        optimizer: Optimizer,
        runners: Mapping[str, BaseRunner],
        run: Run,
        *,
        settings: EngineSettings | None = None,
        world: World | None = None,
    ) -> None:
        world = world or World()
        self.settings = settings or EngineSettings()
        self.state = ExperimentState(workflow)
        self.on_progress: Callable[[RunSummary], None] = lambda _: None
        self._workflow, self._run, self._mailbox = workflow, run, world.mailbox
        self._lanes = [world.open_lane("optimizer", self._mailbox)]
        self._advisor = Advisor(optimizer, self._lanes[0], self._mailbox)
        self._drivers: dict[str, RunnerDriver] = {}
        for name, runner in runners.items():
            self._lanes.append(lane := world.open_lane(name, self._mailbox))
            self._drivers[name] = RunnerDriver(name, runner, lane, self._mailbox, self.settings, self)
        self._twins = Speculation(self.state, self._drivers, self, factor=self.settings.straggler_factor)
        self._wanted = 0
        self._goal = 0
        self._must_wait = self._is_stopping = False
        self._may_prepare = True
        self._results = 0
        self._held: set[int] = set()
        self._to_take: deque[TakenTrial] = deque()
        self._early: dict[JobId, tuple[Flight, Observation]] = {}
        """Outcomes of jobs whose parents' outcomes are not known yet: what they are worth depends on those."""
        self._told_instead: dict[int, Mapping[str, Measurement]] = {}
        self._error: Exception | None = None
        self._stop_reason: str | None = None
        self._has_changed, self._reported_at = True, float("-inf")
        self._commit_at = float("inf")
        self._failures: Counter[str] = Counter()

    # What callers ask for ------------------------------------------------------------------------------------------

    def optimize(self, max_trials: int) -> None:
        """Ask for candidates and run them until ``max_trials`` more trials are told.

        Raises:
            GenerationError: The optimizer failed to propose; the trials under way were finished first.
            TooManyFailuresError: More trials failed than the settings allow; running jobs were cancelled.
            OptimizationInterrupted: :meth:`finish` or :meth:`stop` was called.
        """
        self._wanted += max_trials
        self._goal += max_trials
        self.run_until(lambda: not self._wanted and not self._to_take and not self._open_trials())
        if self._error is not None:
            raise self._error

    def resume(self, events: Iterable[tuple[int, Event]], *, saved_at: int) -> None:
        """Take up a run where its events end: before anything else, on a fresh engine.

        Attempts that a backend may have are asked for by label and adopted; those it does not know are submitted again
        under the same label.

        Args:
            events: All events with their numbers.
            saved_at: The number of the event after which the state was saved that the optimizer is in.
        """
        for number, event in events:
            self.state.apply(event)
            if number > saved_at:
                again = isinstance(event, TrialTold) and self._may_be_proposed_again(event.trial)
                self._advisor.bring_up_to_date(event, again=again)
        self._goal = len(self.state.trials)
        for trial in self.state.trials.values():
            self._results += trial.is_told and trial.state in _RESULTS
            if trial.told_failure is not None:
                self._failures[self._cause_of(trial.index)] += 1
        adopted: dict[str, list[Flight]] = {}
        for trial in self.state.live.values():
            for record in trial.jobs.values():
                if record.state.is_active:
                    runner = self._workflow.step(record.id.step).runner
                    adopted.setdefault(runner, []).append(self._flight(record.id))
        for flight in self._twins.resume(self._mailbox.now(), self._flight):
            adopted.setdefault(self._workflow.step(flight.job.step).runner, []).append(flight)
        for runner, flights in adopted.items():
            self._drivers[runner].adopt(flights)

    def start(self, candidates: Sequence[Candidate], *, hold: bool = False) -> None:
        """Make candidates that already exist in the optimizer into trials.

        Args:
            candidates: The designs.
            hold: Do not tell the optimizer before :meth:`release`.
        """
        if not candidates:
            return
        snapshot = self.consult(self._advisor.save)
        for candidate in candidates:
            self._goal += 1
            if hold:
                self._held.add(candidate.index)
            self._record(TrialStarted(candidate.index, dict(candidate.parameters), self._mailbox.now()), snapshot)
        self._act()
        self._commit()  # nobody may come back to the loop for long

    def take_over(self, trials: Sequence[TakenTrial]) -> None:
        """Begin trials with what is kept of them from another run, as places get free, before any new candidate.

        Args:
            trials: The trials, which exist in the optimizer. Its state is not saved for them: they are made again in
                the same order.
        """
        self._goal += len(trials)
        self._to_take.extend(trials)

    def cancel_trial(self, index: int) -> None:
        """End a trial that runs; it is told as failed. Safe in any thread; a trial that is over stays as it is."""
        self._mailbox.post(lambda: self._cancel_trial(index))

    def consult(self, work: Callable[[], T]) -> T:
        """Carry out a call of the optimizer in its lane and wait for it; the run goes on meanwhile.

        Raises:
            Exception: What the call raised.
        """
        answers: list[T] = []
        errors: list[Exception] = []
        self._advisor.consult(work, answers.append, errors.append)
        self.run_until(lambda: bool(answers or errors))
        if errors:
            raise errors[0]
        return answers[0]

    def release(self, trials: Iterable[int], metrics: Mapping[str, Measurement] | None = None) -> None:
        """Let the optimizer be told about held trials as soon as they are over.

        Args:
            trials: Their indices.
            metrics: What to tell instead of the trials' own results.
        """
        trials = list(trials)
        self._held.difference_update(trials)
        if metrics is not None:
            self._told_instead.update(dict.fromkeys(trials, metrics))

    def run_until(self, is_done: Callable[[], bool]) -> None:
        """Work until the condition holds, or the run is stopped.

        Raises:
            OptimizationInterrupted: The run was stopped.
        """
        timeout: float | None = 0.0
        while True:
            for news in self._mailbox.take(timeout):
                news()
            if self._stop_reason is not None:
                self._wind_down()
            self._act()
            if is_done() and not self._advisor.is_asking:
                break
            if self._mailbox.monotonic() >= self._commit_at:
                self._commit()
            timeout = self._patience()
        self._commit()
        self._report(force=True)

    def finish(self) -> None:
        """Ask for no more candidates; trials under way are finished. Safe in a signal handler."""
        self._mailbox.post(self._ask_no_more)

    def stop(self, reason: str) -> None:
        """Cancel running jobs and leave the loop. Safe in a signal handler."""

        def note() -> None:
            self._stop_reason = reason

        self._mailbox.post(note)

    def close(self) -> None:
        """Close the lanes. The runners stay open: they belong to the caller."""
        for lane in self._lanes:
            lane.close()

    def summary(self) -> RunSummary:
        """Where the run stands."""
        by_state = Counter(trial.state for trial in self.state.trials.values())
        bad = by_state[TrialState.FAILED] + by_state[TrialState.CANCELLED]
        common = self._failures.most_common(1)
        return RunSummary(
            max_trials=self._goal,
            completed=by_state[TrialState.COMPLETED],
            running=by_state[TrialState.RUNNING] + by_state[TrialState.CREATED],
            failed=bad,
            infeasible=by_state[TrialState.INFEASIBLE],
            steps={step: _job_counts(counts) for step, counts in self.state.step_counts.items()},
            phase=self._advisor.standing.phase,
            best=self._advisor.standing.best,
            activity="generating a candidate" if self._advisor.is_thinking else "",
            common_failure=common[0][0] if common else "",
            links=tuple(islice(self._links(), _LINKS_SHOWN)),
        )

    def _links(self) -> Iterator[str]:
        for trial in self.state.live.values():
            yield from (record.link for record in trial.jobs_in(JobState.RUNNING, JobState.QUEUED) if record.link)

    # Deciding ------------------------------------------------------------------------------------------------------

    def _act(self) -> None:
        """Carry out what the state asks for, until it asks for nothing more."""
        self._expire_trials()
        self._take_early_outcomes()
        self._begin_taken()
        self._start_reserve()
        submissions: dict[str, list[Flight]] = {}
        for decision in decide(self.state, self._room(waiting=True), self._mailbox.now()):
            if not isinstance(decision, Submit):
                self._carry_out(decision)
            elif self._may_be_submitted(decision.job):
                flight = self._prepare(decision.job)
                submissions.setdefault(self._workflow.step(decision.job.step).runner, []).append(flight)
        if any(not self._drivers[runner].runner.runs_here for runner in submissions):
            self._commit()
        for runner, flights in submissions.items():
            self._drivers[runner].submit(flights)
        self._twins.start(self._room(), self._mailbox.now(), self._flight)
        for driver in self._drivers.values():
            driver.tick()
        self._ask()
        self._report()

    def _carry_out(self, decision: Drop | Stop | Withdraw | Tell) -> None:
        match decision:
            case Drop(job, reason):
                self._record(Cancelled(job, self.state.job(job).attempt, self._mailbox.now(), reason))
            case Stop(job):
                self._cancel(job)
            case Withdraw(job):
                self._withdraw(job)
            case Tell(trial):
                self._tell(trial)
            case _:
                assert_never(decision)

    def _room(self, *, waiting: bool = False) -> dict[str, int | None]:
        """Runner name -> how many more attempts it can run, or, if ``waiting``, can be given; None for any number."""
        room: dict[str, int | None] = {}
        for name, driver in self._drivers.items():
            runner, taken = driver.runner, self.state.in_flight[name] + self._twins.places(name)
            places = runner.capacity
            if places is not None and waiting:
                places += runner.waiting_room
            room[name] = None if places is None else max(places - taken, 0)
        return room

    def _patience(self) -> float | None:
        """How long nothing can become due, in seconds; None for ever."""
        monotonic, now = self._mailbox.monotonic(), self._mailbox.now()
        deadlines = [d - monotonic for driver in self._drivers.values() if (d := driver.next_deadline()) is not None]
        if self._commit_at < float("inf"):
            deadlines.append(self._commit_at - monotonic)
        if self._has_changed:
            deadlines.append(self._reported_at + self.settings.report_every_s - monotonic)
        live = self.state.live.values()
        if (due := next_due(live, now)) is not None:
            deadlines.append(due - now)
        if self._twins.next_at is not None:
            deadlines.append(self._twins.next_at - now)
        if (limit := self.settings.trial_timeout_s) is not None:
            deadlines.extend(t.started_at + limit - now for t in live if not t.state.is_terminal)
        return max(0.0, min(deadlines)) if deadlines else None

    def _prepare(self, job: JobId) -> Flight:
        """Write down that the job is about to be submitted, and pack what the runner needs."""
        number = self.state.job(job).attempt + 1
        parts = self._run.attempt_directory(job, number).parts[-3:]
        self._record(Submitting(job, number, self._mailbox.now(), f"{self._run.run_id}-{'-'.join(parts)}"))
        return self._flight(job)

    def _flight(self, job: JobId) -> Flight:
        """The latest attempt of a job, as its runner takes it."""
        record, step, trial = self.state.job(job), self._workflow.step(job.step), self.state.trials[job.trial]
        token = job_token(self._run.run_id, job.trial)
        attempt = Attempt(
            label=record.label,
            payload=step.payload,
            arguments=arguments_of(
                self._workflow, job, trial.parameters, lambda parent: trial.jobs[parent].result or {}
            ),
            directory=self._run.attempt_directory(job, record.attempt),
            resources=step.resources,
            output=None if step.output is None else _order(step.output, job, token),
            inputs={
                argument: input_name(self._workflow, name, job, token, trial.kept)
                for argument, name in step.inputs.items()
            },
            returns_result=step.returns_result,
            cache=step.cache,
            trial=job.trial,
            follows=next((parent.native_id for parent in self._open_parents(job)), ""),
        )
        return Flight(job, record.attempt, attempt, is_unwanted=record.state is JobState.CANCELLING)

    def _open_parents(self, job: JobId) -> Iterator[JobRecord]:
        """The parents that the job is chained to and that are not over: at most one."""
        for parent in parent_links(self._workflow, job):
            record = self.state.job(parent.job)
            if parent.is_chained and not record.state.is_terminal:
                yield record

    def _may_be_submitted(self, job: JobId) -> bool:
        runner = self._driver(job).runner
        return all(runner.may_be_followed(parent.native_id) for parent in self._open_parents(job))

    def _take_early_outcomes(self) -> None:
        for job in [job for job in self._early if not any(self._open_parents(job))]:
            self.saw(*self._early.pop(job))

    def _withdraw(self, job: JobId) -> None:
        """Take a job back; what its backend still says about this attempt counts for nothing."""
        record = self.state.job(job)
        self._driver(job).cancel([record.label])
        self._early.pop(job, None)
        self._record(Withdrawn(job, record.attempt, self._mailbox.now()))

    def _cancel(self, job: JobId) -> None:
        record = self.state.job(job)
        self._record(CancelRequested(job, record.attempt, self._mailbox.now()))
        if job in self._early:
            self.saw(*self._early.pop(job))
        else:
            self._driver(job).cancel(labels_of(record))

    def _cancel_trial(self, index: int) -> None:
        trial = self.state.live.get(index)
        if trial is None or trial.state.is_terminal:
            logger.warning("trial %d does not run, so it cannot be cancelled", index)
            return
        for record in list(trial.jobs.values()):
            if record.state in {JobState.WAITING, JobState.RETRYING}:
                self._record(Cancelled(record.id, record.attempt, self._mailbox.now(), "the trial was cancelled"))
            elif record.state.is_active and record.state is not JobState.CANCELLING:
                self._cancel(record.id)

    def _expire_trials(self) -> None:
        limit, now = self.settings.trial_timeout_s, self._mailbox.now()
        if limit is None:
            return
        for trial in list(self.state.live.values()):
            if trial.state.is_terminal or now < trial.started_at + limit:
                continue
            message = f"trial {trial.index} took longer than max_trial_monitoring_time={limit:g} s"
            self._fail_trial(trial, Failure(Cause.TIMEOUT, message))

    def _fail_trial(self, trial: TrialRecord, failure: Failure) -> None:
        """Fail the job that is furthest; the rest of the trial follows from its state."""
        states = (JobState.RUNNING, JobState.QUEUED, JobState.SUBMITTING, JobState.RETRYING, JobState.WAITING)
        record = next(record for state in states for record in trial.jobs_in(state))
        if record.state.is_active:
            self._driver(record.id).cancel(labels_of(record))
        self._record(Failed(record.id, record.attempt, self._mailbox.now(), failure))

    def _driver(self, job: JobId) -> RunnerDriver:
        return self._drivers[self._workflow.step(job.step).runner]

    # News of jobs --------------------------------------------------------------------------------------------------

    def took(self, flight: Flight) -> None:
        """See :class:`scheduler.engine.driver.Sink`."""
        assert flight.native_id is not None  # noqa: S101 - the driver's promise
        if flight.is_twin:
            self._twins.took(flight)
            return
        self._record(Submitted(flight.job, flight.number, self._mailbox.now(), flight.native_id))

    def saw(self, flight: Flight, observation: Observation) -> None:
        """See :class:`scheduler.engine.driver.Sink`."""
        job, number, now = flight.job, flight.number, self._mailbox.now()
        if self._is_stopping and not isinstance(observation, HasSucceeded):
            return  # what we broke off ourselves is no verdict on the job: a later run takes it up again
        record = self.state.job(job)
        was_withdrawn = record.state is JobState.WAITING and number == record.attempt
        if was_withdrawn or self._twins.ignores(flight, observation):
            return
        is_outcome = isinstance(observation, HasSucceeded | HasFailed | WasCancelled)
        if is_outcome and record.state is not JobState.CANCELLING and any(self._open_parents(job)):
            self._early[job] = flight, observation
            return
        match observation:
            case IsQueued(link):
                self._note_link(flight, link)
            case IsRunning(link):
                self._note_link(flight, link)
                self._record(Started(job, number, now))
            case HasSucceeded(returned, source):
                self._judge(flight, returned, source)
            case HasFailed(failure):
                self._failed(flight, failure)
            case WasCancelled():
                if not self._twins.sets_aside(flight, observation):
                    self._record(Cancelled(job, number, now, "cancelled by the backend"))
            case _:
                assert_never(observation)
        self._twins.settle(flight)

    def _note_link(self, flight: Flight, link: str) -> None:
        if link and flight.native_id is not None:
            self._record(Submitted(flight.job, flight.number, self._mailbox.now(), flight.native_id, link))

    def _judge(self, flight: Flight, returned: object, source: str) -> None:
        step = flight.job.step
        try:
            result = (
                check_step_result(self._workflow, step, returned)
                if step != self._workflow.final
                else (check_final_result(step, returned, self._advisor.required_metrics))
            )
        except ResultError as error:
            self._failed(flight, Failure(Cause.RESULT, f"{flight.job}: {error}"))
        else:
            source = self._twins.source(flight, source)
            self._record(Succeeded(flight.job, flight.number, self._mailbox.now(), result, source))
            if self.state.job(flight.job).state is JobState.COMPLETED:
                self._driver(flight.job).runner.keep(flight.attempt, flight.job, returned)

    def _failed(self, flight: Flight, failure: Failure) -> None:
        record = self.state.job(flight.job)
        if record.state.is_terminal or flight.number < record.attempt:
            return
        found = read_infeasibility(failure.message) if failure.cause is Cause.EXCEPTION else None
        if found is not None:
            unknown = sorted((found.metrics or {}).keys() - self._advisor.constrained_metrics)
            if not unknown:
                now = self._mailbox.now()
                self._record(FoundInfeasible(flight.job, flight.number, now, found.reason, found.metrics))
                return
            failure = Failure(Cause.RESULT, self._no_such_constraint(flight.job, unknown[0], found), failure.log)
        if self._twins.sets_aside(flight, HasFailed(failure)):
            return
        self._record(verdict(record, failure, self._workflow.step(flight.job.step).retry, self._mailbox.now()))

    def _no_such_constraint(self, job: JobId, name: str, found: Infeasibility) -> str:
        known = ", ".join(sorted(self._advisor.constrained_metrics)) or "none"
        return (
            f"{job}: Infeasible({found.reason!r}) names the constraint '{name}', but no outcome constraint of the "
            f"experiment is on such a metric; there are: {known}"
        )

    def _record(self, event: Event, snapshot: str | None = None) -> None:
        """Let an event happen and write it down, before anything follows from it. What is no news is not written."""
        if not self.state.apply(event):
            return
        self._run.append(event, self.state, snapshot)
        self._commit_at = min(self._commit_at, self._mailbox.monotonic() + _COMMIT_AFTER_S)
        self._has_changed = True
        match event:
            case Failed(job=job, failure=failure):
                logger.warning("%s failed: %s", job, failure)
            case FoundInfeasible(job=job, reason=reason):
                logger.info("%s found the design infeasible: %s", job, reason)
            case RetryScheduled(job=job, failure=failure):
                logger.warning("%s will be tried again: %s", job, failure)
            case Withdrawn(job=job):
                logger.warning("%s waits again: the job whose dataset it reads is tried again", job)
            case TrialStarted(trial=trial):
                logger.info("trial %d started", trial)
            case Submitting() | Started() | Succeeded() | Cancelled():
                logger.debug("%s: %s", event.job, type(event).__name__)
            case _:
                pass

    def _commit(self) -> None:
        self._run.commit()
        self._commit_at = float("inf")

    # The optimizer -------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        advisor = self._advisor
        if advisor.is_thinking or advisor.telling or not self._wanted or self._is_taking():
            return
        if self._must_wait:
            if not self._open_trials():
                self._generation_failed(GenerationError(_STARVED))
        elif advisor.reserve is not None:
            return  # it is the next trial; one asked for now would be made without it as a pending one
        elif self._has_place():
            self._has_changed = True
            advisor.ask(self._asked, self._generation_failed)
        elif self._may_prepare and self._asks_ahead():
            self._has_changed = True
            advisor.prepare(self._results, self._prepared, self._preparation_failed)

    def _begin_taken(self) -> None:
        # No commit happens in here, so a trial is there with all that is kept of it, or not at all.
        while self._to_take and self._has_place():
            trial, now = self._to_take.popleft(), self._mailbox.now()
            self._record(TrialStarted(trial.index, dict(trial.parameters), now, kept=dict(trial.kept)))
            for job, result in trial.results.items():
                self._record(Succeeded(job, 0, now, result, trial.source))

    def _is_taking(self) -> bool:
        """Whether the optimizer has yet to learn of trials that are taken from another run."""
        return bool(self._to_take) or any(trial.kept and not trial.is_told for trial in self.state.live.values())

    def _asks_ahead(self) -> bool:
        """Whether it pays: with one place, each candidate shall know the result of the one before."""
        return self.settings.ask_ahead and self._max_parallel_trials() > 1

    def _prepared(self) -> None:
        self._may_prepare, self._has_changed = self._advisor.reserve is not None, True
        if not self._wanted:
            self._advisor.reserve = None

    def _preparation_failed(self, error: Exception) -> None:
        self._may_prepare = False  # if it matters, it fails again when the candidate is needed
        logger.warning("no candidate could be made ahead: %s", error)

    def _start_reserve(self) -> None:
        """Let a candidate that was made ahead take a free place at once, also while the optimizer is busy."""
        if not (self._wanted and self._advisor.can_start and self._has_place()):
            return
        assert self._advisor.reserve is not None  # noqa: S101 - can_start
        if self._is_stale(self._advisor.reserve):
            logger.debug("the candidate made ahead is dropped: too many results are newer")
            self._advisor.reserve = None
            return
        self._wanted -= 1
        candidate, origin = self._advisor.start(self._telling_failed)
        self._record(TrialStarted(candidate.index, dict(candidate.parameters), self._mailbox.now(), origin))

    def _is_stale(self, reserve: Reserve) -> bool:
        if self.settings.stale_after is None or not reserve.made.goes_stale:
            return False
        untold = sum(not trial.is_told and trial.state in _RESULTS for trial in self.state.live.values())
        return self._results + untold - reserve.results > self.settings.stale_after

    def _has_place(self) -> bool:
        """Whether another trial may be under way.

        One that is over has left its place, told or not, unless there is only one place: then the next candidate shall
        know its result.
        """
        most = self._max_parallel_trials()
        if most == 1:
            return self._open_trials() == 0
        live = self.state.live.values()
        return sum(not trial.state.is_terminal and trial.index not in self._held for trial in live) < most

    def _max_parallel_trials(self) -> int:
        if self.settings.max_parallel_trials is not None:
            return self.settings.max_parallel_trials
        capacities = [driver.runner.capacity for driver in self._drivers.values()]
        return max(DEFAULT_PARALLEL_TRIALS if capacity is None else capacity for capacity in capacities)

    def _open_trials(self) -> int:
        """Trials that have no outcome yet, or whose outcome the optimizer has yet to take."""
        return sum(not trial.is_told and trial.index not in self._held for trial in self.state.live.values())

    def _asked(self, advice: Advice) -> None:
        proposal, self._has_changed = advice.proposal, True
        for candidate in proposal.candidates:
            self._wanted = max(self._wanted - 1, 0)
            now, origin = self._mailbox.now(), advice.origins[candidate.index]
            self._record(TrialStarted(candidate.index, dict(candidate.parameters), now, origin), advice.snapshot)
        self._must_wait = proposal.must_wait
        if proposal.is_complete and self._wanted:
            logger.info("the generation strategy is complete; %d of the trials asked for are not run", self._wanted)
            self._ask_no_more()

    def _generation_failed(self, error: Exception) -> None:
        self._error = error
        logger.error("no more candidates (%s); waiting for %d running trials", error, self._open_trials())
        self._ask_no_more()

    def _ask_no_more(self) -> None:
        self._goal -= self._wanted + len(self._to_take)
        self._wanted = 0
        self._to_take.clear()
        self._advisor.reserve = None  # until more are wanted the optimizer may be used without us

    def _tell(self, index: int) -> None:
        if index in self._advisor.telling or index in self._held:
            return
        outcome = self._outcome(index)
        self._advisor.tell(outcome, lambda snapshot: self._told(outcome, snapshot), self._telling_failed)

    def _outcome(self, index: int) -> Outcome:
        """What the optimizer shall know of a trial that is over."""
        if index in self._told_instead:
            return Outcome(index, self._told_instead[index])
        if self.state.trials[index].state is TrialState.COMPLETED:
            return Outcome(index, measurements_of(self.state.result(index)))
        if (found := self.state.infeasibility(index)) is not None:
            return Outcome(index, found.metrics, infeasible=found.reason)
        failure = str(self.state.failure(index) or "cancelled")
        return Outcome(index, failure=failure, again=self._may_be_proposed_again(index))

    def _told(self, outcome: Outcome, snapshot: str | None) -> None:
        self._must_wait, self._may_prepare = False, True
        self._results += outcome.failure is None
        best, now = self._advisor.standing.best, self._mailbox.now()
        told = TrialTold(outcome.trial, outcome.failure, now, outcome.metrics, best, outcome.infeasible)
        self._record(told, snapshot)
        if outcome.infeasible is not None:
            logger.info("trial %d is infeasible: %s", outcome.trial, outcome.infeasible)
        elif outcome.failure is None:
            logger.info("trial %d completed; %s", outcome.trial, best)
        else:
            self._count_failure(outcome.trial)

    def _telling_failed(self, error: Exception) -> None:
        self._error = error
        self._stop_reason = f"the optimizer did not take a result: {error}"

    def _count_failure(self, index: int) -> None:
        self._failures[self._cause_of(index)] += 1
        judged = (trial for trial in self.state.trials.values() if trial.state is not TrialState.INFEASIBLE)
        told = [trial for trial in judged if trial.is_told]
        failed = sum(trial.told_failure is not None for trial in told)
        logger.warning("trial %d failed (%d of %d)", index, failed, len(told))
        if len(told) < self.settings.min_failed_trials or failed <= self.settings.failure_rate * len(told):
            return
        cause, count = self._failures.most_common(1)[0]
        self._error = TooManyFailuresError(
            f"{failed} of {len(told)} trials failed, more than failure_rate={self.settings.failure_rate:g} allows; "
            f"the commonest cause ({count} times): {cause}"
        )
        self._stop_reason = str(self._error)

    def _may_be_proposed_again(self, index: int) -> bool:
        if self.settings.retry_failed_designs is not None:
            return self.settings.retry_failed_designs
        failure = self.state.failure(index)
        return failure is None or failure.cause.is_infrastructure

    def _cause_of(self, index: int) -> str:
        failure = self.state.failure(index)
        return failure.message if failure else "cancelled"

    # Stopping and reporting ----------------------------------------------------------------------------------------

    def _wind_down(self) -> None:
        """Cancel what runs, wait for the confirmation with bounded patience, and leave the loop by an exception."""
        self._is_stopping = True
        self._ask_no_more()
        for driver in self._drivers.values():
            driver.cancel(driver.labels)
        give_up = self._mailbox.monotonic() + self.settings.stop_patience_s
        while self._is_busy() and self._mailbox.monotonic() < give_up:
            for driver in self._drivers.values():
                driver.tick()
            for news in self._mailbox.take(0.1):
                news()
        self._commit()
        self._report(force=True)
        raise self._error or OptimizationInterrupted(self._stop_reason)

    def _is_busy(self) -> bool:
        """Whether something goes on that a caller, who goes on after our exception, could get into the way of."""
        is_in_use = self._error is not None and self._advisor.is_busy
        return is_in_use or any(driver.labels for driver in self._drivers.values())

    def _report(self, *, force: bool = False) -> None:
        now = self._mailbox.monotonic()
        if force or (self._has_changed and now >= self._reported_at + self.settings.report_every_s):
            self._has_changed, self._reported_at = False, now
            self.on_progress(self.summary())


_STARVED = (
    "the optimizer wants more results before it proposes another candidate, but no trial is running: "
    "too many trials failed for its generation strategy; look at their failures, or ask for fewer initial trials"
)


def _order(output: Output, job: JobId, token: str) -> OutputOrder:
    return OutputOrder(
        dataset=dataset_name(output.dataset, job, token),
        file=output.file,
        slices=output.slices,
        num_events=output.num_events,
        num_events_per_job=output.num_events_per_job,
    )


def _job_counts(counts: Mapping[JobState, int]) -> JobCounts:
    return JobCounts(
        waiting=counts[JobState.WAITING] + counts[JobState.RETRYING],
        queued=counts[JobState.SUBMITTING] + counts[JobState.QUEUED],
        running=counts[JobState.RUNNING] + counts[JobState.CANCELLING],
        done=counts[JobState.COMPLETED],
        failed=counts[JobState.FAILED],
        stopped=counts[JobState.CANCELLED] + counts[JobState.INFEASIBLE],
    )
