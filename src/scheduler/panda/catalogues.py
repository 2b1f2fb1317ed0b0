"""Which dataset catalogue a runner uses: the choice in its ``config``, and the catalogue of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from scheduler.errors import ConfigurationError
from scheduler.panda.datasets import DatasetCatalogue, LocalCatalogue
from scheduler.panda.rucio_catalogue import RucioCatalogue
from scheduler.runners.base_runner import Attempt

CatalogueKind = Literal["local", "rucio"]

CATALOGUE_DEFAULTS: Mapping[str, object] = {"catalogue": "local", "catalogue_dir": None, "rse": None}
"""The keys of a runner's ``config`` that are about datasets, with what they are when they are not given."""

_KINDS = get_args(CatalogueKind)


@dataclass(frozen=True, slots=True)
class CatalogueChoice:
    """What the user wants.

    Attributes:
        kind: A local directory, or Rucio.
        directory: The directory; None for ``datasets`` in the run directory. Only for a local one.
        rse: The storage element that new datasets go to; None for the only one where there is quota. Only for Rucio.
    """

    kind: CatalogueKind = "local"
    directory: Path | None = None
    rse: str | None = None


def choose_catalogue(config: Mapping[str, object]) -> CatalogueChoice:
    """Read the keys of :data:`CATALOGUE_DEFAULTS`; other keys are not looked at.

    Raises:
        ConfigurationError: A value is wrong, or a key belongs to the other kind of catalogue.
    """
    settings = {**CATALOGUE_DEFAULTS, **config}
    kind, directory, rse = settings["catalogue"], settings["catalogue_dir"], settings["rse"]
    if directory is not None and not isinstance(directory, str | Path):
        raise ConfigurationError(f"config['catalogue_dir'] must be a path, not {directory!r}")
    if rse is not None and not (isinstance(rse, str) and rse):
        raise ConfigurationError(f"config['rse'] must be the name of a Rucio storage element, not {rse!r}")
    if kind == "local":
        if rse is not None:
            raise ConfigurationError(f"config['rse'] is {rse!r}, but the catalogue is local; add 'catalogue': 'rucio'")
        return CatalogueChoice("local", None if directory is None else Path(directory).expanduser().absolute())
    if kind == "rucio":
        if directory is not None:
            raise ConfigurationError(
                f"config['catalogue_dir'] is '{directory}', but the catalogue is Rucio: leave it out"
            )
        return CatalogueChoice("rucio", rse=rse)
    raise ConfigurationError(f"config['catalogue'] is {kind!r}; it can be {' or '.join(map(repr, _KINDS))}")


class Catalogues:
    """The catalogues of a runner: one for all runs, or one for each run directory.

    Args:
        choice: What the user wants.
    """

    def __init__(self, choice: CatalogueChoice) -> None:
        self._choice = choice
        self._local: dict[Path, LocalCatalogue] = {}
        self._rucio = RucioCatalogue(rse=choice.rse) if choice.kind == "rucio" else None

    def check(self, *, writes: bool) -> None:
        """See whether the catalogue can be used at all; for Rucio this asks the server.

        Args:
            writes: Whether datasets will be made.

        Raises:
            ConfigurationError: With what is missing or refused, and what to do.
        """
        if self._rucio is not None:
            self._rucio.check(writes=writes)

    def of(self, attempt: Attempt) -> DatasetCatalogue:
        """The catalogue for the datasets of an attempt."""
        if self._rucio is not None:
            return self._rucio
        root = self._choice.directory or run_directory_of(attempt) / "datasets"
        return self._local.setdefault(root, LocalCatalogue(root))

    def contents(self, attempt: Attempt) -> dict[str, tuple[str, ...]] | None:
        """What is in the datasets that an attempt reads, see :meth:`BaseRunner.contents`."""
        catalogue = self.of(attempt)
        digests = {argument: catalogue.digests(dataset) for argument, dataset in attempt.inputs.items()}
        known = {argument: files for argument, files in digests.items() if files is not None}
        return known if len(known) == len(digests) else None


def run_directory_of(attempt: Attempt) -> Path:
    """The directory of the run that an attempt belongs to: the one with ``trials`` in it."""
    trials = next((parent for parent in attempt.directory.absolute().parents if parent.name == "trials"), None)
    return trials.parent if trials is not None else attempt.directory.absolute().parent
