"""A station: one unpacked tarball in which ``init_env`` has run, and the pilot that runs jobs out of it."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from scheduler import rehearsing
from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, Observation
from scheduler.core.specs import Resources
from scheduler.panda.sandbox import Tarball, unpack
from scheduler.runners.limit_watch import LimitWatch
from scheduler.runners.pilot import WORKER_FILE, Command, Launch, Order, Pilot
from scheduler.worker import START_DIRECTORY_VARIABLE

logger = logging.getLogger(__name__)

_READY = "the station is ready"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

# Orders come on stdin and reports leave on stdout: init_env gets neither, so that what it reads or prints does no harm.
_SCRIPT = """\
{{
trap 'echo "init_env: exit code $?: $BASH_COMMAND"' ERR
{init_env}
trap - ERR
}} </dev/null 1>&2
exec python3 {program} pilot
"""


class Station:
    """Runs orders in copies of one unpacked tarball.

    ``init_env`` runs in the unpacked directory, under bash, in the very process that becomes the pilot: limits, umask
    and variables that it sets hold for the jobs. When the pilot dies, the next order starts another one likewise.

    Args:
        tarball: What to unpack.
        directory: Where to; a new directory is made in it.
        init_env: Lines of bash.
        watch: Enforces the limits of the jobs.
        on_started: Called with an order's key when its process runs.
        on_ended: Called with an order's key and its outcome.
    """

    def __init__(
        self,
        tarball: Tarball,
        *,
        directory: Path,
        init_env: str,
        watch: LimitWatch,
        on_started: Callable[[str], None],
        on_ended: Callable[[str, Observation], None],
    ) -> None:
        self._tarball = tarball
        self._directory = directory
        self._log = directory / f"init-{tarball.digest}.log"  # outlives the station
        self._init_env = init_env
        self._watch = watch
        self._on_started, self._on_ended = on_started, on_ended
        self._home: Path | None = None
        self._pilot: Pilot | None = None
        self._tell_ready: Callable[[Failure | None], None] | None = None

    @property
    def template(self) -> Path:
        """The unpacked directory, after :meth:`open`."""
        if self._home is None:
            raise RuntimeError("the station has not been opened")
        return self._home / "template"

    def open(
        self, *, source: Path, cores: int, patience: Resources, on_ready: Callable[[Failure | None], None]
    ) -> None:
        """Unpack, and start the pilot behind ``init_env``.

        Args:
            source: The directory that was packed.
            cores: Threads that numerical libraries may use in a job, unless the user has said so.
            patience: How long ``init_env`` may take.
            on_ready: Called once, from another thread: with None when jobs can run, else with the reason why not.

        Raises:
            ShippingError: The tarball cannot be unpacked.
            OSError: There is no room for it.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        self._home = Path(tempfile.mkdtemp(prefix=f"unpacked-{self._tarball.digest}-", dir=self._directory))
        unpack(self._tarball.path, self.template)
        self._tell_ready = on_ready
        launch = Launch(
            command=("bash", "-c", _SCRIPT.format(init_env=self._init_env, program=_program(source, self._home))),
            directory=self.template,
            log=self._log,
            environment=_environment(source=source, template=self.template, home=self._home, cores=cores),
        )
        self._pilot = Pilot(launch, watch=self._watch, on_started=self._started, on_ended=self._ended)
        # The template can be copied when init_env is through; the first order that runs tells.
        self._pilot.run(
            Order(
                key=_READY,
                target=Command(("true",)),
                directory=self.template,
                log=self._home / "ready.log",
                results=self._home,
                resources=Resources(walltime_s=patience.walltime_s),
            )
        )

    def copy_to(self, directory: Path) -> None:
        """Make a working directory: a fresh copy of the files that shipped, as ``init_env`` left them."""
        shutil.copytree(self.template, directory, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))

    def run(self, order: Order) -> None:
        """Hand an order to the pilot."""
        rehearsal = rehearsing.current()
        if rehearsal is not None:
            limits = {"walltime_s": order.resources.walltime_s, "memory_mb": order.resources.memory_mb}
            rehearsal.note("ordered", results=str(order.results), **limits)
        self._running_pilot.run(order)

    def kill(self, key: str, verdict: Observation) -> None:
        """End an order with all its processes; its outcome will be the verdict."""
        self._running_pilot.kill(key, verdict)

    def close(self) -> None:
        """End every job and the pilot, and remove the unpacked files."""
        if self._pilot is not None:
            self._pilot.close()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)

    @property
    def _running_pilot(self) -> Pilot:
        if self._pilot is None:
            raise RuntimeError("the station has not been opened")
        return self._pilot

    def _started(self, key: str) -> None:
        if key != _READY:
            self._on_started(key)

    def _ended(self, key: str, outcome: Observation) -> None:
        if key != _READY:
            self._on_ended(key, outcome)
        elif self._tell_ready is not None:
            self._tell_ready(_why_not_ready(outcome, self._log))


def _why_not_ready(outcome: Observation, log: Path) -> Failure | None:
    """Why the first order did not run; how it ended does not matter."""
    match outcome:
        case HasFailed(Failure(cause=Cause.ENVIRONMENT | Cause.LOST | Cause.TIMEOUT | Cause.SUBMISSION) as failure):
            message = f"the environment of the jobs could not be set up by init_env: {failure.message}"
            return Failure(Cause.ENVIRONMENT, message, str(log))
        case _:
            return None


def _program(source: Path, home: Path) -> str:
    """What python runs, as words of bash."""
    rehearsal = rehearsing.current()
    if rehearsal is None:
        return shlex.quote(str(WORKER_FILE))
    return shlex.join(rehearsal.observed(WORKER_FILE, source=source, station=home))


def _environment(*, source: Path, template: Path, home: Path, cores: int) -> dict[str, str]:
    """What ``init_env`` finds: the driver's environment, its python first, and nothing of the source directory."""
    rehearsal = rehearsing.current()
    environment = dict(os.environ) if rehearsal is None else rehearsal.bare_environment()
    environment[START_DIRECTORY_VARIABLE] = ""  # no advice about files at home: they are out of reach
    environment["PATH"] = os.pathsep.join([str(_python_directory(home)), environment.get("PATH", os.defpath)])
    if environment.get("PYTHONPATH"):
        environment["PYTHONPATH"] = _moved(environment["PYTHONPATH"], source, template)
    if not any(name in environment for name in _THREAD_VARIABLES):
        environment.update(dict.fromkeys(_THREAD_VARIABLES, str(cores)))
    return environment


def _python_directory(home: Path) -> Path:
    """A directory in which ``python3`` is the driver's interpreter."""
    here = Path(sys.executable).parent
    if (here / "python3").exists():
        return here
    directory = home / "bin"
    directory.mkdir()
    # A link would hide from the interpreter which virtual environment it belongs to.
    script = directory / "python3"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    script.chmod(0o755)
    return directory


def _moved(search_path: str, source: Path, template: Path) -> str:
    """The same search path, with the source directory replaced by its unpacked copy.

    Otherwise a file that did not ship would be found where it lies at home.
    """
    moved = []
    for entry in search_path.split(os.pathsep):
        place = Path(entry).absolute()
        inside = next((root for root in (source, source.resolve()) if place.is_relative_to(root)), None)
        moved.append(str(place if inside is None else template / place.relative_to(inside)))
    return os.pathsep.join(moved)
