"""Adapters to the backends that run jobs. The runner classes are loaded on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.runners.base_runner import BaseRunner as BaseRunner
    from scheduler.runners.joblib_runner import JobLibRunner as JobLibRunner
    from scheduler.runners.pandaidds_runner import PanDAiDDSRunner as PanDAiDDSRunner
    from scheduler.runners.slurm_runner import SlurmRunner as SlurmRunner

_HOMES = {
    "BaseRunner": "scheduler.runners.base_runner",
    "JobLibRunner": "scheduler.runners.joblib_runner",
    "PanDAiDDSRunner": "scheduler.runners.pandaidds_runner",
    "SlurmRunner": "scheduler.runners.slurm_runner",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'scheduler.runners' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
