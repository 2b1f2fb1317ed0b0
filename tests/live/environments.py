"""Virtual environments for servers and clients, made once and kept in the clone's `.cache/live`."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "live"


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        directory: Where it is.
    """

    directory: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.program("python")

    def program(self, name: str) -> Path:
        """A program that a package brought along."""
        return self.directory / "bin" / name


def environment(
    name: str, packages: Sequence[str], *, constraints: Path | None = None, is_layered: bool = False
) -> Environment:
    """The virtual environment with these packages; made when there is none, or one with other packages.

    Args:
        name: The directory's name in the cache.
        packages: What pip is told to install.
        constraints: A file of pins for pip.
        is_layered: Whether it also has our package and everything that the running interpreter has.

    Raises:
        subprocess.CalledProcessError: pip failed; what it said is on standard error.
    """
    directory = CACHE / name
    recipe = repr((sys.version, sorted(packages), constraints and constraints.read_text(), is_layered, sys.prefix))
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    stamp = directory / ".made-of"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != digest:
            venv.create(directory, clear=True, with_pip=True, symlinks=True)
            made = Environment(directory)
            pins = ["--constraint", str(constraints)] if constraints else []
            command = [made.python, "-m", "pip", "--disable-pip-version-check", "install", "-qq", *pins, *packages]
            subprocess.run(list(map(str, command)), check=True)
            if is_layered:  # not before: pip leaves out what is there already, and its programs with it
                _layer(directory)
            stamp.write_text(digest)
    return Environment(directory)


def _layer(directory: Path) -> None:
    """Let an environment see our package and the packages of the running interpreter, behind its own."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site_packages = directory / "lib" / version / "site-packages"
    (site_packages / "layer.pth").write_text(f"{ROOT / 'src'}\n{sysconfig.get_path('purelib')}\n")


def idds_server() -> Environment:
    """What the real iDDS server needs; also runs the PanDA side."""
    release = "2.6.21"
    names = ("idds-server", "idds-common", "idds-workflow", "idds-client", "idds-doma", "idds-prompt")
    return environment("idds-server", [*(f"{name}=={release}" for name in names), "panda-client==2.2.0"])


def panda_client() -> Environment:
    """Our package with the extra ``panda``: what a user has, and what a node of the grid has."""
    return environment(
        "panda-client",
        ["idds-client", "idds-common", "idds-workflow", "panda-client"],
        constraints=ROOT / "constraints.txt",
        is_layered=True,
    )


def rucio_client() -> Environment:
    """Our package with the extra ``rucio``."""
    return environment("rucio-client", ["rucio-clients"], constraints=ROOT / "constraints.txt", is_layered=True)
