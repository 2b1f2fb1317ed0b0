"""The key of a job's result: one digest of everything that decides what the job returns."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import assert_never

from scheduler.caching.entries import FORMAT
from scheduler.caching.sources import Sources, trace
from scheduler.core.specs import Container, Function, Payload, Script, StepSpec
from scheduler.errors import ConfigurationError, DatasetError, ShippingError
from scheduler.panda.locate import source_file_of
from scheduler.runners.base_runner import Attempt, BaseRunner, JobEnvironment

logger = logging.getLogger(__name__)

_first_seen: dict[Path, str] = {}
"""What was in a file when this process first read it: modules in memory are not newer than that."""


class _NoKeyError(Exception):
    """There is no telling what decides the result. The message says why."""


_REASONS = (_NoKeyError, DatasetError, ShippingError, OSError)


@dataclass(frozen=True, slots=True)
class Program:
    """What a payload does, as its files were when they were looked at.

    Attributes:
        description: Made of JSON types.
        installed: Top-level names of the installed packages that it imports.
        stamps: File -> what changes with it.
        doubts: What of it is not in the key, in sentences.
    """

    description: Mapping[str, object]
    installed: frozenset[str] = frozenset()
    stamps: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    def check_unchanged(self) -> None:
        """See that the files are still those that were looked at: jobs may run the ones or the others.

        Raises:
            OSError: A file is not.
        """
        for file, stamp in self.stamps.items():
            if _stamp(file) != stamp:
                raise OSError(f"{file} was changed after this program began")


def check_cacheable(step: StepSpec, runner: BaseRunner) -> None:
    """Refuse a step whose results could never be found again.

    Raises:
        ConfigurationError: With the step's name, the reason and what to do.
    """
    if runner.environment() is None:
        raise ConfigurationError(
            f"step '{step.name}' has cache=True, but {runner!r} does not say what the results of its jobs depend on: "
            "leave cache out, or run the step on a JobLibRunner or a PanDAiDDSRunner"
        )
    if isinstance(step.payload, Function):
        try:
            source_file_of(step.payload.call)
        except ShippingError as error:
            raise ConfigurationError(f"step '{step.name}' has cache=True, but {error}") from error


class KeyMaker:
    """Makes the keys of attempts for one runner.

    Args:
        runner: It knows the environment of its jobs and the contents of their inputs.
    """

    def __init__(self, runner: BaseRunner) -> None:
        self._runner = runner
        self._programs: dict[object, Program] = {}
        self._said: set[str] = set()

    def look_at(self, payload: Payload) -> None:
        """Look at the files of a payload now; later they are only compared with what they were."""
        try:
            self._program(payload)
        except _REASONS as error:
            self._say(f"{payload.name} is not cached: {error}")

    def key_of(self, attempt: Attempt) -> str | None:
        """The key; None, with one warning, when there is no telling what decides the result."""
        try:
            return self._digest(attempt)
        except _REASONS as error:
            self._say(f"{attempt.payload.name} is not cached: {error}")
            return None

    def check_unchanged(self, payload: Payload) -> None:
        """See that a payload whose key was made is still what it was.

        Raises:
            OSError: A file of it was changed.
        """
        self._program(payload).check_unchanged()

    def _say(self, warning: str) -> None:
        if warning not in self._said:
            self._said.add(warning)
            logger.warning("%s", warning)

    def _program(self, payload: Payload) -> Program:
        """What the payload does; looked at once, because jobs run the program as it was when it began."""
        identity = payload if isinstance(payload, Function) else repr(payload)
        if identity not in self._programs:
            self._programs[identity] = program = _describe(payload)
            for doubt in program.doubts:
                self._say(f"{doubt}: that is no part of the key of cached results")
        return self._programs[identity]

    def _digest(self, attempt: Attempt) -> str:
        environment = self._runner.environment()
        if environment is None:
            raise _NoKeyError("its runner does not say what the results of its jobs depend on")
        program = self._program(attempt.payload)
        program.check_unchanged()
        return digest_of(program, attempt.arguments, contents=self._contents(attempt), environment=environment)

    def _contents(self, attempt: Attempt) -> Mapping[str, tuple[str, ...]]:
        if not attempt.inputs:
            return {}
        if attempt.follows:
            raise _NoKeyError("the dataset that it reads is still being made")
        contents = self._runner.contents(attempt)
        if contents is None:
            raise _NoKeyError("the catalogue of its input datasets has no checksums that tell all contents apart")
        return contents


def digest_of(
    program: Program,
    arguments: Mapping[str, object],
    *,
    contents: Mapping[str, Iterable[str]],
    environment: JobEnvironment,
) -> str:
    """The key of a result.

    Args:
        program: What is run.
        arguments: What it is given.
        contents: Argument -> digests of the files of the dataset that it reads.
        environment: Where it is run.
    """
    decisive = {
        "format": FORMAT,
        "program": program.description,
        "arguments": _canonical(arguments),
        "inputs": {name: list(files) for name, files in contents.items()},
        "place": environment.place,
        "environment": environment.text,
    }
    if environment.is_ours:
        decisive["python"] = list(sys.version_info[:2])
        decisive["installed"] = {name: _versions(name) for name in program.installed}
    text = json.dumps(decisive, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: object) -> object:
    """Arguments in JSON such that two differ exactly when a function may see a difference."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float() if math.isfinite(value):
            return float(value)  # JSON has its repr: 1.0 is not 1, and -0.0 is not 0.0
        case list():
            return [_canonical(each) for each in value]
        case tuple():
            return {"tuple": [_canonical(each) for each in value]}
        case Mapping():
            pairs = [[_canonical(key), _canonical(each)] for key, each in value.items()]
            return {"mapping": sorted(pairs, key=lambda pair: json.dumps(pair[0], sort_keys=True))}
        case _:
            raise _NoKeyError(
                f"an argument has a value of type {type(value).__name__}, which cannot be compared for sure"
            )


