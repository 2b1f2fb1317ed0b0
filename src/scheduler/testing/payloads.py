"""Functions that jobs of tests run. They import what they need themselves, so that they can be shipped anywhere."""

from __future__ import annotations


def add(x: float, y: float) -> dict[str, float]:
    """A job that ends well."""
    return {"sum": x + y}


def echo(value: object) -> dict[str, object]:
    """A job that returns what it is given."""
    return {"value": value}


def look_up(values: dict[object, object], key: object) -> dict[str, object]:
    """A job that gets what other jobs returned, by job key."""
    return {"value": values[key]}


def count_names(parameterization: dict[str, object]) -> dict[str, int]:
    """A job that takes its arguments as one mapping."""
    return {"names": len(parameterization)}


def touch(path: str) -> dict[str, str]:
    """A job that leaves a mark."""
    import pathlib

    pathlib.Path(path).touch()
    return {"path": path}


def fail(message: str) -> None:
    """A job that raises.

    Raises:
        ValueError: Always.
    """
    raise ValueError(message)


def return_a_set() -> dict[str, object]:
    """A job whose result JSON cannot express."""
    return {"members": {1, 2}}


def say(text: str) -> dict[str, str]:
    """A job that prints, and tells where it runs."""
    import os

    print(text)  # noqa: T201 - what the log is for
    return {"directory": os.getcwd()}  # noqa: PTH109 - the function stands for a user's


def leave(number: int) -> None:
    """A job whose process ends without a word."""
    import os

    os._exit(number)


def be_killed(number: int) -> None:
    """A job whose process gets a signal."""
    import os

    os.kill(os.getpid(), number)


def sleep(seconds: float) -> dict[str, float]:
    """A job that takes its time."""
    import time

    time.sleep(seconds)
    return {"slept": seconds}


def wait_for_file(path: str, patience_s: float) -> dict[str, str]:
    """A job that ends when a file appears.

    Raises:
        TimeoutError: It did not.
    """
    import pathlib
    import time

    deadline = time.monotonic() + patience_s
    while not pathlib.Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not appear within {patience_s} s")
        time.sleep(0.005)
    return {"found": path}


def start_family(pids_file: str, seconds: float) -> None:
    """A job with a child and a grandchild in a session of its own; writes the three process ids to a file."""
    import os
    import pathlib
    import subprocess
    import sys
    import time

    sleep = f"import time; time.sleep({seconds!r})"
    script = (
        "import os, subprocess, sys, time;"
        f"grandchild = subprocess.Popen([sys.executable, '-c', {sleep!r}], start_new_session=True);"
        f"print(os.getpid(), grandchild.pid, flush=True); {sleep}"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None  # noqa: S101 - it is a pipe
        pids = f"{os.getpid()} {child.stdout.readline()}"
        pathlib.Path(pids_file + ".new").write_text(pids, encoding="ascii")
        pathlib.Path(pids_file + ".new").rename(pids_file)
        time.sleep(seconds)


def take_memory(megabytes: int, seconds: float) -> dict[str, int]:
    """A job that fills memory and holds it."""
    import time

    data = bytearray(megabytes * 1_000_000)
    time.sleep(seconds)
    return {"bytes": len(data)}
