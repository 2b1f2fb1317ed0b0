"""AxScheduler: the facade that programs use, over engine, optimizer and run directory."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from scheduler import reanalysing, rehearsing
from scheduler.caching.runner import with_cache
from scheduler.config import SchedulerConfig
from scheduler.core.results import check_final_result, measurements_of
from scheduler.core.specs import Container, Scalar, Script
from scheduler.core.states import TrialState
from scheduler.core.takeover import TakenTrial
from scheduler.engine import Engine
from scheduler.errors import (
    ConfigurationError,
    MissingMainGuardError,
    NoSuccessfulTrialError,
    OptimizationInterrupted,
    ResultError,
    SchedulerError,
)
from scheduler.identity import identity_of
from scheduler.interrupts import obey_signals
from scheduler.job.multi_steps_job import MultiStepsFunction
from scheduler.objective import Objective, PreparedObjective, prepare
from scheduler.optimizer import AxOptimizer, Candidate, adapt, restore
from scheduler.reanalysis import Plan, make_plan, plan_of, taken_trials
from scheduler.report import Report, open_report, print_outcome
from scheduler.run_directory import RunDirectory
from scheduler.run_opening import Desk, open_run
from scheduler.runners.base_runner import BaseRunner
from scheduler.trial.trial import Trial

if TYPE_CHECKING:
    from ax.core.experiment import Experiment

logger = logging.getLogger(__name__)


class AxScheduler:
    """Optimizes an objective: Ax proposes designs, runners evaluate them in parallel, Ax is told.

    Args:
        ax_client_or_experiment: An ``ax.api.client.Client`` or an ``ax.service.ax_client.AxClient`` with its experiment
            and objectives configured; None before :meth:`load_experiment`.
        runner: Runs the objective, and the steps that name no runner of their own.
        config: See :class:`~scheduler.config.SchedulerConfig` for keys and defaults.

    Raises:
        ConfigurationError: An argument cannot be; the message says what to pass.
        MissingMainGuardError: The program is being imported by a job.
    """

    def __init__(
        self, ax_client_or_experiment: object, runner: BaseRunner, config: Mapping[str, object] | None = None
    ) -> None:
        _refuse_import_in_a_job()
        if not isinstance(runner, BaseRunner):
            raise ConfigurationError(
                f"runner is {runner!r}; give a JobLibRunner, a PanDAiDDSRunner or another BaseRunner"
            )
        self.config = _as_it_runs(SchedulerConfig.from_mapping(config))
        self.runner = runner
        self.ax_client: Any = ax_client_or_experiment
        self._optimizer = None if ax_client_or_experiment is None else adapt(ax_client_or_experiment)
        self._objective: Objective | None = None
        self._engine: Engine | None = None
        self._run: RunDirectory | None = None
        self._earlier: dict[int, Trial] = {}
        self._reanalysis: Plan | None = None
        self._unfinished: list[int] = []
        self._resumed: list[int] = []
        self._finalizer = weakref.finalize(self, _close_all, {id(runner): runner}, None)

    # The objective -------------------------------------------------------------------------------------------------

    def set_objective_function(self, objective_fn: Callable[..., object] | MultiStepsFunction) -> None:
        """Evaluate designs with a function, or with a graph of steps.

        Args:
            objective_fn: Called with the design parameters as keyword arguments (or with one mapping, when it has
                exactly one required parameter and that is no design parameter); returns ``{metric: number}`` or
                ``{metric: (mean, sem)}``.

        Raises:
            ConfigurationError: It cannot be called so, or a step cannot be run by its runner.
        """
        if not callable(objective_fn) and not isinstance(objective_fn, MultiStepsFunction):
            raise ConfigurationError(f"the objective is {objective_fn!r}; give a function or a MultiStepsFunction")
        self._set_objective(objective_fn)

    def set_script_objective(self, script_path: str, script_options: Mapping[str, Scalar] | None = None) -> None:
        """Evaluate designs with a script: it reads ``$JOB_PARAMS_FILE`` and writes ``result.json`` beside it.

        Args:
            script_path: An executable file, a ``.py`` or a ``.sh`` file.
            script_options: Given to it as ``--name value``.

        Raises:
            ConfigurationError: There is no such file, or the runner runs no scripts.
        """
        self._set_objective(Script(str(script_path), dict(script_options or {})))

    def set_container_objective(
        self,
        container_image: str,
        container_command: str | None = None,
        container_options: Mapping[str, Scalar] | None = None,
    ) -> None:
        """Evaluate designs with a container: it reads ``/job/params.json`` and writes ``/job/result.json``.

        Args:
            container_image: The image.
            container_command: The command in it; default the image's own.
            container_options: Options of the container engine, as ``--name value``.

        Raises:
            ConfigurationError: The runner runs no containers, or no container engine is installed.
        """
        self._set_objective(Container(container_image, container_command, dict(container_options or {})))

    # Optimizing ----------------------------------------------------------------------------------------------------

    def run_optimization(self, max_trials: int = 10) -> dict[Any, Any]:
        """Run trials until the experiment has ``max_trials`` of them, those that it had before included.

        Ctrl-C once: no new trials, those that run are finished. Twice: running jobs are cancelled.

        Args:
            max_trials: Number of trials in all, failed ones included.

        Returns:
            The best parameters ``{name: value}``; with several objectives the Pareto set as Ax's
            ``get_pareto_optimal_parameters`` gives it.

        Raises:
            NoSuccessfulTrialError: No trial succeeded.
            TooManyFailuresError: More trials failed than ``failure_rate`` allows.
            GenerationError: Ax failed to propose a design.
            OptimizationInterrupted: The run was stopped.
        """
        if not isinstance(max_trials, int) or isinstance(max_trials, bool) or max_trials < 1:
            raise ConfigurationError(f"max_trials is {max_trials!r}; give a whole number of at least 1")
        engine, optimizer = self._ready(may_reanalyse=True)
        with self._session() as report:
            is_reanalysis = self._take_over(engine, optimizer, report)
            engine.start([optimizer.candidate(index) for index in self._unfinished])
            self._unfinished.clear()
            missing = 1 if rehearsing.current() else max_trials - len(optimizer.experiment.trials)
            if missing <= 0 and not engine.state.live and not is_reanalysis:
                logger.warning("the experiment has %d trials already; max_trials counts them", max_trials - missing)
            engine.optimize(max(missing, 0))
            rehearsing.end_after_trial()
            report.say("computing the best point")
            best = self._best(engine, optimizer)
        self._conclude(best)
        return best

    def batch_trial_context(self) -> TrialBatch:
        """A batch of designs that the user chose, run together.

        Example::

            with scheduler.batch_trial_context() as batch:
                batch.add_trial({"x": 0.1, "y": 0.2})
                batch.run()
        """
        return TrialBatch(self)

    def run_batch(self, designs: Iterable[Mapping[str, Scalar]]) -> list[Trial]:
        """Attach designs to the experiment, run them all and tell Ax.

        Returns:
            Their trials, in the same order.
        """
        engine, optimizer = self._ready()
        with self._session():
            chosen = list(designs)[:1] if rehearsing.current() else designs
            candidates = self._claim_or_attach(engine, optimizer, chosen)
            engine.start([each for each in candidates if each.index not in engine.state.trials])
            engine.run_until(lambda: all(engine.state.trials[c.index].is_told for c in candidates))
            rehearsing.end_after_trial()
        return [self.trials[candidate.index] for candidate in candidates]

    # One trial at a time -------------------------------------------------------------------------------------------

    def get_next_trial(self) -> int | None:
        """Ask Ax for a design.

        Returns:
            The index of the new trial; None when Ax proposes nothing now, because it wants results first or because
            its strategy is complete.

        Raises:
            GenerationError: Ax failed to propose a design.
        """
        engine, optimizer = self._ready()
        candidates = engine.consult(lambda: optimizer.ask(1)).candidates
        return candidates[0].index if candidates else None

    def run_trial(self, trial_index: int) -> Trial:
        """Start a trial of the experiment; with ``synchronous`` also wait until it is over.

        Jobs run in the background; the next step of a trial starts during any later call of the scheduler. Ax is told
        by :meth:`complete_trial`, :meth:`monitor_trials` or :meth:`wait_for_completed_trials`.
        """
        engine, optimizer = self._ready()
        candidate = engine.consult(lambda: optimizer.candidate(trial_index))
        engine.start([candidate], hold=True)
        if self.config.synchronous:
            with self._session():
                engine.run_until(lambda: engine.state.trials[trial_index].state.is_terminal)
                rehearsing.end_after_trial()
        return self.trials[trial_index]

    def complete_trial(self, trial_index: int, raw_data: Mapping[str, object] | None = None) -> None:
        """Tell Ax about a trial; waits for it if it still runs.

        Args:
            trial_index: The trial. It need not have been run by the scheduler when ``raw_data`` is given.
            raw_data: What to tell instead of the trial's own result: ``{metric: value | (mean, sem)}``.

        Raises:
            ResultError: ``raw_data`` is no result, or Ax has been told about the trial before.
            ConfigurationError: The scheduler never ran this trial and there is no ``raw_data``.
        """
        engine, optimizer = self._ready()
        metrics = None
        if raw_data is not None:
            metrics = measurements_of(check_final_result("raw_data", raw_data, optimizer.required_metrics))
        if trial_index not in engine.state.trials:
            if metrics is None:
                raise ConfigurationError(f"trial {trial_index} was not run: call run_trial first, or give raw_data")
            engine.consult(lambda: optimizer.tell(trial_index, metrics))
            return
        if engine.state.trials[trial_index].is_told:
            if raw_data is not None:
                raise ResultError(f"Ax has been told the result of trial {trial_index} already")
            return
        with self._session():
            engine.release([trial_index], metrics)
            engine.run_until(lambda: engine.state.trials[trial_index].is_told)

    def monitor_trials(self) -> dict[int, TrialState]:
        """Let started trials advance, tell Ax about those that are over, and return at once.

        Returns:
            The states of all trials.
        """
        engine, _ = self._ready()
        engine.release(index for index, trial in engine.state.live.items() if trial.state.is_terminal)
        engine.run_until(lambda: True)
        return {index: trial.state for index, trial in self.trials.items()}

    def wait_for_completed_trials(self) -> dict[int, TrialState]:
        """Wait until all started trials are over and Ax has been told.

        Returns:
            The states of all trials.
        """
        engine, _ = self._ready()
        with self._session():
            engine.release(list(engine.state.live))
            engine.run_until(lambda: all(trial.is_told for trial in engine.state.live.values()))
        return {index: trial.state for index, trial in self.trials.items()}

    # Looking -------------------------------------------------------------------------------------------------------

    @property
    def trials(self) -> dict[int, Trial]:
        """The trials that this scheduler ran, by index."""
        if self._engine is None:
            return dict(self._earlier)
        state = self._engine.state
        return {**self._earlier, **{index: Trial(state, index) for index in state.trials}}

    @property
    def experiment(self) -> Experiment | None:
        """The Ax experiment; None before there is one."""
        return None if self._optimizer is None else self._optimizer.experiment

    @property
    def run_directory(self) -> Path | None:
        """Where this run keeps its files; None before the first trial."""
        return None if self._run is None else self._run.path

    def is_multi_objective(self) -> bool:
        """Whether the experiment has several objectives."""
        return len(self._need_optimizer().objectives) > 1

    # Keeping -------------------------------------------------------------------------------------------------------

    def save_experiment(self, path: str | Path) -> None:
        """Write the Ax experiment with its data and generation strategy to a file, all or nothing."""
        optimizer = self._need_optimizer()
        text = optimizer.snapshot() if self._engine is None else self._engine.consult(optimizer.snapshot)
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.new")
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)

    def load_experiment(self, path: str | Path) -> None:
        """Take up an experiment that :meth:`save_experiment` wrote; the optimization can then go on.

        Trials that were pending are run first by the next :meth:`run_optimization`.

        Raises:
            ConfigurationError: There is no such file, it is no saved experiment, or trials have been run already.
        """
        if self._engine is not None and self._engine.state.trials:
            raise ConfigurationError("trials have been run already: load the experiment into a new AxScheduler")
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"cannot read the experiment: {error}") from error
        self._optimizer = restore(text)
        self.ax_client = self._optimizer.client
        trials = self._optimizer.experiment.trials.items()
        self._unfinished = [index for index, trial in trials if not trial.status.is_terminal]
        self._engine = None

    def close(self) -> None:
        """End the runners' processes. Happens by itself when the program ends."""
        if self._engine is not None:
            self._engine.close()
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Behind the scenes ---------------------------------------------------------------------------------------------

    def _set_objective(self, objective: Objective) -> None:
        if self._optimizer is not None:
            prepare(objective, self.runner, self._optimizer.parameter_names, self.config.retry_policy)
        if self._engine is not None:  # another graph is another run, with a directory of its own
            self._earlier = self.trials
            self.close()
            self._engine = None
        self._objective = objective

    def _need_optimizer(self) -> AxOptimizer:
        if self._optimizer is None:
            raise ConfigurationError("there is no experiment: pass an Ax client, or call load_experiment first")
        return self._optimizer

    def _ready(self, *, may_reanalyse: bool = False) -> tuple[Engine, AxOptimizer]:
        """The engine for the present objective, made on first use; a run to resume is taken up then."""
        optimizer = self._need_optimizer()
        if self._engine is not None:
            return self._engine, optimizer
        if self._objective is None:
            raise ConfigurationError("there is no objective: call set_objective_function first")
        prepared = prepare(self._objective, self.runner, optimizer.parameter_names, self.config.retry_policy)
        identity = identity_of(prepared.workflow, optimizer)
        desk, about, config = Desk(), {"identity": identity, "seed": optimizer.seed}, self.config
        order = None if self._earlier else reanalysing.current()
        if order is not None:
            _check_reanalysis(optimizer, may_reanalyse=may_reanalyse)
            plan = make_plan(order, prepared.workflow, identity, optimizer.required_metrics)
            about["reanalysis"] = asdict(plan)
            config = replace(config, resume=False, run_dir=order.run_dir)
        run, is_resumed = open_run(optimizer.name, config, about, desk, may_resume=not self._earlier)
        if order is not None:
            reanalysing.note_run(run.path)
        runners = self._with_cache(prepared, run)
        self._finalizer.detach()
        every = {id(runner): runner for runner in (self.runner, *runners.values())}
        self._finalizer = weakref.finalize(self, _close_all, every, run)
        saved_at = 0
        if is_resumed and (saved := run.store.snapshot()) is not None:
            saved_at, snapshot = saved
            self._optimizer = optimizer = restore(snapshot, into=self.ax_client)
        optimizer.threads = self._threads_for_ax(runners.values())
        engine = Engine(prepared.workflow, optimizer, runners, run, settings=self.config.engine_settings)
        if is_resumed:
            engine.resume(run.store.events(), saved_at=saved_at)
            self._resumed = list(engine.state.trials)
            logger.info("resumed: %d trials, %d of them under way", len(engine.state.trials), len(engine.state.live))
        self._engine = desk.engine = engine
        self._run = run
        self._reanalysis = plan_of(run.store.about())
        return engine, optimizer

    def _take_over(self, engine: Engine, optimizer: AxOptimizer, report: Report) -> bool:
        """Have the engine begin with the trials of the run that this one re-analyses, if it does; whether it does."""
        plan, self._reanalysis = self._reanalysis, None
        if plan is None:
            return False
        logger.info("%s", plan)
        report.say(str(plan))
        if len(plan.trials) > sum(bool(trial.kept) for trial in engine.state.trials.values()):
            assert self._run is not None  # noqa: S101 - the engine is ready
            taken = taken_trials(plan, engine.state.workflow, self._run.path)
            missing = [trial for trial in taken if trial.index not in engine.state.trials]
            engine.take_over(engine.consult(lambda: [_attach(optimizer, trial) for trial in missing]))
        return True

    def _threads_for_ax(self, runners: Iterable[BaseRunner]) -> int | None:
        """How many threads torch may take: on this machine it shares the cores with the jobs."""
        if self.config.optimizer_threads is not None:
            return self.config.optimizer_threads
        return 1 if any(runner.runs_here for runner in runners) else None

    def _with_cache(self, prepared: PreparedObjective, run: RunDirectory) -> Mapping[str, BaseRunner]:
        """The runners, with the cache in front of those of cached steps; a rehearsal runs everything."""
        if not any(step.cache for step in prepared.workflow.steps):
            if self.config.cache_dir is not None:
                logger.warning("config['cache_dir'] is given, but no step has cache=True: nothing is cached")
            return prepared.runners
        if rehearsing.current():
            return prepared.runners
        return with_cache(prepared.runners, prepared.workflow, directory=self.config.cache_directory, run_id=run.run_id)

    @contextmanager
    def _session(self) -> Iterator[Report]:
        """Progress and signals while the engine works; an error leaves with a note where to look."""
        engine, _ = self._ready()
        report = open_report(self.config.progress)
        engine.on_progress = report.update
        try:
            with obey_signals(engine, report.say):
                yield report
        except SchedulerError as error:
            error.add_note(f"run directory: {self.run_directory}")
            if isinstance(error, OptimizationInterrupted):
                error.add_note(f"go on with: scheduler resume {self.run_directory}")
            raise
        finally:
            report.close()
            engine.on_progress = lambda _: None

    def _claim_or_attach(
        self, engine: Engine, optimizer: AxOptimizer, designs: Iterable[Mapping[str, Scalar]]
    ) -> list[Candidate]:
        """Trials for designs; a program that is resumed finds those it attached before, each once."""
        candidates = []
        for design in designs:
            known = (index for index in self._resumed if engine.state.trials[index].parameters == design)
            index = next(known, None)
            if index is None:
                candidates.append(engine.consult(partial(optimizer.attach, design)))
            else:
                self._resumed.remove(index)
                candidates.append(optimizer.candidate(index))
        return candidates

    def _best(self, engine: Engine, optimizer: AxOptimizer) -> dict[Any, Any]:
        if not optimizer.has_results:
            summary = engine.summary()
            causes = [f"the commonest cause: {summary.common_failure}"] if summary.common_failure else []
            if summary.infeasible:
                causes.append(f"the designs of {summary.infeasible} are infeasible")
            raise NoSuccessfulTrialError(
                f"none of the {len(optimizer.experiment.trials)} trials succeeded, so there is no best point; "
                + ("; ".join(causes) or "none was finished")
            )
        return engine.consult(optimizer.pareto if self.is_multi_objective() else optimizer.best_parameters)

    def _conclude(self, best: Mapping[Any, Any]) -> None:
        assert self._run is not None  # noqa: S101 - a run has just ended
        if self.config.progress is not False:
            print_outcome(
                best,
                list(self.trials.values()),
                self._run.path,
                objectives=self._need_optimizer().objectives,
            )
        if self.config.cleanup_after_completion:
            for trial in self.trials.values():
                if trial.state is TrialState.COMPLETED:
                    self._run.remove_trial(trial.index)


