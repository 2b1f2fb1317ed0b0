"""Datasets: named sets of files that one step produces and others read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from scheduler.core.names import check_dataset_name, did_you_mean
from scheduler.errors import DatasetError

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """A file of a dataset.

    Attributes:
        name: Its name in the catalogue.
        bytes: Its size.
        adler32: Its checksum, eight hexadecimal digits.
        producer: Whoever added it; opaque, the same for all files of one producer.
    """

    name: str
    bytes: int
    adler32: str
    producer: str = ""


class DatasetCatalogue(Protocol):
    """Where datasets are kept.

    A dataset is created open, takes files, and is closed when it is complete. Everything raises
    :class:`~scheduler.errors.DatasetError` with the name of the dataset when the catalogue refuses. The contract is
    written as tests in ``scheduler.testing.CatalogueContract``, which every implementation passes.
    """

    def exists(self, dataset: str) -> bool:
        """Whether there is a dataset of this name."""

    def is_closed(self, dataset: str) -> bool:
        """Whether the dataset is complete."""

    def create(self, dataset: str) -> None:
        """Make an empty, open dataset. It must not exist."""

    def add(self, dataset: str, files: Mapping[str, Path], *, producer: str = "") -> None:
        """Move files into an open dataset: all of them or none.

        Args:
            dataset: The dataset.
            files: Name in the catalogue -> the file as it lies now.
            producer: Whoever made them.
        """

    def add_numbered(self, dataset: str, files: Sequence[Path], *, name: str, producer: str) -> tuple[str, ...]:
        """Move files into an open dataset as ``<dataset>_<6 digits>.<name>``, numbered on from the last one.

        Numbers begin with 1 and are never used twice, also not after :meth:`withdraw`.

        Returns:
            Their names in the catalogue, in the order given.
        """

    def close(self, dataset: str) -> None:
        """Declare an open dataset complete. Further additions are refused."""

    def reopen(self, dataset: str) -> None:
        """Let a dataset take files again: a producer runs again, or several producers share the name."""

    def withdraw(self, dataset: str, producer: str) -> tuple[str, ...]:
        """Take out of an open dataset what a producer added before, because it runs again.

        Returns:
            The names of the files that are gone.
        """

    def files(self, dataset: str) -> tuple[DatasetFile, ...]:
        """The files of a dataset, numbered ones in the order of their numbers."""

    def digests(self, dataset: str) -> tuple[str, ...] | None:
        """Digests of the files of a closed dataset, in their order, that differ when contents do; None: there are none.

        An Adler-32 is too weak for that: the texts ``131`` and ``212`` have the same.
        """

    def stage(self, dataset: str, directory: Path) -> list[str]:
        """Copy the files of a closed dataset into a directory.

        Returns:
            Their names there, in order.

        Raises:
            DatasetError: The dataset is not closed, the directory has a file of such a name, or a file is missing or
                does not have its size and checksum.
        """


@dataclass(frozen=True, slots=True)
class _Record:
    """What the catalogue knows of a dataset.

    Attributes:
        is_closed: Whether it is complete.
        next_number: The number of the next file that is numbered.
        files: What is in it.
    """

    is_closed: bool = False
    next_number: int = 1
    files: tuple[DatasetFile, ...] = ()


class LocalCatalogue:
    """Datasets in a local directory: ``<root>/<dataset>/dataset.json`` and ``<root>/<dataset>/files/``.

    A file belongs to a dataset once it is in ``dataset.json``, which is replaced as a whole: a reader, and a program
    that starts after a crash, sees a file completely or not at all. For one driver at a time; thread-safe.

    Args:
        root: The directory; created with the first dataset.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.RLock()

    def exists(self, dataset: str) -> bool:
        """Whether there is a dataset of this name."""
        return self._record_file(dataset).exists()

    def is_closed(self, dataset: str) -> bool:
        """Whether the dataset is complete."""
        return self._read(dataset).is_closed

    def create(self, dataset: str) -> None:
        """Make an empty, open dataset.

        Raises:
            DatasetError: It exists.
            ConfigurationError: Rucio would refuse the name.
        """
        check_dataset_name(dataset)
        with self._lock:
            if self.exists(dataset):
                raise DatasetError(f"dataset '{dataset}' exists already in {self.root}")
            self._files_directory(dataset).mkdir(parents=True, exist_ok=True)
            self._write(dataset, _Record())

    def link(self, other: LocalCatalogue, dataset: str) -> None:
        """Have a dataset of another catalogue here, too, if it is there and not here; what is written here stays here.

        Files of datasets are replaced and never changed, so the disk keeps them once where it can.

        Raises:
            DatasetError: It cannot be read, or not be written here.
        """
        if self.exists(dataset) or not other.exists(dataset):
            return
        target = self._directory(dataset)
        draft = target.with_name(f".{target.name}.unfinished")
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.parent.mkdir(parents=True, exist_ok=True)
            unfinished = shutil.ignore_patterns("*.unfinished")
            shutil.copytree(other._directory(dataset), draft, ignore=unfinished, copy_function=_link_or_copy)
            draft.replace(target)
        except OSError as error:
            raise DatasetError(f"cannot take dataset '{dataset}' from {other.root}: {error}") from error

    def add(self, dataset: str, files: Mapping[str, Path], *, producer: str = "") -> None:
        """Move files into an open dataset: all of them or none.

        Raises:
            DatasetError: The dataset is unknown or closed, or has a file of this name.
        """
        with self._lock:
            self._write(dataset, self._with_files(dataset, files, producer))

    def add_numbered(self, dataset: str, files: Sequence[Path], *, name: str, producer: str) -> tuple[str, ...]:
        """Move files into an open dataset as ``<dataset>_<6 digits>.<name>``, numbered on from the last one.

        Numbers begin with 1 and are never used twice, also not after :meth:`withdraw`.

        Returns:
            Their names in the catalogue, in the order given.
        """
        with self._lock:
            first = self._read(dataset).next_number
            named = {
                f"{dataset.replace('/', '_')}_{number:06d}.{name}": file
                for number, file in enumerate(files, start=first)
            }
            record = self._with_files(dataset, named, producer)
            self._write(dataset, replace(record, next_number=first + len(files)))
            return tuple(named)

    def close(self, dataset: str) -> None:
        """Declare a dataset complete.

        Raises:
            DatasetError: It is unknown or closed already.
        """
        with self._lock:
            self._write(dataset, replace(self._open_record(dataset), is_closed=True))

    def reopen(self, dataset: str) -> None:
        """Let a dataset take files again: a producer runs again, or several producers share the name."""
        with self._lock:
            self._write(dataset, replace(self._read(dataset), is_closed=False))

    def withdraw(self, dataset: str, producer: str) -> tuple[str, ...]:
        """Take out what a producer added before, because it runs again.

        Returns:
            The names of the files that are gone.
        """
        with self._lock:
            record = self._open_record(dataset)
            gone = tuple(each.name for each in record.files if each.producer == producer)
            if gone:
                kept = tuple(each for each in record.files if each.producer != producer)
                self._write(dataset, replace(record, files=kept))
            for name in gone:
                (self._files_directory(dataset) / name).unlink(missing_ok=True)
            return gone

    def files(self, dataset: str) -> tuple[DatasetFile, ...]:
        """The files of a dataset, in the order in which they were added.

        Raises:
            DatasetError: It is unknown.
        """
        return self._read(dataset).files

    def stage(self, dataset: str, directory: Path) -> list[str]:
        """Copy the files of a dataset into a directory.

        Copies, not links: a job may write to its inputs, as it may on the grid.

        Raises:
            DatasetError: The dataset is unknown or not complete, a file is missing or was changed, or the directory has
                a file of this name.
        """
        files = self._complete_files(dataset)
        for file in files:
            self._stage_file(dataset, file, directory)
        return [file.name for file in files]

    def digests(self, dataset: str) -> tuple[str, ...]:
        """SHA-256 of the files as they are now.

        Raises:
            DatasetError: The dataset is unknown or not complete, or a file cannot be read.
        """
        return tuple(self._digest(dataset, file) for file in self._complete_files(dataset))

    def _complete_files(self, dataset: str) -> tuple[DatasetFile, ...]:
        record = self._read(dataset)
        if not record.is_closed:
            raise DatasetError(
                f"dataset '{dataset}' is not complete: its producer has not finished, or one of several failed"
            )
        return record.files

    def _digest(self, dataset: str, file: DatasetFile) -> str:
        try:
            with (self._files_directory(dataset) / file.name).open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise DatasetError(f"cannot read '{file.name}' of dataset '{dataset}': {error}") from error

    def _stage_file(self, dataset: str, file: DatasetFile, directory: Path) -> None:
        source = self._files_directory(dataset) / file.name
        try:
            with source.open("rb") as stream, (directory / file.name).open("xb") as copy:
                size, checksum = _copy(stream.read, copy.write)
        except FileExistsError as error:
            raise DatasetError(f"cannot stage {source}: {directory} has a file '{file.name}' already") from error
        except OSError as error:
            raise DatasetError(f"cannot stage '{file.name}' of dataset '{dataset}': {error}") from error
        if (size, checksum) != (file.bytes, file.adler32):
            raise DatasetError(
                f"{source} of dataset '{dataset}' was changed: it has {size} bytes and checksum {checksum}, "
                f"registered are {file.bytes} bytes and {file.adler32}; run its producer again"
            )

    def _with_files(self, dataset: str, files: Mapping[str, Path], producer: str) -> _Record:
        """Move files into place and return the record that will make them part of the dataset."""
        record = self._open_record(dataset)
        taken = {each.name for each in record.files}.intersection(files)
        if taken:
            raise DatasetError(f"dataset '{dataset}' has a file '{min(taken)}' already")
        for name in files:
            check_dataset_name(name)
        added = [self._take(dataset, name, path, producer) for name, path in files.items()]
        return replace(record, files=(*record.files, *added))

    def _take(self, dataset: str, name: str, path: Path, producer: str) -> DatasetFile:
        target = self._files_directory(dataset) / name
        try:
            size, checksum = _measure(path)
            _move(path, target)
        except OSError as error:
            raise DatasetError(f"cannot move {path} into dataset '{dataset}': {error}") from error
        return DatasetFile(name, size, checksum, producer)

    def _open_record(self, dataset: str) -> _Record:
        record = self._read(dataset)
        if record.is_closed:
            raise DatasetError(f"dataset '{dataset}' is closed: it is complete and takes no more files")
        return record

    def _read(self, dataset: str) -> _Record:
        try:
            stored = json.loads(self._record_file(dataset).read_bytes())
        except FileNotFoundError:
            raise DatasetError(
                f"dataset '{dataset}' is unknown in {self.root}{did_you_mean(dataset, self._names())}"
            ) from None
        files = tuple(DatasetFile(**each) for each in stored["files"])
        return _Record(stored["is_closed"], stored["next_number"], files)

    def _write(self, dataset: str, record: _Record) -> None:
        target = self._record_file(dataset)
        unfinished = target.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"dataset": dataset, **asdict(record)}, indent=1))
        unfinished.replace(target)

    def _names(self) -> list[str]:
        return [unquote(path.parent.name) for path in self.root.glob("*/dataset.json")]

    def _directory(self, dataset: str) -> Path:
        return self.root / quote(dataset, safe="")  # a name may contain '/', and 'x' is another dataset than 'x/'

    def _files_directory(self, dataset: str) -> Path:
        return self._directory(dataset) / "files"

    def _record_file(self, dataset: str) -> Path:
        return self._directory(dataset) / "dataset.json"


def _measure(path: Path) -> tuple[int, str]:
    """Size and checksum of a file."""
    with path.open("rb") as stream:
        return _copy(stream.read, len)


def _copy(read: Callable[[int], bytes], write: Callable[[bytes], object]) -> tuple[int, str]:
    """Copy in chunks; size and checksum of what went by."""
    size, checksum = 0, 1
    while chunk := read(_CHUNK):
        write(chunk)
        size += len(chunk)
        checksum = zlib.adler32(chunk, checksum)
    return size, f"{checksum:08x}"


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _move(path: Path, target: Path) -> None:
    """Move a file, also between file systems, so that it is never seen half-written under its new name."""
    if not path.is_symlink():  # what a link leads to is somebody else's and stays there
        try:
            path.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            return
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.copyfile(path, unfinished)
    unfinished.replace(target)
    path.unlink()
