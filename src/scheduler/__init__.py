"""Optimize expensive, multi-step simulations with Ax on local cores, Slurm or the PanDA/iDDS grid.

The public names are loaded on first use, so that ``import scheduler`` costs milliseconds: importing Ax takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.ax_scheduler import AxScheduler as AxScheduler
    from scheduler.core.specs import Resources as Resources
    from scheduler.errors import Infeasible as Infeasible
    from scheduler.job.job import Job as Job
    from scheduler.job.job import JobType as JobType
    from scheduler.job.job_state import JobState as JobState
    from scheduler.job.multi_steps_job import MultiStepsFunction as MultiStepsFunction
    from scheduler.runners.base_runner import BaseRunner as BaseRunner
    from scheduler.runners.joblib_runner import JobLibRunner as JobLibRunner
    from scheduler.runners.pandaidds_runner import PanDAiDDSRunner as PanDAiDDSRunner
    from scheduler.runners.slurm_runner import SlurmRunner as SlurmRunner
    from scheduler.trial.trial import Trial as Trial
    from scheduler.trial.trial_state import TrialState as TrialState

_HOMES = {
    "AxScheduler": "scheduler.ax_scheduler",
    "BaseRunner": "scheduler.runners.base_runner",
    "Infeasible": "scheduler.errors",
    "Job": "scheduler.job.job",
    "JobLibRunner": "scheduler.runners.joblib_runner",
    "JobState": "scheduler.job.job_state",
    "JobType": "scheduler.job.job",
    "MultiStepsFunction": "scheduler.job.multi_steps_job",
    "PanDAiDDSRunner": "scheduler.runners.pandaidds_runner",
    "Resources": "scheduler.core.specs",
    "SlurmRunner": "scheduler.runners.slurm_runner",
    "Trial": "scheduler.trial.trial",
    "TrialState": "scheduler.trial.trial_state",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - computed from the one table


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'scheduler' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