def _describe(payload: Payload) -> Program:
    match payload:
        case Function(call=call, takes_mapping=takes_mapping):
            file = source_file_of(call)
            package = sys.modules[call.__module__].__package__ or ""
            root = file.absolute().parents[len(package.split(".")) if package else 0]
            sources = trace(file, package=package, path=[*sys.path, str(root)])
            about: dict[str, object] = {"function": f"{call.__module__}.{call.__qualname__}", "mapping": takes_mapping}
            if call.__module__ == "__main__":  # what it finds in its module may come from the command line
                about["command line"] = sys.argv[1:]
        case Script(path=path, options=options):
            script = Path(path).absolute()
            sources = trace(script, path=[str(script.parent), *sys.path]) if script.suffix == ".py" else Sources(script)
            about = {"script": script.suffix, "options": _canonical(options)}
        case Container(image=image, command=command, options=options):
            return Program({"image": image, "command": command, "options": _canonical(options)})
        case _:
            assert_never(payload)
    return _with_files(about, sources)


def _with_files(about: Mapping[str, object], sources: Sources) -> Program:
    files = {sources.main, *sources.modules.values()}
    stamps = {file: _stamp(file) for file in files}  # before they are read: a change in between is seen
    digests = {file: _read_first(file) for file in files}
    description = {
        **about,
        "source": digests[sources.main],
        "modules": {name: digests[file] for name, file in sources.modules.items() if file != sources.main},
    }
    return Program(description, frozenset(sources.installed), stamps, tuple(_doubts(sources)))


def _doubts(sources: Sources) -> Iterator[str]:
    for place in sources.unclear:
        yield f"{place} imports what only a run can tell"
    for name in sorted(sources.installed):
        if _versions(name) is None:
            yield f"{sources.main} or a module of it imports '{name}', which is not found here"


def _read_first(file: Path) -> str:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if _first_seen.setdefault(file, digest) != digest:
        raise OSError(f"{file} was changed after this program began; start it again")
    return digest


def _stamp(file: Path) -> tuple[int, ...]:
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@cache
def _packages() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _versions(package: str) -> dict[str, str] | None:
    """The versions of the distributions that an installed package comes from; None for one that is not installed."""
    names = _packages().get(package)
    return None if names is None else {name: metadata.version(name) for name in sorted(set(names))}
