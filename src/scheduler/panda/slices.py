"""How a job that produces a dataset is divided into slices, and what each of them gets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from scheduler.core.names import check_dataset_name
from scheduler.errors import ConfigurationError
from scheduler.runners.base_runner import Attempt, OutputOrder

SLICE_PARAMETERS = ("slice_index", "slice_count", "slice_events")
"""What a function may name to be told which part it is."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of a job, run as a process of its own.

    Attributes:
        index: Its number, from 0.
        events: How many events it shall make.
        directory: Where its log and result go.
        arguments: What is added to the arguments of the job.
    """

    index: int
    events: int
    directory: Path
    arguments: Mapping[str, int]

    @property
    def work(self) -> Path:
        """Its working directory."""
        return self.directory / "work"

    @property
    def log(self) -> Path:
        """The file with what it prints."""
        return self.directory / "log.txt"


def slices_of(attempt: Attempt, function: Callable[..., object]) -> tuple[Slice, ...]:
    """Divide an attempt. Without a dataset, or with few events, it is one slice in the attempt's own directory."""
    output = attempt.output
    count = output.slices if output is not None else 1
    return tuple(_slice(attempt, output, index, count, function) for index in range(count))


def check_output_file(file: str, *, step: str) -> None:
    """Refuse an ``output_file`` that is no path below the working directory.

    Raises:
        ConfigurationError: With the step and the name.
    """
    path = PurePosixPath(file)
    if not file or path.is_absolute() or ".." in path.parts or not path.name:
        raise ConfigurationError(
            f"step '{step}': output_file {file!r} must be a file below the working directory of the job: "
            "a relative path without '..'"
        )


def check_output_names(output: OutputOrder) -> None:
    """Refuse the names of a dataset and its files that Rucio would refuse.

    Raises:
        ConfigurationError: With the name and what is wrong with it.
    """
    check_dataset_name(output.dataset)
    check_dataset_name(f"{output.dataset}_{output.slices:06d}.{PurePosixPath(output.file).name}")


def _slice(
    attempt: Attempt, output: OutputOrder | None, index: int, count: int, function: Callable[..., object]
) -> Slice:
    events = (
        1 if output is None else min(output.num_events_per_job, output.num_events - index * output.num_events_per_job)
    )
    offered = {"slice_index": index, "slice_count": count, "slice_events": events}
    wanted = {name: offered[name] for name in _named_parameters(function) if name not in attempt.arguments}
    directory = attempt.directory if count == 1 else attempt.directory / f"slice_{index + 1:06d}"
    return Slice(index, events, directory, wanted)


def _named_parameters(function: Callable[..., object]) -> list[str]:
    """The parameters about slices that the function names; one that takes ``**everything`` gets none."""
    try:
        named = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions written in C do not tell
        return []
    return [name for name in SLICE_PARAMETERS if name in named]
