"""The optimizer on top of Ax: everything that does not depend on which of Ax's clients is used."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scheduler.core.results import Measurement
from scheduler.core.specs import Scalar
from scheduler.errors import ConfigurationError, GenerationError, NoSuccessfulTrialError, OptimizationError
from scheduler.optimizer.ax_service import AxService, Outcome, ParetoSet
from scheduler.optimizer.goals import read_goals
from scheduler.optimizer.port import Candidate, Preparation, Proposal, Standing
from scheduler.optimizer.scoreboard import Scoreboard
from scheduler.optimizer.snapshots import SnapshotWriter, read_run

if TYPE_CHECKING:
    from ax.core.base_trial import BaseTrial
    from ax.core.experiment import Experiment
    from ax.core.optimization_config import OptimizationConfig

logger = logging.getLogger(__name__)

_ENOUGH_FOR_A_MODEL = 1
"""Whole results: with none, there is nothing to optimize."""

_NOTHING: Measurement = (math.nan, None)
_STEP_PREFIX = re.compile(r"GenerationStep_\d+_")
_NODES_IN_WORDS = {
    "CenterOfSearchSpace": "center of the search space",
    "BoTorch": "Bayesian optimization (BoTorch)",
    "MBM": "Bayesian optimization (BoTorch)",
}


class AxOptimizer:
    """An :class:`~scheduler.optimizer.port.Optimizer` that asks Ax. Made by :func:`~scheduler.optimizer.adapt`.

    When Ax wants results before it proposes more and no trial is pending, it will never get them: for example after
    every trial of a model-based step failed. :meth:`ask` then says ``must_wait`` without candidates, and to notice that
    nothing is pending is up to the caller.

    Args:
        service: The Ax client.
        experiment: Its experiment.
        config: What the experiment optimizes.

    Attributes:
        threads: How many threads torch may take; None leaves that to torch.
    """

    def __init__(self, service: AxService, experiment: Experiment, config: OptimizationConfig) -> None:
        self._service, self._experiment = service, experiment
        self.threads: int | None = None
        self._goals = read_goals(config)
        self._scoreboard = Scoreboard(self._goals)
        self._errors_known: dict[str, bool] = {}
        self._errors_mixed: set[str] = set()
        self._partial: dict[int, dict[str, Measurement]] = {}  # what is known of infeasible designs
        self._postponed: set[int] = set()  # those of them that Ax has yet to learn
        self._snapshots = SnapshotWriter()
        self._take_existing_data()

    @property
    def experiment(self) -> Experiment:
        """Ax's experiment."""
        return self._experiment

    @property
    def client(self) -> Any:  # noqa: ANN401 - one of Ax's clients
        """Ax's client."""
        return self._service.client

    @property
    def seed(self) -> int | None:
        """The seed of the client's random numbers; None if it has none."""
        seed = self._service.settings().get("random_seed")
        return None if seed is None else int(seed)

    @property
    def name(self) -> str:
        """Name of the experiment; ``experiment`` if the user gave none."""
        return self._experiment.name if self._experiment.has_name else "experiment"

    @property
    def parameter_names(self) -> frozenset[str]:
        """Names of the design parameters."""
        return frozenset(self._experiment.search_space.parameters)

    @property
    def objectives(self) -> Mapping[str, bool]:
        """Objective name -> whether it is minimized; in a weighted sum, by the sign of the weight."""
        return dict(self._goals.minimized)

    @property
    def required_metrics(self) -> frozenset[str]:
        """The metrics every result must have: objectives and constrained outcomes."""
        return self._goals.required_metrics

    @property
    def constrained_metrics(self) -> frozenset[str]:
        """The metrics with outcome constraints."""
        return self._goals.constrained_metrics

    @property
    def has_results(self) -> bool:
        """Whether any trial has been completed with a whole result."""
        return bool(self._scoreboard.results)

    def ask(self, at_most: int) -> Proposal:
        """Propose up to ``at_most`` candidates, as many as the generation strategy allows now.

        Candidates that exist are never lost: when Ax fails after it made some of them, these are returned and the
        failure is logged; it is raised when it comes again.

        Raises:
            GenerationError: Ax failed, with its own exception as the cause. Never read as completion.
        """
        from ax.exceptions.core import DataRequiredError, OptimizationComplete
        from ax.exceptions.generation_strategy import MaxParallelismReachedException

        candidates: list[Candidate] = []
        try:
            while len(candidates) < at_most:
                limit, is_complete = self._service.limit()
                self._teach_postponed()
                if is_complete or limit == 0:
                    return Proposal(tuple(candidates), must_wait=not is_complete, is_complete=is_complete)
                candidates.append(self.candidate(self._service.generate()))
        except (DataRequiredError, MaxParallelismReachedException):
            return Proposal(tuple(candidates), must_wait=True)
        except OptimizationComplete:
            return Proposal(tuple(candidates), is_complete=True)
        except Exception as error:
            if not candidates:
                raise self._generation_error(error) from error
            logger.exception("Ax made %d of %d candidates and failed at the next one", len(candidates), at_most)
        return Proposal(tuple(candidates))

    def prepare(self) -> Preparation | None:
        """Make one design ahead, with the trials that run as pending, without making a trial of it.

        None when the strategy allows none now, or when Ax's client keeps records of its own of every trial.

        Raises:
            GenerationError: Ax failed, with its own exception as the cause.
        """
        from ax.exceptions.core import DataRequiredError, OptimizationComplete
        from ax.exceptions.generation_strategy import MaxParallelismReachedException

        try:
            limit, is_complete = self._service.limit()
            self._teach_postponed()
            if is_complete or limit == 0 or self._service.keeps_records:
                return None
            run = self._service.prepare()
        except (DataRequiredError, MaxParallelismReachedException, OptimizationComplete):
            return None
        except Exception as error:
            raise self._generation_error(error) from error
        (arm,) = run.arms
        parameters = {name: _plain(value) for name, value in arm.parameters.items()}
        return Preparation(parameters, self._snapshots.text_apart(run), goes_stale=self._service.learns)

    @property
    def next_index(self) -> int:
        """The number that the next trial will have."""
        return max(self._experiment.trials, default=-1) + 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Calls of Ax are made within this: torch takes at most ``threads`` threads, and what it had afterwards."""
        if self.threads is None:
            yield
            return
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def attach(self, parameters: Mapping[str, Scalar]) -> Candidate:
        """Register a design that the user chose. Values out of bounds are Ax's to accept, and it warns of them.

        Raises:
            ConfigurationError: A parameter is missing, unknown or of the wrong type.
        """
        if parameters.keys() != self.parameter_names:
            raise ConfigurationError(
                f"a trial needs a value for each of {', '.join(sorted(self.parameter_names))} and nothing else, "
                f"not {dict(parameters)!r}"
            )
        from ax.exceptions.core import AxError

        values = {name: _plain(value) for name, value in parameters.items()}
        try:
            # Before Ax makes a trial of them: it would leave one without a design behind.
            self._experiment.search_space.check_types(values, allow_none=False, raise_error=True)
            return self.candidate(self._service.attach(values))
        except (AxError, ValueError, TypeError) as error:
            raise ConfigurationError(f"Ax does not take the parameters {dict(parameters)!r}: {error}") from error

    def candidate(self, index: int) -> Candidate:
        """The candidate of an existing trial.

        Raises:
            ConfigurationError: There is no such trial, or it has several designs.
        """
        arms = self._trial(index).arms
        if len(arms) != 1:
            raise ConfigurationError(f"trial {index} has {len(arms)} designs (arms); only trials of one can be run")
        return Candidate(index, {name: _plain(value) for name, value in arms[0].parameters.items()})

    def tell(self, index: int, metrics: Mapping[str, Measurement]) -> None:
        """Complete a trial with its measurements. Unknown names are kept as tracking metrics.

        Raises:
            OptimizationError: The trial is not running in Ax, a required metric is missing, or Ax refused the data.
        """
        self._require_running(index)
        missing = sorted(self.required_metrics - metrics.keys())
        if missing:
            raise OptimizationError(f"the result of trial {index} has no {', '.join(missing)}")
        try:
            self._service.complete(index, self._make_outcome(metrics))
        except Exception as error:
            raise OptimizationError(
                f"Ax did not take the result of trial {index}: {type(error).__name__}: {error}"
            ) from error
        self._scoreboard.add(index, metrics)
        self._teach_postponed()

    def tell_failed(self, index: int, reason: str, *, again: bool = True) -> None:
        """Mark a trial as failed.

        Args:
            index: The trial.
            reason: Why.
            again: Whether Ax may propose the same design again (its status FAILED) or not (its status ABANDONED).

        Raises:
            OptimizationError: The trial is not running in Ax.
        """
        self._require_running(index)
        if again:
            self._service.fail(index, reason)
        else:
            self._service.abandon(index, reason)

    def tell_infeasible(self, index: int, reason: str, metrics: Mapping[str, Measurement] | None) -> None:
        """End a trial whose design is infeasible.

        With the violated constraint it is completed in Ax with that metric only: Ax's models take what each trial has,
        so the constraint is learned and the objectives are not. A trial that failed or was abandoned would teach
        nothing. During the initialization Ax waits for so many whole results and bounds the trials that it makes
        meanwhile, so a few infeasible ones would stop it for good. There, an infeasible design counts as observed once
        there is a whole result to begin a model with; until then its trial is abandoned, and random ones go on. Without
        a constraint it is abandoned.

        Raises:
            OptimizationError: The trial is not running in Ax, or Ax refused the data.
        """
        self._require_running(index)
        if metrics is None:
            self._service.abandon(index, reason)
            return
        means = {name: mean for name, (mean, _) in metrics.items()}
        if self._goals.break_no_bound(means):
            logger.warning("trial %d is called infeasible (%s), but %s keeps the constraint", index, reason, means)
        try:
            self._service.attach_data(index, self._make_outcome(metrics))
        except Exception as error:
            raise OptimizationError(
                f"Ax did not take the constraint of trial {index}: {type(error).__name__}: {error}"
            ) from error
        self._partial[index] = dict(metrics)
        self._service.abandon(index, reason)
        self._postponed.add(index)
        self._teach_postponed()

    def _teach_postponed(self) -> None:
        """Let Ax learn what is known of infeasible designs, if it has a model or enough to begin one."""
        is_enough = self._service.learns or len(self._scoreboard.results) >= _ENOUGH_FOR_A_MODEL
        if not self._postponed or not is_enough:
            return
        for index in sorted(self._postponed):
            self._service.complete_abandoned(index)
        if not self._service.learns:
            self._service.count_as_observed(len(self._postponed), at_least=_ENOUGH_FOR_A_MODEL)
        self._postponed.clear()

    def standing(self) -> Standing:
        """How the optimization stands. No model is fitted and Ax is not asked."""
        return Standing(phase=self._phase(), best=self._scoreboard.describe())

    def best_parameters(self) -> dict[str, Scalar]:
        """The best parameters (single objective), as Ax judges all results told so far.

        Where Ax's model gives no answer, the observed results decide.

        Raises:
            NoSuccessfulTrialError: There is no result yet.
            OptimizationError: No result keeps the constraints, or there are several objectives.
        """
        self._require_results()
        if len(self._goals.axes) > 1:
            raise OptimizationError("with several objectives there is no best point: ask for the Pareto set")
        for use_model in (True, False) if self._bring_model_up_to_date() else (False,):
            try:
                best = self._service.best(use_model=use_model)
            except Exception:  # whatever Ax raises, there is another way
                logger.warning("Ax failed to find the best parameters (%s)", _basis(use_model), exc_info=True)
                continue
            if best is not None:
                return {name: _plain(value) for name, value in best.items()}
            logger.warning("Ax finds no best parameters (%s)", _basis(use_model))
        raise OptimizationError(
            f"Ax finds no best parameters among {len(self._scoreboard.results)} completed trials: "
            "most likely none of them keeps the outcome constraints; the log has its reasons"
        )

    def pareto(self) -> dict[int, tuple[dict[str, Scalar], object]]:
        """The Pareto set (several objectives), laid out as Ax's ``get_pareto_optimal_parameters`` does.

        Where Ax's model gives no answer, the observed results decide; where Ax knows none (it wants thresholds for all
        objectives or for none), those that keep the constraints and thresholds are compared here.

        Returns:
            Trial -> (parameters, (means, covariances)). Empty when no result keeps the constraints and thresholds.

        Raises:
            NoSuccessfulTrialError: There is no result yet.
            OptimizationError: There is one objective only.
        """
        self._require_results()
        if len(self._goals.axes) == 1:
            raise OptimizationError("with one objective there is no Pareto set: ask for the best parameters")
        for use_model in (True, False):
            try:
                found = self._service.pareto(use_model=use_model)
            except Exception:  # whatever Ax raises, there is another way
                logger.warning("Ax failed to find the Pareto set (%s)", _basis(use_model), exc_info=True)
                continue
            if found:
                return _plain_pareto(found)
            logger.warning("Ax finds no Pareto set (%s)", _basis(use_model))
        logger.warning("the Pareto set is that of the observed results, %s", self._scoreboard.describe())
        return _plain_pareto({index: self._observed(index) for index in self._scoreboard.front})

    def snapshot(self) -> str:
        """The state of the client as JSON text, pending trials and generation strategy included.

        Give it to :func:`~scheduler.optimizer.restore` to go on from here.

        Raises:
            OptimizationError: Something in the experiment, for example a node of the user's own, has no form in JSON.
        """
        service = self._service
        try:
            return self._snapshots.write(service.client_name, self._experiment, service.strategy, service.settings())
        except Exception as error:
            raise OptimizationError(
                f"Ax cannot put this experiment into JSON: {type(error).__name__}: {error}"
            ) from error

    def origin(self, index: int) -> str | None:
        """How a trial came about, as a text for :meth:`adopt`; None for a design that the user attached.

        Much shorter than a snapshot, and enough to bring an older snapshot up to date.
        """
        run = self._trial(index).generator_runs[0]
        is_generated = any(run is each for each in reversed(self._service.strategy._generator_runs))  # noqa: SLF001
        return self._snapshots.text_of(run) if is_generated else None

    def adopt(self, candidate: Candidate, origin: str | None) -> None:
        """Make a trial again that was made after the state was saved from which this optimizer was restored.

        It may be there: a trial that is taken from another run is made some time before it begins.

        Raises:
            OptimizationError: Ax would give it another number: a trial before it is missing.
        """
        if candidate.index in self._experiment.trials and self.candidate(candidate.index) == candidate:
            return
        made = self.attach(candidate.parameters).index if origin is None else self._service.take(read_run(origin))
        if made != candidate.index:
            raise OptimizationError(
                f"trial {candidate.index} would become trial {made}: the run's events are not complete"
            )

    def _take_existing_data(self) -> None:
        results: dict[int, dict[str, Measurement]] = {}
        for row in self._experiment.lookup_data().df.itertuples():
            error = None if math.isnan(row.sem) else float(row.sem)
            results.setdefault(int(row.trial_index), {})[str(row.metric_name)] = (float(row.mean), error)
        for index, metrics in sorted(results.items()):
            trial = self._experiment.trials[index]
            is_whole = all(math.isfinite(metrics.get(name, _NOTHING)[0]) for name in self.required_metrics)
            if trial.status.is_completed and len(trial.arms) == 1 and is_whole:
                self._scoreboard.add(index, metrics)
            elif trial.status.is_completed or trial.status.is_abandoned:
                self._partial[index] = metrics
                if trial.status.is_abandoned and metrics.keys() <= self._goals.constrained_metrics:
                    self._postponed.add(index)
            for name, (_, error) in metrics.items():
                self._errors_known[name] = self._errors_known.get(name, True) and error is not None

    def _make_outcome(self, metrics: Mapping[str, Measurement]) -> Outcome:
        # Ax cannot model a metric that has a standard error in some trials and none in others, be it only a tracking
        # metric: then generation fails for good. So a metric has errors in all trials or in none.
        outcome: Outcome = {}
        for name, (mean, error) in metrics.items():
            known = self._errors_known.setdefault(name, error is not None)
            if known != (error is not None) and name not in self._errors_mixed:
                self._forget_errors(name)
            outcome[name] = (
                (float(mean), float(error)) if error is not None and self._errors_known[name] else float(mean)
            )
        return outcome

    def _forget_errors(self, name: str) -> None:
        logger.warning(
            "metric '%s' comes with a standard error in some trials and without in others, which Ax cannot model: "
            "its errors are left out for all trials and the noise is estimated; return (mean, sem) always or never",
            name,
        )
        self._errors_mixed.add(name)
        if self._errors_known[name]:
            self._errors_known[name] = False
            for index, metrics in {**self._scoreboard.results, **self._partial}.items():
                if name in metrics:
                    self._service.amend(index, {name: metrics[name][0]})

    def _bring_model_up_to_date(self) -> bool:
        # Otherwise Ax judges by the model fitted for the last candidate, which has not seen the last results, and after
        # a restart by no model at all.
        from ax.exceptions.core import OptimizationComplete

        try:
            self._service.strategy.fit(self._experiment)
        except OptimizationComplete:
            logger.debug("the generation strategy is complete; its last model stands")
        except Exception:  # whatever Ax raises, there is another way
            logger.warning("Ax failed to fit its model; the observed results decide", exc_info=True)
            return False
        return True

    def _observed(self, index: int) -> tuple[Mapping[str, Any], Any]:
        metrics = self._scoreboard.results[index]
        means = {name: mean for name, (mean, _) in metrics.items()}
        variances = {name: {name: math.nan if error is None else error**2} for name, (_, error) in metrics.items()}
        return self.candidate(index).parameters, (means, variances)

    def _phase(self) -> str:
        name = _STEP_PREFIX.sub("", self._service.strategy.current_node_name)
        return _NODES_IN_WORDS.get(name, name)

    def _generation_error(self, error: Exception) -> GenerationError:
        return GenerationError(
            f"Ax failed to propose trial {max(self._experiment.trials, default=-1) + 1} in phase '{self._phase()}': "
            f"{type(error).__name__}: {error}; the results so far are safe: look at the last of them and at the "
            "generation strategy, then run again to go on"
        )

    def _trial(self, index: int) -> BaseTrial:
        trials = self._experiment.trials
        if index not in trials:
            known = f"the trials are {min(trials)} to {max(trials)}" if trials else "there is none yet"
            raise ConfigurationError(f"there is no trial {index}: {known}")
        return trials[index]

    def _require_running(self, index: int) -> None:
        status = self._trial(index).status
        if not status.is_running:
            raise OptimizationError(f"trial {index} is {status.name.lower()} in Ax and takes no outcome")

    def _require_results(self) -> None:
        if not self._scoreboard.results:
            raise NoSuccessfulTrialError("no trial has a result yet, so there is no best point")


def _basis(use_model: bool) -> str:  # noqa: FBT001 - a word for a flag
    return "predicted by its model" if use_model else "from observed results"


def _plain_pareto(found: ParetoSet) -> dict[int, tuple[dict[str, Scalar], object]]:
    return {
        int(index): (
            {name: _plain(value) for name, value in parameters.items()},
            (
                {name: _plain(mean) for name, mean in means.items()},
                {one: {other: _plain(value) for other, value in row.items()} for one, row in covariances.items()},
            ),
        )
        for index, (parameters, (means, covariances)) in found.items()
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever Ax puts into its dictionaries
    """The Python number of a numpy number; anything else as it is."""
    return value.item() if hasattr(value, "item") else value
