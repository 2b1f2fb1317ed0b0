"""What the client library ships in the grid's own tests."""

import os
import time
from pathlib import Path


def add(a, b):
    return {"sum": a + b}


def refuse(a):
    raise ValueError(f"{a} is not wanted here")


def linger(seconds):
    time.sleep(seconds)
    return "woke up"


def vanish():
    os._exit(0)


def write(text):
    Path("my_test.txt").write_text(text)
    return len(text)


def read(files):
    return {name: Path(name).read_text() for name in files}