class TrialBatch:
    """Designs that are run together; made by :meth:`AxScheduler.batch_trial_context`.

    Attributes:
        trials: The trials, once they have been run.
    """

    def __init__(self, scheduler: AxScheduler) -> None:
        self._scheduler = scheduler
        self._designs: list[Mapping[str, Scalar]] = []
        self.trials: list[Trial] = []

    def add_trial(self, parameters: Mapping[str, Scalar]) -> None:
        """Add a design."""
        self._designs.append(dict(parameters))

    def run(self) -> list[Trial]:
        """Run the designs added since the last call and wait until Ax has been told about all of them."""
        designs, self._designs = self._designs, []
        if designs:
            self.trials.extend(self._scheduler.run_batch(designs))
        return self.trials

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.run()


def _refuse_import_in_a_job() -> None:
    file = os.environ.get("SCHEDULER_IMPORTING")
    if file:
        raise MissingMainGuardError(
            f"{file} starts an optimization while a job imports it to find its function: put everything that shall "
            "run only in your own session under  if __name__ == '__main__':"
        )


def _check_reanalysis(optimizer: AxOptimizer, *, may_reanalyse: bool) -> None:
    if not may_reanalyse:
        raise ConfigurationError(
            "'scheduler reanalyse' runs the trials in run_optimization: the program must call that first, "
            "not run_batch, get_next_trial or run_trial"
        )
    if optimizer.experiment.trials:
        raise ConfigurationError(
            f"the experiment has {len(optimizer.experiment.trials)} trials already; 'scheduler reanalyse' needs a "
            "fresh one: do not load or attach trials in the program"
        )


def _attach(optimizer: AxOptimizer, trial: TakenTrial) -> TakenTrial:
    """Make a trial to take known to Ax, which knows it when the run was broken off before the trial began."""
    is_known = trial.index in optimizer.experiment.trials
    candidate = optimizer.candidate(trial.index) if is_known else optimizer.attach(trial.parameters)
    return replace(trial, parameters=candidate.parameters)


def _as_it_runs(config: SchedulerConfig) -> SchedulerConfig:
    """The configuration of the program, or that of its rehearsal: one quiet trial, once, in a place of its own."""
    rehearsal = rehearsing.current()
    if rehearsal is None:
        return config
    return replace(
        config,
        run_dir=str(rehearsal.run),
        resume=False,
        cleanup_after_completion=False,
        synchronous=True,
        failure_rate=1.0,
        retries=0,
        lost_retries=0,
        progress=False,
    )


def _close_all(runners: Mapping[int, BaseRunner], run: RunDirectory | None) -> None:
    for runner in runners.values():
        runner.close()
    if run is not None:
        run.close()
