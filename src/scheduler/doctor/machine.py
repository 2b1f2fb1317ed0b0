"""The machine: what local runners may use, and where runs would be kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from scheduler.doctor.checks import Check, Verdict
from scheduler.runners.commands import ENGINES

_MOUNTS = Path("/proc/mounts")
_NETWORK_FILE_SYSTEMS = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "gpfs",
        "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "panfs", "smb3", "smbfs", "wekafs",
    }
)  # fmt: skip
_LITTLE_MEMORY_MB = 2000
_LITTLE_SPACE_MB = 2000
_BYTES_PER_MB = 1_000_000


def examine_machine(directory: Path) -> Iterator[Check]:
    """Cores, memory, container engines and the directory that programs are started in."""
    yield _cores()
    yield _memory()
    yield _engines()
    yield _directory(directory)
    yield _space(directory)


def _cores() -> Check:
    import loky

    usable, all_of_them = loky.cpu_count(), os.cpu_count() or 1
    limited = f" of {all_of_them}; the others are kept from this process" if usable < all_of_them else ""
    return Check("cores", Verdict.OK, f"{usable}{limited}: what n_jobs=-1 and the embedded site take")


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    free, total = memory.available // _BYTES_PER_MB, memory.total // _BYTES_PER_MB
    found = f"{free} MB free of {total} MB"
    if free >= _LITTLE_MEMORY_MB:
        return Check("memory", Verdict.OK, found)
    return Check("memory", Verdict.WARN, found, "end other programs: Ax alone takes 500 MB, and each job its own")


def _engines() -> Check:
    installed = [engine for engine in ENGINES if shutil.which(engine)]
    found = ", ".join(installed) or "none; only container objectives need one"
    return Check("container engines", Verdict.OK, found)


def _directory(directory: Path) -> Check:
    if not os.access(directory, os.W_OK):
        remedy = "start programs elsewhere, or set config['job_output_dir'] to a directory of yours"
        return Check("directory", Verdict.FAIL, f"{directory} cannot be written to", remedy)
    kind = file_system_of(directory.resolve(), _MOUNTS.read_text()) if _MOUNTS.exists() else None
    if kind not in _NETWORK_FILE_SYSTEMS:
        return Check("directory", Verdict.OK, f"{directory}" + (f" ({kind})" if kind else ""))
    remedy = "set config['job_output_dir'] to a local disk: the run's database needs locks that network disks may lack"
    return Check("directory", Verdict.WARN, f"{directory} is on a network file system ({kind})", remedy)


def _space(directory: Path) -> Check:
    free = shutil.disk_usage(directory).free // _BYTES_PER_MB
    if free >= _LITTLE_SPACE_MB:
        return Check("disk space", Verdict.OK, f"{free} MB free")
    return Check(
        "disk space", Verdict.WARN, f"{free} MB free", "make room, or set config['job_output_dir'] to a larger disk"
    )


def file_system_of(path: Path, mounts: str) -> str | None:
    """The kind of file system that a path is on.

    Args:
        path: An absolute path without links.
        mounts: What ``/proc/mounts`` says.
    """
    best, kind = -1, None
    for line in mounts.splitlines():
        fields = line.split(" ")
        point = Path(fields[1].encode().decode("unicode_escape"))  # a blank in a name is written \040
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind
