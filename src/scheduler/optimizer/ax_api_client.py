"""The service that Ax offers through ``ax.api.client.Client``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, cast

from scheduler.core.specs import Scalar
from scheduler.optimizer.ax_service import AxService, Outcome, ParetoSet

if TYPE_CHECKING:
    from ax.api.client import Client
    from ax.core.experiment import Experiment
    from ax.generation_strategy.generation_strategy import GenerationStrategy


class ApiClientService(AxService):
    """Ax through ``ax.api.client.Client``.

    The client shows neither its experiment nor its strategy, and the limits of the strategy are known only to it:
    these two private names are all that is used beyond its documented methods.
    """

    client_module = "ax.api.client"
    client_name = "Client"
    client: Client

    @property
    def experiment(self) -> Experiment | None:
        """The experiment, once ``configure_experiment`` made it."""
        return self.client._maybe_experiment  # noqa: SLF001 - see the class

    @property
    def strategy(self) -> GenerationStrategy:
        """The user's strategy, or the one that Client would choose by itself at the first candidate."""
        return self.client._generation_strategy_or_choose()  # noqa: SLF001 - see the class

    def limit(self) -> tuple[int, bool]:
        """What the strategy says."""
        return self.strategy.current_generator_run_limit()

    @property
    def keeps_records(self) -> bool:
        """Whether a storage is configured."""
        return self.client._storage_config is not None  # noqa: SLF001 - see the class

    def generate(self) -> int:
        """One call of ``get_next_trials``."""
        # Never several at once: Client makes the trials of a batch after generating all of it, so that the limits do
        # not see the first ones, and loses them when a later one fails. Fitting once for the batch saves little.
        (index,) = self.client.get_next_trials(max_trials=1)
        return index

    def attach(self, parameters: Mapping[str, Scalar]) -> int:
        """``attach_trial``."""
        return self.client.attach_trial(cast("dict[str, Any]", parameters))

    def complete(self, index: int, outcome: Outcome) -> None:
        """``complete_trial``, which makes tracking metrics of unknown names."""
        self.client.complete_trial(index, raw_data=outcome)

    def amend(self, index: int, outcome: Outcome) -> None:
        """``attach_data``, whose later rows replace the earlier ones."""
        self.client.attach_data(index, raw_data=outcome)

    def fail(self, index: int, reason: str) -> None:
        """``mark_trial_failed``; the reason is kept as the reason of the status."""
        self.client.mark_trial_failed(index, failed_reason=reason)

    def abandon(self, index: int, reason: str) -> None:
        """``mark_trial_abandoned``, which takes no reason: that is kept in the metadata of the trial."""
        self.client.mark_trial_abandoned(index)
        assert self.experiment is not None  # noqa: S101 - it has this trial
        self.experiment.trials[index].update_run_metadata({"failure": reason})

    def best(self, *, use_model: bool) -> Mapping[str, Any] | None:
        """``get_best_parameterization``."""
        return self.client.get_best_parameterization(use_model_predictions=use_model)[0]

    def pareto(self, *, use_model: bool) -> ParetoSet:
        """``get_pareto_frontier``, laid out as AxClient does; covariances between metrics are not given by it."""
        frontier = self.client.get_pareto_frontier(use_model_predictions=use_model)
        return {index: (parameters, _means_and_variances(outcome)) for parameters, outcome, index, _ in frontier}

    def settings(self) -> dict[str, Any]:
        """The random seed, which the snapshots of Ax leave out."""
        return {"random_seed": self.client._random_seed}  # noqa: SLF001 - see the class

    @classmethod
    def load(cls, snapshot: dict[str, Any]) -> Self:
        """A new client of the decoded experiment and strategy."""
        from ax.api.client import Client
        from ax.storage.json_store.decoder import generation_strategy_from_json, object_from_json

        experiment = object_from_json(snapshot["experiment"])
        client = Client(random_seed=object_from_json(snapshot["settings"])["random_seed"])
        client.set_experiment(experiment)
        client.set_generation_strategy(generation_strategy_from_json(snapshot["generation_strategy"], experiment))
        return cls(client)


def _means_and_variances(outcome: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    return (
        {name: mean for name, (mean, _) in outcome.items()},
        {name: {name: variance} for name, (_, variance) in outcome.items()},
    )
