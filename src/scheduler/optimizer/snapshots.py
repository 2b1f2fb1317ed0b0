"""The state of an Ax experiment and its generation strategy as JSON text, and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from scheduler.errors import ConfigurationError

if TYPE_CHECKING:
    from ax.core.data import Data
    from ax.core.experiment import Experiment
    from ax.core.generator_run import GeneratorRun
    from ax.generation_strategy.generation_strategy import GenerationStrategy

FORMAT = 1

_RUN = "__generator_run"


class SnapshotWriter:
    """Writes snapshots of one experiment, in less time and space than Ax does.

    Ax writes the experiment twice, once with the strategy; so it does with its generator runs, one per trial, which
    never change and are most of the text; and it makes a table of the data for each trial. Here the strategy does not
    repeat the experiment, each run is encoded once and referred to by number, and there is one table. What is read is
    the same.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._runs: list[GeneratorRun] = []  # keeps them alive, so that their ids stay theirs
        self._texts: list[str] = []

    def write(self, client: str, experiment: Experiment, strategy: GenerationStrategy, settings: dict[str, Any]) -> str:
        """Put the state into JSON text.

        Args:
            client: Name of the class of the client.
            experiment: The experiment.
            strategy: Its generation strategy.
            settings: What else the client needs to go on, made of Ax's or JSON's types.
        """
        from ax.core.generator_run import GeneratorRun
        from ax.storage.json_store.encoder import object_to_json
        from ax.storage.json_store.registry import CORE_ENCODER_REGISTRY

        encoders: dict[Any, Any] = {**CORE_ENCODER_REGISTRY, GeneratorRun: self._refer}
        encode = encoders[type(experiment)]
        once = {**encoders, type(experiment): lambda _: _with_one_table(encode(experiment), experiment.data)}
        without = {**encoders, type(experiment): lambda _: {}}  # Ax takes the experiment it is given when it reads
        content = {
            "format": FORMAT,
            "client": client,
            "settings": object_to_json(settings),
            "experiment": object_to_json(experiment, encoder_registry=once),
            "generation_strategy": object_to_json(strategy, encoder_registry=without),
        }
        return json.dumps({**content, "generator_runs": self._texts})

    def text_of(self, run: GeneratorRun) -> str:
        """One generator run as JSON text, for :func:`read_run`."""
        return self._texts[self._number(run)]

    @staticmethod
    def text_apart(run: GeneratorRun) -> str:
        """The same for a run that may be forgotten: nothing of it is kept."""
        from ax.storage.json_store.encoder import object_to_json

        return json.dumps(object_to_json(run))

    def _refer(self, run: GeneratorRun) -> dict[str, Any]:
        return {_RUN: self._number(run)}

    def _number(self, run: GeneratorRun) -> int:
        if id(run) not in self._numbers:
            self._numbers[id(run)] = len(self._runs)
            self._runs.append(run)
            self._texts.append(self.text_apart(run))
        return self._numbers[id(run)]


def read_run(text: str) -> GeneratorRun:
    """The generator run that :meth:`SnapshotWriter.text_of` wrote."""
    from ax.storage.json_store.decoder import object_from_json

    run: GeneratorRun = object_from_json(json.loads(text))
    return run


def _with_one_table(encoded: dict[str, Any], data: Data) -> dict[str, Any]:
    # In Ax's layout {trial: {timestamp: data}}; when it reads, it puts all tables together, whatever their keys.
    if data.empty or "data_by_trial" not in encoded:
        return encoded
    return {**encoded, "data_by_trial": {0: {0: data}}}


def read_snapshot(text: str) -> dict[str, Any]:
    """The content of a snapshot, with the generator runs in their places.

    Raises:
        ConfigurationError: The text is no snapshot, or of another version.
    """
    try:
        outline = json.loads(text)
        version, _, runs = outline["format"], outline["client"], outline["generator_runs"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"this text is no snapshot of an optimizer: {error!r}") from error
    if version != FORMAT:
        raise ConfigurationError(
            f"the snapshot has format {version!r} and this version reads {FORMAT}: "
            "go on with the version of aid2e-scheduler that wrote it"
        )
    # A new copy for each place: decoding takes the copies to pieces.
    content: dict[str, Any] = json.loads(
        text, object_hook=lambda found: json.loads(runs[found[_RUN]]) if _RUN in found else found
    )
    return content
