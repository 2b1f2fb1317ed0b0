"""Which packages are installed, asked of their metadata: none of them is imported."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from scheduler.doctor.checks import Check, Verdict

_OLDEST_PYTHON = (3, 11)
_OLDEST_AX, _FIRST_UNKNOWN_AX = (1, 3), (1, 5)
_REQUIRED = ("botorch", "loky", "cloudpickle", "psutil", "rich", "click")
_PANDA = ("idds-client", "idds-common", "idds-workflow", "panda-client")
_RUCIO = ("rucio-clients",)


def examine_installation(*, needs_panda: bool, needs_rucio: bool) -> Iterator[Check]:
    """Python, the scheduler, and the packages that it needs or can use.

    Args:
        needs_panda: Whether a PanDA or iDDS service is configured.
        needs_rucio: Whether a Rucio server is configured.
    """
    yield _python()
    yield from _scheduler()
    yield _ax(_version("ax-platform"))
    yield _torch(_version("torch"), has_cuda=_has_cuda_packages())
    for name in _REQUIRED:
        yield _required(name, _version(name))
    for name in _PANDA:
        yield _optional(name, _version(name), extra="panda", is_needed=needs_panda)
    for name in _RUCIO:
        yield _optional(name, _version(name), extra="rucio", is_needed=needs_rucio)


def _python() -> Check:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info >= _OLDEST_PYTHON:
        return Check("python", Verdict.OK, found)
    return Check("python", Verdict.FAIL, found, "use Python 3.11 or newer")


def _scheduler() -> Iterator[Check]:
    own = _version("aid2e-scheduler")
    yield Check("aid2e-scheduler", Verdict.OK, own or "runs from its sources, not installed")
    other = _version("scheduler")
    if other is not None:
        remedy = "pip uninstall scheduler, then pip install --force-reinstall aid2e-scheduler"
        yield Check("scheduler", Verdict.FAIL, f"{other}: another project of the same import name", remedy)


def _ax(version: str | None) -> Check:
    if version is None:
        return _required("ax-platform", None)
    release = _release(version)
    if _OLDEST_AX <= release < _FIRST_UNKNOWN_AX:
        return Check("ax-platform", Verdict.OK, version)
    verdict = Verdict.FAIL if release < _OLDEST_AX else Verdict.WARN
    return Check("ax-platform", verdict, version, "pip install 'ax-platform>=1.3,<1.5', which is what is tested")


def _torch(version: str | None, *, has_cuda: bool) -> Check:
    if version is None:
        return _required("torch", None)
    if "+cpu" in version or not has_cuda:
        return Check("torch", Verdict.OK, f"{version}, a CPU build")
    return Check("torch", Verdict.OK, f"{version}, a CUDA build of several GB; a CPU build is enough")


def _required(name: str, version: str | None) -> Check:
    if version is not None:
        return Check(name, Verdict.OK, version)
    return Check(name, Verdict.FAIL, "not installed", f"pip install {name}, or install aid2e-scheduler again")


def _optional(name: str, version: str | None, *, extra: str, is_needed: bool) -> Check:
    if version is not None:
        return Check(name, Verdict.OK, version)
    if not is_needed:
        return Check(name, Verdict.OK, "not installed, and no service is configured that needs it")
    remedy = f"pip install 'aid2e-scheduler[{extra}]'"
    return Check(name, Verdict.FAIL, "not installed, but a service is configured", remedy)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    """Major and minor number."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _has_cuda_packages() -> bool:
    return any(each.name.startswith("nvidia-c") for each in metadata.distributions())
