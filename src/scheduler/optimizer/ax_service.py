"""What the optimizer needs of an Ax client: the seam between our logic and Ax's two programming interfaces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from scheduler.core.specs import Scalar

if TYPE_CHECKING:
    from ax.core.experiment import Experiment
    from ax.core.generator_run import GeneratorRun
    from ax.generation_strategy.generation_strategy import GenerationStrategy

Outcome = dict[str, float | tuple[float, float]]
"""The data of a trial as Ax takes it: a mean, or (mean, standard error)."""

ParetoSet = Mapping[int, tuple[Mapping[str, Any], Any]]
"""Trial -> (parameters, (means, covariances)), numbers as Ax gives them."""

_WITHOUT_MODEL = frozenset({"SOBOL", "UNIFORM", "FACTORIAL"})
"""Ax's generators that look at no data."""


class AxService(ABC):
    """One Ax client. Methods raise what Ax raises.

    Attributes:
        client_module: The module that has the client's class.
        client_name: The name of the client's class.
        client: The client.
    """

    client_module: ClassVar[str]
    client_name: ClassVar[str]
    client: Any

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - each service has a client class of its own
        self.client = client

    @property
    @abstractmethod
    def experiment(self) -> Experiment | None:
        """The experiment; None when there is none yet."""

    @property
    @abstractmethod
    def strategy(self) -> GenerationStrategy:
        """The generation strategy; Ax chooses one if the user has not."""

    @abstractmethod
    def limit(self) -> tuple[int, bool]:
        """How many trials may be generated now, negative for any number, and whether the strategy is complete."""

    @abstractmethod
    def generate(self) -> int:
        """Generate one trial, running, and return its index."""

    @property
    @abstractmethod
    def keeps_records(self) -> bool:
        """Whether the client does more with a new trial than to make it: a database, or a rule for stopping."""

    def prepare(self) -> GeneratorRun:
        """Generate a design as :meth:`generate` would, without a trial of it and without a trace in the strategy.

        Ax allows not to make a trial of a generator run. For :meth:`take`, or to be forgotten.
        """
        from ax.utils.common.random import with_rng_seed

        assert self.experiment is not None  # noqa: S101 - the engine has checked it
        strategy = self.strategy
        with with_rng_seed(seed=self.client._random_seed):  # noqa: SLF001 - as both clients do
            run = strategy.gen_single_trial(experiment=self.experiment, n=1)
        strategy._generator_runs.pop()  # noqa: SLF001 - else a forgotten one would move Sobol's position
        if not self.learns:
            for spec in getattr(strategy._curr, "generator_specs", ()):  # noqa: SLF001
                spec._fitted_adapter = None  # noqa: SLF001 - it has moved, too; the last run says where it was
        return run

    def take(self, run: GeneratorRun) -> int:
        """Make a running trial of what the strategy generated earlier, as if it had just done so; return its index."""
        assert self.experiment is not None  # noqa: S101 - the strategy generated this run for it
        strategy = self.strategy
        strategy._generator_runs.append(run)  # noqa: SLF001 - as Ax's own decoder does
        if run._generation_node_name is not None:  # noqa: SLF001
            strategy._curr = strategy.nodes_by_name[run._generation_node_name]  # noqa: SLF001
        trial = self.experiment.new_trial(generator_run=run)
        trial.mark_running(no_runner_required=True)
        return int(trial.index)

    @abstractmethod
    def attach(self, parameters: Mapping[str, Scalar]) -> int:
        """Make a running trial of these parameters and return its index."""

    @abstractmethod
    def complete(self, index: int, outcome: Outcome) -> None:
        """Complete a trial. Names that Ax does not know become tracking metrics."""

    def attach_data(self, index: int, outcome: Outcome) -> None:
        """Keep data of a trial that is not over."""
        from ax.core.trial import Trial

        assert self.experiment is not None  # noqa: S101 - it has this trial
        trial = self.experiment.trials[index]
        assert isinstance(trial, Trial)  # noqa: S101 - trials of several arms are refused before
        trial.update_trial_data(raw_data=outcome)

    def complete_abandoned(self, index: int) -> None:
        """Let the data of an abandoned trial count."""
        assert self.experiment is not None  # noqa: S101 - it has this trial
        self.experiment.trials[index].mark_completed(unsafe=True)

    def count_as_observed(self, trials: int, *, at_least: int) -> None:
        """Let the present node wait for so many whole results less, but for ``at_least`` of them."""
        criteria: Iterable[Any] = self.strategy._curr.transition_criteria or ()  # noqa: SLF001 - no other way
        for criterion in criteria:
            if getattr(criterion, "count_only_trials_with_data", False):
                criterion.threshold = max(criterion.threshold - trials, min(criterion.threshold, at_least))

    @property
    def learns(self) -> bool:
        """Whether the present node of the strategy fits a model to data."""
        specs = getattr(self.strategy._curr, "generator_specs", ())  # noqa: SLF001 - no other way
        return any(getattr(spec.generator_enum, "name", "") not in _WITHOUT_MODEL for spec in specs)

    @abstractmethod
    def amend(self, index: int, outcome: Outcome) -> None:
        """Replace some of the data of a completed trial."""

    @abstractmethod
    def fail(self, index: int, reason: str) -> None:
        """Mark a trial as failed; its design may be proposed again."""

    @abstractmethod
    def abandon(self, index: int, reason: str) -> None:
        """Mark a trial as abandoned; its design will not be proposed again."""

    @abstractmethod
    def best(self, *, use_model: bool) -> Mapping[str, Any] | None:
        """The best parameters, predicted or observed; None when Ax finds none."""

    @abstractmethod
    def pareto(self, *, use_model: bool) -> ParetoSet:
        """The Pareto set, predicted or observed, possibly empty."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What a snapshot must keep besides experiment and strategy, made of Ax's or JSON's types."""

    @classmethod
    @abstractmethod
    def load(cls, snapshot: dict[str, Any]) -> Self:
        """A service with a new client that goes on where the snapshot was taken."""
