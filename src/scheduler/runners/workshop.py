"""The processes of a local runner: those for its functions, one for its scripts and containers, and their files."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from scheduler.core.failures import Cause
from scheduler.core.observations import HasFailed, Observation, WasCancelled
from scheduler.core.specs import Container, Function, Payload, Script
from scheduler.runners.attempt_files import LOG_FILE, write_attempt_files
from scheduler.runners.base_runner import Attempt
from scheduler.runners.commands import (
    PARAMETERS_VARIABLE,
    SCRIPT_PARAMETERS_FILE,
    ContainerPlace,
    container_argv,
    container_kill_argv,
    container_name,
    find_engine,
    script_argv,
)
from scheduler.runners.launch import Launch, worker_command
from scheduler.runners.local_backends import Backend, ForksOfProgram, FreshInterpreters, Surroundings, Threads
from scheduler.runners.local_config import BackendName, LocalConfig
from scheduler.runners.orders import Command, Order, Target
from scheduler.runners.pilot import Pilot

logger = logging.getLogger(__name__)

_ENGINE_PATIENCE_S = 30.0
_NOT_ENDED_BY_ITSELF = frozenset({Cause.TIMEOUT, Cause.MEMORY, Cause.KILLED, Cause.LOST})


class Workshop:
    """Makes orders out of attempts and has them carried out. The runner counts the slots.

    Args:
        backend: Runs the functions.
        surroundings: Shared with the backend; its ``on_ended`` gets the outcomes.
        container_engine: The engine that the user wants; None for the first one installed.
    """

    def __init__(self, backend: Backend, surroundings: Surroundings, *, container_engine: str | None) -> None:
        self._backend = backend
        self._surroundings = surroundings
        self._container_engine = container_engine
        self._gate = threading.Lock()
        self._is_closed = False
        self._commands: Pilot | None = None
        self._container_kills: dict[str, list[str]] = {}
        self._undertakers: list[threading.Thread] = []

    def check(self, payload: Payload) -> None:
        """Refuse a payload that can never run here.

        Raises:
            ConfigurationError: With the reason.
        """
        match payload:
            case Function(call=call):
                self._backend.prepare(call, payload.name)
            case Script():
                script_argv(payload)
            case Container():
                find_engine(self._container_engine)

    def make_order(self, attempt: Attempt) -> Order:
        """Prepare an attempt: its directory, the files in it, what is to be run.

        Raises:
            ConfigurationError: The payload can never run here.
            OSError: The directory cannot be made.
        """
        directory = attempt.directory.absolute()
        target, command = self._target(attempt, directory)
        write_attempt_files(attempt, directory, command=command)
        is_function = isinstance(attempt.payload, Function)
        environment: dict[str, str | None] = {**self._surroundings.environment(attempt.resources.cores or 1)}
        if not is_function:
            environment[PARAMETERS_VARIABLE] = str(directory / SCRIPT_PARAMETERS_FILE)
        return Order(
            key=attempt.label,
            target=target,
            directory=directory,
            log=directory / LOG_FILE,
            arguments=attempt.arguments if is_function else {},
            as_mapping=isinstance(attempt.payload, Function) and attempt.payload.takes_mapping,
            environment=environment,
            resources=attempt.resources,
        )

    def run(self, order: Order) -> bool:
        """Start a job; False when the workshop is closed.

        Raises:
            Exception: Whatever the pickling of the arguments raises; nothing was started.
        """
        with self._gate:
            if self._is_closed:
                return False
            if isinstance(order.target, Command):
                self._command_pilot().run(order)
            else:
                self._backend.run(order)
            return True

    def kill(self, key: str, verdict: Observation) -> None:
        """End a job; harmless when there is none."""
        self._backend.kill(key, verdict)
        if self._commands is not None:
            self._commands.kill(key, verdict)

    def close(self) -> None:
        """End all jobs and processes. May be called twice."""
        with self._gate:
            self._is_closed = True
        self._backend.close()
        if self._commands is not None:
            self._commands.close()
        for thread in self._undertakers:
            thread.join()
        self._surroundings.close()

    def _target(self, attempt: Attempt, directory: Path) -> tuple[Target, str | None]:
        """What to run, and how a person would type it, if that is more than its arguments."""
        match attempt.payload:
            case Function(call=call) as function:
                return self._backend.prepare(call, function.name), None
            case Script() as script:
                argv = script_argv(script)
            case Container() as container:
                argv = self._container_argv(container, attempt, directory)
        return Command(tuple(argv), attempt.payload.name), shlex.join(argv)

    def _container_argv(self, container: Container, attempt: Attempt, directory: Path) -> list[str]:
        engine = find_engine(self._container_engine)
        name = container_name(attempt.label, unique=str(os.getpid()))
        kill_argv = container_kill_argv(engine, name)
        if kill_argv is not None:
            self._container_kills[attempt.label] = kill_argv
        place = ContainerPlace(name, job=directory, trial=directory.parents[1], user=f"{os.getuid()}:{os.getgid()}")
        return container_argv(container, engine=engine, place=place, resources=attempt.resources)

    def _command_pilot(self) -> Pilot:
        if self._commands is None:
            directory = self._surroundings.directory
            launch = Launch(worker_command(), directory=directory, log=directory / "commands.log")
            self._commands = self._surroundings.start_pilot(launch, on_ended=self._command_ended)
        return self._commands

    def _command_ended(self, key: str, outcome: Observation) -> None:
        kill_argv = self._container_kills.pop(key, None)
        if kill_argv is None or not _was_torn_away(outcome):
            self._surroundings.on_ended(key, outcome)
            return
        # Only the engine's client has died; asking the engine may take seconds, and other jobs have news too.
        bury = threading.Thread(target=self._bury_container, args=(kill_argv, key, outcome), name="scheduler-container")
        self._undertakers = [thread for thread in self._undertakers if thread.is_alive()] + [bury]
        bury.start()

    def _bury_container(self, kill_argv: list[str], key: str, outcome: Observation) -> None:
        try:
            done = subprocess.run(kill_argv, capture_output=True, text=True, timeout=_ENGINE_PATIENCE_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            logger.warning("'%s' failed, the container may still run: %s", shlex.join(kill_argv), error)
        else:
            if done.returncode != 0:
                logger.info("'%s' said: %s", shlex.join(kill_argv), done.stderr.strip())
        self._surroundings.on_ended(key, outcome)


def _was_torn_away(outcome: Observation) -> bool:
    match outcome:
        case WasCancelled():
            return True
        case HasFailed(failure=failure):
            return failure.cause in _NOT_ENDED_BY_ITSELF
        case _:
            return False


_BACKENDS: dict[BackendName, Callable[[Surroundings], Backend]] = {
    "loky": FreshInterpreters,
    "multiprocessing": ForksOfProgram,
    "threading": Threads,
}


def open_workshop(
    backend: BackendName,
    config: LocalConfig,
    *,
    slots: int,
    on_started: Callable[[str], None],
    on_ended: Callable[[str, Observation], None],
) -> Workshop:
    """A workshop for a runner. Nothing is started yet.

    Args:
        backend: Where functions run.
        config: The settings of the runner.
        slots: The runner's; the cores of this machine are divided among them when libraries ask for threads.
        on_started: Called with a label when its job runs.
        on_ended: Called with a label and the outcome, once.
    """
    import loky

    surroundings = Surroundings(
        tmp_dir=config.tmp_dir,
        threads_per_core=max(loky.cpu_count() // slots, 1),
        on_started=on_started,
        on_ended=on_ended,
    )
    return Workshop(_BACKENDS[backend](surroundings), surroundings, container_engine=config.container_engine)
