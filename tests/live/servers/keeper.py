"""Runs a command, and ends it with everything it started as soon as standard input closes.

The one who started the keeper holds the other end: however that process ends, its servers end too.
"""

from __future__ import annotations

import subprocess
import sys
import threading

import psutil

_GRACE_S = 5.0


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        root = psutil.Process(process.pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask politely, then kill, until nobody is left."""
    family = _family(process)
    process.terminate()
    _, stubborn = psutil.wait_procs(family[:1], timeout=_GRACE_S)
    for each in [*stubborn, *family[1:], *_family(process)]:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue


def _end_with_stdin(process: subprocess.Popen[bytes]) -> None:
    while sys.stdin.buffer.read(1):
        pass
    _end(process)


def main(command: list[str]) -> int:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_stdin, args=(process,), daemon=True).start()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
