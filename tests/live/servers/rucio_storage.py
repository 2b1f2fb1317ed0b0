"""What JEDI and the pilot do with Rucio: one operation a call, in an environment that has the Rucio client.

As with a real PanDA, a task's output container holds a dataset with the task's number at the end of its name.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rucio.client import Client
from rucio.client.downloadclient import DownloadClient
from rucio.client.uploadclient import UploadClient
from rucio.common.exception import DataIdentifierAlreadyExists, DataIdentifierNotFound


def _scope(name: str) -> str:
    return ".".join(name.split(".")[:2])


def create(name: str, task: str) -> None:
    """Register a container, unless there is one, and the task's dataset in it."""
    client, scope = Client(), _scope(name)
    try:
        client.add_container(scope, name)
    except DataIdentifierAlreadyExists:
        sys.stderr.write(f"container {name} exists\n")
    client.add_dataset(scope, f"{name}.{task}")
    client.add_datasets_to_container(scope, name, [{"scope": scope, "name": f"{name}.{task}"}])


def has(name: str) -> bool:
    """Whether there is such a dataset or container."""
    try:
        Client().get_did(_scope(name), name)
    except DataIdentifierNotFound:
        return False
    return True


def files(name: str) -> list[str]:
    """The names of the files in it."""
    return sorted(file["name"] for file in Client().list_files(_scope(name), name))


def stage_in(name: str, directory: str, *names: str) -> None:
    """Download files; Rucio compares the checksums."""
    wanted = [{"did": f"{_scope(name)}:{each}", "base_dir": directory, "no_subdir": True} for each in names]
    DownloadClient().download_dids(wanted)


def stage_out(name: str, task: str, rse: str, path: str) -> None:
    """Upload a file into the task's dataset."""
    scope = _scope(name)
    UploadClient().upload(
        [
            {
                "path": str(Path(path).resolve()),
                "rse": rse,
                "did_scope": scope,
                "did_name": Path(path).name,
                "dataset_scope": scope,
                "dataset_name": f"{name}.{task}",
                "register_after_upload": True,
            }
        ]
    )


if __name__ == "__main__":
    verbs = {each.__name__: each for each in (create, has, files, stage_in, stage_out)}
    answer = verbs[sys.argv[1]](*sys.argv[2:])
    sys.stdout.write(json.dumps(answer))
