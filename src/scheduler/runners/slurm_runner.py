"""Slurm. Not built yet; the name exists so that programs can be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from scheduler.errors import ConfigurationError
from scheduler.runners.base_runner import BaseRunner


class SlurmRunner(BaseRunner):
    """Will submit jobs to Slurm. It cannot be made yet.

    Args:
        partition: Partition to submit to.
        time_limit: Time limit of a job, ``HH:MM:SS``.
        memory: Memory of a job, with a unit.
        cpus_per_task: Cores of a job.
        config: Further settings.

    Raises:
        ConfigurationError: Always; it names what can be used instead.
    """

    def __new__(
        cls,
        partition: str = "batch",
        time_limit: str = "01:00:00",
        memory: str = "4G",
        cpus_per_task: int = 1,
        config: Mapping[str, object] | None = None,
    ) -> NoReturn:
        """Refuse."""
        del time_limit, memory, cpus_per_task, config
        raise ConfigurationError(
            f"SlurmRunner(partition={partition!r}): submitting to Slurm is not built yet. Use JobLibRunner(n_jobs=...) "
            "inside one allocation (salloc, sbatch), or PanDAiDDSRunner(service='local') for the embedded site"
        )
