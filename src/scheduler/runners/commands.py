"""Command lines of scripts and containers. Pure functions, except where they say that they look at the file system."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from scheduler.core.specs import Container, Resources, Scalar, Script
from scheduler.errors import ConfigurationError

PARAMETERS_VARIABLE = "JOB_PARAMS_FILE"
SCRIPT_PARAMETERS_FILE = "params.json"

Engine = Literal["docker", "podman", "singularity", "apptainer"]
ENGINES: tuple[Engine, ...] = get_args(Engine)

_BYTES_PER_MB = 1_000_000


def as_options(options: Mapping[str, Scalar]) -> list[str]:
    """Options as ``--name value`` (``-n value`` for a single letter); None or True make a flag, False leaves it out."""
    words: list[str] = []
    for name, value in options.items():
        if value is False:
            continue
        words.append(f"-{name}" if len(name) == 1 else f"--{name}")
        if value is not None and value is not True:
            words.append(str(value))
    return words


def script_argv(script: Script) -> list[str]:
    """The command line of a script: run directly when it is executable, else by its kind. Looks at the file.

    A relative path counts from the current directory, where the program was started.

    Raises:
        ConfigurationError: There is no such file, or no way to run it.
    """
    path = Path(script.path).absolute()
    if not path.is_file():
        raise ConfigurationError(f"script_path {script.path!r} does not exist (looked for {path})")
    return [*_interpreter_of(path), str(path), *as_options(script.options)]


def _interpreter_of(path: Path) -> list[str]:
    if os.access(path, os.X_OK):
        return []
    match path.suffix:
        case ".py":
            return [sys.executable]
        case ".sh":
            return ["bash"]
        case _:
            raise ConfigurationError(
                f"script {path} is not executable and neither .py nor .sh: run 'chmod +x {shlex.quote(str(path))}'"
            )


def find_engine(wanted: str | None) -> Engine:
    """The container engine to use: the wanted one, or the first that is installed. Looks at PATH.

    Raises:
        ConfigurationError: It is not installed, or none is.
    """
    for engine in ENGINES:
        if wanted in (None, engine) and shutil.which(engine):
            return engine
    if wanted is None:
        raise ConfigurationError(f"no container engine found on PATH: install one of {', '.join(ENGINES)}")
    raise ConfigurationError(f"container_engine {wanted!r} is not on PATH: install it or choose another one")


@dataclass(frozen=True, slots=True)
class ContainerPlace:
    """Where a container runs on this machine.

    Attributes:
        name: The container's name, by which it can be killed.
        job: The directory that is ``/job``; also its working directory.
        trial: The directory that is ``/workdir``.
        user: ``uid:gid`` to whom its files shall belong, for engines with a daemon.
    """

    name: str
    job: Path
    trial: Path
    user: str


def container_argv(container: Container, *, engine: Engine, place: ContainerPlace, resources: Resources) -> list[str]:
    """The command line that runs a container in the foreground.

    Docker and podman run it outside of our process tree, so they are told the limits of cores and memory.
    """
    if engine in ("singularity", "apptainer"):
        head = _singularity_argv(container, engine, place)
    else:
        head = _docker_argv(engine, place, resources)
    command = shlex.split(container.command) if container.command else []
    return [*head, *as_options(container.options), container.image, *command]


def _docker_argv(engine: Engine, place: ContainerPlace, resources: Resources) -> list[str]:
    argv = [engine, "run", "--rm", "--name", place.name]
    argv += ["--volume", f"{place.job}:/job", "--volume", f"{place.trial}:/workdir", "--workdir", "/job"]
    argv += ["--env", f"{PARAMETERS_VARIABLE}=/job/{SCRIPT_PARAMETERS_FILE}"]
    # Docker's root would own the results; podman without privileges maps its root to the user anyway.
    argv += ["--user", place.user] if engine == "docker" else []
    argv += ["--memory", f"{resources.memory_mb * _BYTES_PER_MB}b"] if resources.memory_mb is not None else []
    argv += ["--cpus", str(resources.cores)] if resources.cores is not None else []
    return argv


def _singularity_argv(container: Container, engine: Engine, place: ContainerPlace) -> list[str]:
    argv = [engine, "exec" if container.command else "run"]
    argv += ["--bind", f"{place.job}:/job", "--bind", f"{place.trial}:/workdir", "--pwd", "/job"]
    argv += ["--env", f"{PARAMETERS_VARIABLE}=/job/{SCRIPT_PARAMETERS_FILE}"]
    return argv


def container_kill_argv(engine: Engine, name: str) -> list[str] | None:
    """The command that ends a container; None where ending its processes is enough."""
    return [engine, "kill", name] if engine in ("docker", "podman") else None


def container_name(label: str, *, unique: str) -> str:
    """A name that engines accept, in which a person recognizes the attempt."""
    return f"scheduler-{unique}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', label)}"[:120]
