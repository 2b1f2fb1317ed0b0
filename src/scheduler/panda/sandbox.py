"""The tarball of a program's files: packing it, once for the same content, and unpacking it."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from scheduler.errors import ShippingError
from scheduler.panda.selection import Selection, SourceFile

logger = logging.getLogger(__name__)

_QUIET_S = 2.0
_DIGEST_LETTERS = 16
_COMPRESSION = 6


@dataclass(frozen=True, slots=True)
class Tarball:
    """A packed selection.

    Attributes:
        path: The file.
        digest: The beginning of the SHA-256 of its bytes. The same names, modes and contents give the same digest.
    """

    path: Path
    digest: str


class Packer:
    """Packs selections into a directory, and the same content only once.

    Args:
        directory: Where the tarballs go; created when the first is packed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._packed: dict[tuple[object, ...], Tarball] = {}

    def pack(self, selection: Selection) -> Tarball:
        """The tarball of a selection.

        Raises:
            ShippingError: A file changed or vanished meanwhile, or cannot be read.
        """
        key = (selection.root, *selection.signature)
        known = self._packed.get(key)
        if known is None or not known.path.exists():
            known = self._packed[key] = self._write(selection)
        return known

    def _write(self, selection: Selection) -> Tarball:
        self._directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".packing-", dir=self._directory)
        unfinished = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                _write_archive(stream, selection)
            with unfinished.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()[:_DIGEST_LETTERS]
            finished = self._directory / f"source-{digest}.tar.gz"
            unfinished.replace(finished)
        finally:
            unfinished.unlink(missing_ok=True)
        logger.info("packed %d files of %s into %s", len(selection.files), selection.root, finished)
        return Tarball(finished, digest)


def unpack(tarball: Path, directory: Path) -> None:
    """Unpack into a directory, which is created. Nothing is written outside of it.

    Raises:
        ShippingError: The archive is damaged, or has a member that leads outside.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(tarball) as archive:
            archive.extractall(directory, filter="data")
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise ShippingError(f"cannot unpack {tarball} into {directory}: {error}") from error


def _write_archive(stream: BinaryIO, selection: Selection) -> None:
    """Write the files in order, without anything that depends on the machine, the user or the time."""
    progress = _Progress(sum(each.size for each in selection.files))
    # The empty filename and the fixed time keep the gzip header the same.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=_COMPRESSION, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for each in selection.files:
            _add(archive, each)
            progress.count(each.size)


def _add(archive: tarfile.TarFile, file: SourceFile) -> None:
    member = tarfile.TarInfo(file.name)
    member.size = file.size
    member.mode = 0o755 if file.is_executable else 0o644
    try:
        with file.path.open("rb") as content:
            archive.addfile(member, content)
    except OSError as error:
        raise ShippingError(
            f"cannot pack {file.path}: {error}. If a running program writes it, keep it at home with "
            "exclude_source_files"
        ) from error


class _Progress:
    """Says how far the packing is, when it takes long enough that somebody wonders."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._next_line = time.monotonic() + _QUIET_S

    def count(self, size: int) -> None:
        self._done += size
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _QUIET_S
            logger.info("packing the source files: %d of %d MB", self._done >> 20, self._total >> 20)
