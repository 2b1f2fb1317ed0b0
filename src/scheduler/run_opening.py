"""Opening the run that a program works on: a new one, or the one to resume if that is still the same."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from scheduler.config import SchedulerConfig
from scheduler.engine import Engine
from scheduler.errors import ConfigurationError
from scheduler.identity import differences
from scheduler.run_directory import DATABASE, RunDirectory, find_run, read_about

logger = logging.getLogger(__name__)


class Desk:
    """Where the run's lease leaves messages for the engine. It knows the engine only, so that both can be let go."""

    def __init__(self) -> None:
        self.engine: Engine | None = None

    def lose(self) -> None:
        """Another program has taken the run over."""
        if self.engine is not None:
            self.engine.stop("another program has taken the run over")

    def take(self, request: Mapping[str, object]) -> None:
        """A reader asks for something."""
        if self.engine is None:
            return
        match request:
            case {"kind": "cancel", "trial": int(trial)}:
                self.engine.cancel_trial(trial)
            case {"kind": "stop"}:
                self.engine.stop("stopped by 'scheduler cancel'")
            case _:
                logger.warning("unknown request %r", dict(request))


def open_run(
    experiment: str, config: SchedulerConfig, about: Mapping[str, object], desk: Desk, *, may_resume: bool = True
) -> tuple[RunDirectory, bool]:
    """Open a run for writing.

    Args:
        experiment: Name of the experiment.
        config: Says where, and whether to resume.
        about: What a new run keeps of the program; its ``identity`` is what a run to resume must have, too.
        desk: Takes the messages of the run's lease.
        may_resume: Whether an earlier run may be taken up at all.

    Returns:
        The run, and whether it is an earlier one.

    Raises:
        ConfigurationError: The run to resume is another program's.
        RunLockedError: Another program works on it.
    """
    path = _find_run(experiment, config) if may_resume else None
    if path is None:
        run = RunDirectory.create(
            experiment, config.job_output_dir, config.run_dir if may_resume else None, about=about
        )
        run.hold(desk.lose, desk.take)
        logger.info("run directory: %s", run.path)
        return run, False
    run = RunDirectory.open(path)
    try:
        run.hold(desk.lose, desk.take)
        _compare(run, about["identity"])
    except BaseException:
        run.close()
        raise
    logger.info("resuming the run in %s", run.path)
    return run, True


def _find_run(experiment: str, config: SchedulerConfig) -> Path | None:
    """The run to resume, if one is wanted and there is one."""
    wanted = os.environ.get("SCHEDULER_RESUME", "")
    if wanted not in {"", "0", "1"}:
        return Path(wanted) if read_about(wanted).get("experiment") == experiment else None
    if not config.resume and wanted != "1":
        return None
    if config.run_dir is not None:
        return Path(config.run_dir) if (Path(config.run_dir) / DATABASE).is_file() else None
    return find_run(experiment, config.job_output_dir)


def _compare(run: RunDirectory, identity: object) -> None:
    """Refuse to resume a run with a program that means something else."""
    is_accepted = os.environ.get("SCHEDULER_ACCEPT_CHANGES") == "1"
    before = run.store.about()["identity"]
    grave = list(differences(before, identity, ignore_harmless=True))
    every = list(differences(before, identity, ignore_harmless=False))
    if grave or (every and not is_accepted):
        advice = (
            "mend the program, or start a new run"
            if grave
            else "mend the program, or resume with 'scheduler resume --accept-changes' to go on with these changes"
        )
        raise ConfigurationError("\n  ".join([f"the program is not the one of the run {run.path}; {advice}:", *every]))
    if every:
        run.store.note("identity", identity)
        logger.warning("going on with changes: %s", "; ".join(every))
