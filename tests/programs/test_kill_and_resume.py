from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("kill_and_resume.py")
KILLS = 15
TRIALS = 120


def test_that_a_driver_killed_again_and_again_loses_and_repeats_nothing(tmp_path):
    process = subprocess.run(
        [sys.executable, "-W", "ignore", PROGRAM, tmp_path, str(KILLS), "1", str(TRIALS)],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )

    assert process.returncode == 0, process.stdout + process.stderr[-3000:]
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["problems"] == []
    assert found["kills"] >= KILLS / 3, "the run was over before it could be disturbed"
