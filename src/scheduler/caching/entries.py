"""The directory of the step cache: a file for each result, named after its key.

A file appears as a whole or not at all, by write and rename, so that programs may share the directory and may be killed
at any instant. What cannot be read is a miss and a warning: it is neither an error nor a result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

FORMAT = 1
"""The layout of an entry and the meaning of its key; another number is another cache."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A recorded result.

    Attributes:
        result: What the payload returned, made of JSON types.
        run: The run that computed it.
        trial: The trial in that run.
        step: The step in that run.
        at: When it was recorded, ISO 8601.
    """

    result: object
    run: str
    trial: int
    step: str
    at: str


class StepCache:
    """Results by key. For many programs at once; nothing is created before the first result is put in.

    Args:
        directory: Where the files are.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path_of(self, key: str) -> Path:
        """The file of a key."""
        return self.directory / key[:2] / f"{key}.json"

    def take(self, key: str) -> Entry | None:
        """The recorded result; None if there is none, or if its file is damaged."""
        path = self.path_of(key)
        try:
            return _decode(json.loads(path.read_bytes()), key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s in the cache cannot be used (%s); the job runs", path, error or type(error).__name__)
            return None

    def put(self, key: str, entry: Entry) -> None:
        """Record a result. If two programs do so at once, one of the two stays: either is right.

        Raises:
            OSError: It cannot be written.
            ValueError: The result cannot be written as JSON.
            TypeError: As before.
        """
        path = self.path_of(key)
        data = _encode(entry, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{key}.{uuid.uuid4().hex}.unfinished")
        try:
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise


def _encode(entry: Entry, key: str) -> bytes:
    record = json.loads(json.dumps({"format": FORMAT, "key": key, **asdict(entry)}, allow_nan=False))
    return json.dumps({**record, "checksum": _checksum(record)}, indent=1).encode()


def _decode(record: object, key: str) -> Entry:
    if not isinstance(record, dict):
        raise ValueError("it is no entry")  # noqa: TRY004 - the content of a file, not an argument
    content = {name: value for name, value in record.items() if name != "checksum"}
    if record.get("checksum") != _checksum(content) or content.pop("key") != key or content.pop("format") != FORMAT:
        raise ValueError("it is not what was written")
    return Entry(**content)  # the checksum says that we wrote it


def _checksum(record: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
