"""The service that Ax offers through ``AxClient``, which ends with Ax 1.4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from scheduler.core.specs import Scalar
from scheduler.errors import ConfigurationError
from scheduler.optimizer.ax_service import AxService, Outcome, ParetoSet

if TYPE_CHECKING:
    from ax.core.experiment import Experiment
    from ax.generation_strategy.generation_strategy import GenerationStrategy
    from ax.service.ax_client import AxClient


class AxClientService(AxService):
    """Ax through ``ax.service.ax_client.AxClient``."""

    client_module = "ax.service.ax_client"
    client_name = "AxClient"
    client: AxClient

    @property
    def experiment(self) -> Experiment | None:
        """The experiment, once ``create_experiment`` made it."""
        try:
            return self.client.experiment
        except AssertionError:  # how Ax says that there is none
            return None

    @property
    def strategy(self) -> GenerationStrategy:
        """The user's strategy, or the one that ``create_experiment`` chose."""
        return self.client.generation_strategy

    def limit(self) -> tuple[int, bool]:
        """``get_current_trial_generation_limit``."""
        return self.client.get_current_trial_generation_limit()

    @property
    def keeps_records(self) -> bool:
        """Whether there is a database, or a strategy that may stop the optimization at the next trial."""
        return self.client.db_settings_set or self.client.global_stopping_strategy is not None

    def generate(self) -> int:
        """``get_next_trial``."""
        return int(self.client.get_next_trial()[1])

    def attach(self, parameters: Mapping[str, Scalar]) -> int:
        """``attach_trial``."""
        _, index = self.client.attach_trial(dict(parameters))
        return index

    def complete(self, index: int, outcome: Outcome) -> None:
        """``complete_trial``, after unknown names are registered: it refuses them otherwise."""
        unknown = sorted(outcome.keys() - self.client.metric_names)
        if unknown:
            # Not AxClient.add_tracking_metrics, which warns of its own deprecation.
            from ax.core.metric import Metric

            for name in unknown:
                self.client.experiment.add_metric(Metric(name=name))
        self.client.complete_trial(index, raw_data=outcome)

    def amend(self, index: int, outcome: Outcome) -> None:
        """The trial's ``update_trial_data``, whose later rows replace the earlier ones."""
        self.client.get_trial(index).update_trial_data(raw_data=outcome)

    def fail(self, index: int, reason: str) -> None:
        """``log_trial_failure``; the reason is kept in the metadata of the trial."""
        self.client.log_trial_failure(index, metadata={"failure": reason})

    def abandon(self, index: int, reason: str) -> None:
        """``abandon_trial``."""
        self.client.abandon_trial(index, reason=reason)

    def best(self, *, use_model: bool) -> Mapping[str, Any] | None:
        """``get_best_parameters``."""
        answer = self.client.get_best_parameters(use_model_predictions=use_model)
        return None if answer is None else answer[0]

    def pareto(self, *, use_model: bool) -> ParetoSet:
        """``get_pareto_optimal_parameters``."""
        return self.client.get_pareto_optimal_parameters(use_model_predictions=use_model)

    def settings(self) -> dict[str, Any]:
        """What ``AxClient`` needs again; Ax's own snapshots keep only the first of these."""
        return {
            "enforce_sequential_optimization": self.client._enforce_sequential_optimization,  # noqa: SLF001
            "random_seed": self.client._random_seed,  # noqa: SLF001
            "global_stopping_strategy": self.client.global_stopping_strategy,
        }

    @classmethod
    def load(cls, snapshot: dict[str, Any]) -> Self:
        """A new client of the decoded experiment and strategy."""
        try:
            from ax.service.ax_client import AxClient
        except ImportError as error:
            raise ConfigurationError(
                "the snapshot was taken of an AxClient, which this version of Ax no longer has: "
                "finish this experiment with ax-platform<1.4, and use ax.api.client.Client for new ones"
            ) from error
        from ax.storage.json_store.decoder import object_from_json

        settings = object_from_json(snapshot["settings"])
        return cls(
            AxClient.from_json_snapshot(
                {
                    "experiment": snapshot["experiment"],
                    "generation_strategy": snapshot["generation_strategy"],
                    "_enforce_sequential_optimization": settings["enforce_sequential_optimization"],
                },
                random_seed=settings["random_seed"],
                global_stopping_strategy=settings["global_stopping_strategy"],
            )
        )
