"""The worker node's side of the small PanDA: one job, from an empty directory to files in the catalogue."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

# What PanDA calls the transformation: unpack the arguments with the tool of idds-workflow, which also fetches the
# sources, then run the line that it prints.
_WRAPPER = """\
#!/bin/bash
line=$(idds_parse_workflow_args "$@") || exit 64
eval "$line"
"""


class Catalogue(Protocol):
    """Where datasets are. A scope before the name and the slash of a container behind it do not matter."""

    def create(self, dataset: str, task_id: int) -> None:
        """Register what a task will write."""

    def has(self, dataset: str) -> bool:
        """Whether it is registered."""

    def files(self, dataset: str) -> list[str]:
        """The names of its files, in order."""

    def stage_in(self, dataset: str, names: Sequence[str], directory: Path) -> None:
        """Put files into a directory."""

    def stage_out(self, dataset: str, task_id: int, file: Path) -> None:
        """Take a file over under its own name."""


def _bare(dataset: str) -> str:
    return dataset.rpartition(":")[2].rstrip("/")


class DirectoryCatalogue:
    """Datasets as directories, files in them; one directory for all tasks that write there.

    Args:
        directory: The directory of all.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def create(self, dataset: str, task_id: int) -> None:
        self._path(dataset).mkdir(parents=True, exist_ok=True)

    def has(self, dataset: str) -> bool:
        return self._path(dataset).is_dir()

    def files(self, dataset: str) -> list[str]:
        return sorted(path.name for path in self._path(dataset).iterdir() if not path.name.startswith("."))

    def stage_in(self, dataset: str, names: Sequence[str], directory: Path) -> None:
        for name in names:
            shutil.copy(self._path(dataset) / name, directory / name)

    def stage_out(self, dataset: str, task_id: int, file: Path) -> None:
        unfinished = self._path(dataset) / f".{file.name}"  # it appears whole
        shutil.copy(file, unfinished)
        unfinished.replace(self._path(dataset) / file.name)

    def _path(self, dataset: str) -> Path:
        return self._directory / _bare(dataset)


@dataclass(frozen=True)
class RucioCatalogue:
    """Datasets in Rucio, by a program in an environment that has its client.

    Attributes:
        python: The interpreter of that environment.
        rse: The storage element that files go to.
        environment: The program's whole environment.
    """

    python: str
    rse: str
    environment: Mapping[str, str]

    def create(self, dataset: str, task_id: int) -> None:
        self._run("create", _bare(dataset), str(task_id))

    def has(self, dataset: str) -> bool:
        return bool(self._run("has", _bare(dataset)))

    def files(self, dataset: str) -> list[str]:
        return list(self._run("files", _bare(dataset)))

    def stage_in(self, dataset: str, names: Sequence[str], directory: Path) -> None:
        self._run("stage_in", _bare(dataset), str(directory), *names)

    def stage_out(self, dataset: str, task_id: int, file: Path) -> None:
        self._run("stage_out", _bare(dataset), str(task_id), self.rse, str(file))

    def _run(self, *words: str) -> Any:
        program = Path(__file__).parent / "rucio_storage.py"
        done = subprocess.run(
            [self.python, program, *words], env=dict(self.environment), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OSError(f"Rucio: {' '.join(words)} failed:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout)


@dataclass(frozen=True)
class Node:
    """What every job finds.

    Attributes:
        directory: Where the jobs' directories are made.
        environment: The whole environment of a job, but for HOME.
        catalogue: Where files come from and go to.
    """

    directory: Path
    environment: Mapping[str, str]
    catalogue: Catalogue


@dataclass
class Job:
    """One attempt.

    Attributes:
        task_id: The task that it is of.
        name: The directory's name, unique.
        parameters: The command line behind the transformation's name, for a shell.
        inputs: Files to stage in, by dataset.
        outputs: The file to stage out, by dataset.
        walltime_s: When the pilot ends it.
    """

    task_id: int
    name: str
    parameters: str
    inputs: Mapping[str, Sequence[str]]
    outputs: Mapping[str, str]
    walltime_s: float
    _process: subprocess.Popen[bytes] | None = None
    _is_killed: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, node: Node) -> str | None:
        """Run it; why it failed, or None when it did not."""
        directory = node.directory / self.name
        directory.mkdir(parents=True)
        try:
            for dataset, names in self.inputs.items():
                node.catalogue.stage_in(dataset, names, directory)
        except OSError as error:
            return f"stage-in: {error}"
        wrapper = directory / "run_workflow_wrapper"
        wrapper.write_text(_WRAPPER)
        wrapper.chmod(0o755)
        return self._payload(directory, node.environment) or self._stage_out(directory, node.catalogue)

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self._is_killed.set()
        with self._lock:
            if self._process is not None:
                # A group of its own; a child that left it ends with the servers, at the latest.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def _payload(self, directory: Path, environment: Mapping[str, str]) -> str | None:
        with (directory / "payload.log").open("wb") as log:
            with self._lock:
                if self._is_killed.is_set():
                    return "killed before it started"
                self._process = subprocess.Popen(
                    ["/bin/bash", "-c", f"./run_workflow_wrapper {self.parameters}"],
                    cwd=directory,
                    env={**environment, "HOME": str(directory)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            try:
                code = self._process.wait(self.walltime_s)
            except subprocess.TimeoutExpired:
                self.kill()
                self._process.wait()
                return f"ended by the pilot after {self.walltime_s:.0f} s"
        return "killed" if self._is_killed.is_set() else f"payload exit code {code}" if code else None

    def _stage_out(self, directory: Path, catalogue: Catalogue) -> str | None:
        for dataset, name in self.outputs.items():
            if not (directory / name).exists():
                return f"stage-out: {name} was not produced"
            try:
                catalogue.stage_out(dataset, self.task_id, directory / name)
            except OSError as error:
                return f"stage-out: {error}"
        return None
