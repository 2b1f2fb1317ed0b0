"""The settings of a local runner."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from scheduler.runners.commands import Engine

BackendName = Literal["loky", "multiprocessing", "threading"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """Checked settings.

    Attributes:
        container_engine: The engine that the user wants; None for the first one installed.
        tmp_dir: Where worker processes live; None for the system's directory.
    """

    container_engine: Engine | None = None
    tmp_dir: Path | None = None
