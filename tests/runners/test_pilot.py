"""A pilot process and its jobs, in good and bad times."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import cloudpickle
import psutil
import pytest

from scheduler.core.failures import Cause
from scheduler.core.observations import HasFailed, HasSucceeded, WasCancelled
from scheduler.core.specs import Resources
from scheduler.runners.limit_watch import LimitWatch
from scheduler.runners.pilot import (
    WORKER_FILE,
    Command,
    Launch,
    Order,
    PickledFunction,
    Pilot,
    ShippedFunction,
    worker_command,
)
from scheduler.testing.bench import is_alive

PATIENCE_S = 30


class Cockpit:
    """A pilot and what it told."""

    def __init__(self, directory):
        self.directory = directory
        self.started = set()
        self.outcomes = {}
        self.changed = threading.Condition()
        self.watch = LimitWatch()
        self.pilot = None

    def launch(self, command=None, environment=None):
        home = self.directory / "pilot"
        home.mkdir()
        launch = Launch(command or worker_command(), directory=home, log=home / "log", environment=environment)
        self.pilot = Pilot(launch, watch=self.watch, on_started=self.note_start, on_ended=self.note_end)

    def note_start(self, key):
        with self.changed:
            self.started.add(key)
            self.changed.notify_all()

    def note_end(self, key, outcome):
        with self.changed:
            assert key not in self.outcomes, f"{key} ended twice"
            self.outcomes[key] = outcome
            self.changed.notify_all()

    def order(self, key, target, **more):
        if self.pilot is None:
            self.launch()
        directory = self.directory / key
        directory.mkdir(exist_ok=True)
        self.pilot.run(Order(key, target, directory=directory, log=directory / "log.txt", **more))

    def wait_for(self, look):
        with self.changed:
            assert self.changed.wait_for(look, PATIENCE_S), f"only {self.started} and {self.outcomes}"

    def wait_for_start(self, key):
        self.wait_for(lambda: key in self.started)

    def outcome(self, key):
        self.wait_for(lambda: key in self.outcomes)
        return self.outcomes[key]

    def failure(self, key):
        outcome = self.outcome(key)
        assert isinstance(outcome, HasFailed), outcome
        return outcome.failure

    def process(self):
        """The running pilot process."""
        [process] = [p for p in psutil.Process().children() if str(WORKER_FILE) in p.cmdline()]
        return process

    def wait_until_gone(self, pids):
        for pid in pids:
            wait_until(lambda pid=pid: not is_alive(pid), f"process {pid} is gone")


def wait_until(is_true, what):
    """For what rings no bell: the state of other processes and their files."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline, f"not yet: {what}"
        time.sleep(0.01)


@pytest.fixture
def cockpit(tmp_path):
    cockpit = Cockpit(tmp_path)
    yield cockpit
    if cockpit.pilot is not None:
        cockpit.pilot.close()
    cockpit.watch.close()


def by_value(call):
    return PickledFunction(cloudpickle.dumps(call), tuple(sys.path), call.__name__)


def shipped(root, text, *, file="prog.py", qualname="objective"):
    root.mkdir(exist_ok=True)
    (root / file).write_text(text)
    return ShippedFunction(root, file, file.removesuffix(".py"), qualname)


@by_value
def double(x):
    return {"y": 2 * x}


@by_value
def hold(seconds=600):
    import time

    time.sleep(seconds)


# -------------------------------------------------------------------------------------------------- loading


def test_that_a_function_is_loaded_once_and_each_job_starts_from_there(cockpit, tmp_path):
    text = """
import os
loaded_by = os.getpid()
calls = []
def objective(x):
    calls.append(x)
    return {"loaded_by": loaded_by, "pid": os.getpid(), "calls": calls}
"""
    target = shipped(tmp_path / "src", text)

    for key in "ab":
        cockpit.order(key, target, arguments={"x": key})
    first, second = (cockpit.outcome(key).result for key in "ab")

    assert first["loaded_by"] == second["loaded_by"] not in (first["pid"], second["pid"])
    assert first["pid"] != second["pid"]
    assert (first["calls"], second["calls"]) == (["a"], ["b"])


def test_that_a_module_that_does_not_ship_is_named_and_the_pilot_goes_on(own_children, cockpit, tmp_path):
    cockpit.order("broken", shipped(tmp_path / "src", "import catalog\n"))
    failure = cockpit.failure("broken")
    cockpit.order("sound", double, arguments={"x": 2})

    assert failure.cause is Cause.ENVIRONMENT
    assert "objective of prog.py could not be loaded: ModuleNotFoundError: No module named 'catalog'" in failure.message
    assert "import catalog" in Path(failure.log).read_text()
    assert cockpit.outcome("sound") == HasSucceeded({"y": 4})
    assert len(own_children()) == 1


def test_that_a_load_that_failed_is_tried_again_for_the_next_job(cockpit, tmp_path):
    target = shipped(tmp_path / "src", "import late_comer\ndef objective(): return late_comer.VALUE\n")
    cockpit.order("early", target)
    cockpit.failure("early")
    (tmp_path / "src" / "late_comer.py").write_text("VALUE = 1\n")

    cockpit.order("late", target)

    assert cockpit.outcome("late") == HasSucceeded(1)


def test_that_a_module_that_kills_the_interpreter_is_a_trouble_of_the_environment(cockpit, tmp_path):
    text = "import os, sys\nprint('libGeant is missing', file=sys.stderr, flush=True)\nos._exit(7)\n"

    cockpit.order("broken", shipped(tmp_path / "src", text))
    failure = cockpit.failure("broken")

    assert failure.cause is Cause.ENVIRONMENT
    assert "exit code 7" in failure.message
    assert "libGeant is missing" in failure.message
    assert "libGeant is missing" in Path(failure.log).read_text()


def test_that_an_interpreter_that_does_not_exist_is_a_trouble_of_the_environment(cockpit):
    cockpit.launch(command=("/no/such/python", "pilot"))

    for key in "ab":
        cockpit.order(key, double, arguments={"x": 1})
        assert cockpit.failure(key).cause is Cause.ENVIRONMENT
        assert "/no/such/python" in cockpit.failure(key).message


def test_that_a_shell_that_ends_before_the_worker_starts_tells_its_last_words(cockpit):
    cockpit.launch(command=("bash", "-c", "echo no such mount >&2; exit 5"))

    cockpit.order("a", double, arguments={"x": 1})

    assert cockpit.failure("a").cause is Cause.ENVIRONMENT
    assert "exit code 5" in cockpit.failure("a").message
    assert "no such mount" in cockpit.failure("a").message


def test_that_what_a_shell_prints_before_the_worker_starts_does_no_harm(cockpit):
    script = f"env; echo '[1, 2]'; echo '{{\"a\": 1}}'; exec {sys.executable} {WORKER_FILE} pilot"
    cockpit.launch(command=("bash", "-c", script))

    cockpit.order("a", double, arguments={"x": 1})

    assert cockpit.outcome("a") == HasSucceeded({"y": 2})
    assert "PATH=" in (cockpit.directory / "pilot" / "log").read_text()


def test_that_an_import_that_never_ends_is_ended_by_the_time_limit(cockpit, tmp_path):
    text = "import os, time\nopen('importing', 'w').write(str(os.getpid()))\ntime.sleep(600)\n"

    cockpit.order("a", shipped(tmp_path / "src", text), resources=Resources(walltime_s=1.5))
    failure = cockpit.failure("a")

    assert failure.cause is Cause.TIMEOUT
    assert "still starting or importing" in failure.message
    cockpit.wait_until_gone([int((cockpit.directory / "pilot" / "importing").read_text())])
    cockpit.order("b", double, arguments={"x": 1})
    assert cockpit.outcome("b") == HasSucceeded({"y": 2})


def test_that_an_order_given_right_after_a_cancelled_import_is_not_drawn_into_it(cockpit, tmp_path):
    cockpit.order("a", shipped(tmp_path / "src", "import time\nopen('importing', 'w')\ntime.sleep(600)\n"))
    wait_until((cockpit.directory / "pilot" / "importing").exists, "the import has begun")

    cockpit.pilot.kill("a")
    cockpit.order("b", double, arguments={"x": 1})

    assert cockpit.outcome("a") == WasCancelled()
    assert cockpit.outcome("b") == HasSucceeded({"y": 2})


# ---------------------------------------------------------------------------------------------------- worlds


def test_that_a_job_has_its_own_environment_directory_and_empty_stdin(cockpit, monkeypatch):
    monkeypatch.setenv("MODE", "driver")
    monkeypatch.setenv("NOISE", "loud")

    @by_value
    def look():
        import os
        import sys

        seen = os.environ
        return {"mode": seen["MODE"], "noise": "NOISE" in seen, "cwd": os.getcwd(), "stdin": sys.stdin.read()}  # noqa: PTH109

    cockpit.order("a", look, environment={"MODE": "job", "NOISE": None})

    directory = str((cockpit.directory / "a").resolve())
    assert cockpit.outcome("a") == HasSucceeded({"mode": "job", "noise": False, "cwd": directory, "stdin": ""})
    assert os.environ["MODE"] == "driver"


def test_that_results_can_go_elsewhere(cockpit, tmp_path):
    (tmp_path / "out").mkdir()

    cockpit.order("a", double, arguments={"x": 1}, results=tmp_path / "out")

    assert cockpit.outcome("a") == HasSucceeded({"y": 2})
    assert (tmp_path / "out" / "result.json").read_text() == '{"y": 2}'
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["log.txt"]


def test_that_paths_of_the_template_become_paths_of_the_job(cockpit, tmp_path):
    template = tmp_path / "src"
    text = (
        "import os, sys\n"
        "def objective():\n"
        "    return {'home': os.environ['AIDE_HOME'], 'opts': os.environ['OPTS'], 'other': os.environ['OTHER'],\n"
        "            'path': sys.path[0]}\n"
    )
    target = shipped(template, text)
    environment = {
        **os.environ,
        "AIDE_HOME": str(template),
        "OPTS": f"--bind {template}/lib:{template}",
        "OTHER": f"{template}-2",
    }
    cockpit.launch(environment=environment)

    cockpit.order("a", target, template=template)

    job = tmp_path / "a"
    assert cockpit.outcome("a") == HasSucceeded(
        {"home": str(job), "opts": f"--bind {job}/lib:{job}", "other": f"{template}-2", "path": str(job)}
    )


def test_that_jobs_have_random_numbers_of_their_own(cockpit):
    @by_value
    def draw():
        import random

        import numpy as np

        return [random.random(), float(np.random.random())]

    for index in range(4):
        cockpit.order(str(index), draw)
    draws = [cockpit.outcome(str(index)).result for index in range(4)]

    assert len({first for first, _ in draws}) == 4
    assert len({second for _, second in draws}) == 4


def test_that_a_result_is_only_what_the_function_returned(cockpit):
    @by_value
    def pretend():
        import os
        from pathlib import Path

        Path("result.json").write_text('{"y": 1}')
        os._exit(0)

    cockpit.order("a", pretend)

    assert cockpit.failure("a").cause is Cause.KILLED


def test_that_arguments_that_cannot_be_pickled_are_refused_before_anything_starts(own_children, cockpit):
    with pytest.raises(TypeError, match="pickle"):
        cockpit.order("a", double, arguments={"x": threading.Lock()})

    assert own_children() == []


def test_that_a_command_succeeds_by_its_result_and_fails_by_its_exit_code(cockpit):
    cockpit.order("good", Command(("sh", "-c", 'echo "{\\"y\\": $X}" > result.json')), environment={"X": "3"})
    cockpit.order("silent", Command(("true",)))
    cockpit.order("bad", Command(("sh", "-c", "echo geometry overlaps; exit 3"), name="sim.sh"))
    cockpit.order("absent", Command(("no-such-program",)))
    cockpit.order("garbled", Command(("sh", "-c", "echo '{' > result.json")))

    assert cockpit.outcome("good") == HasSucceeded({"y": 3})
    assert cockpit.failure("silent").cause is Cause.RESULT
    assert "wrote no result.json" in cockpit.failure("silent").message
    assert cockpit.failure("bad").cause is Cause.EXCEPTION
    assert "sim.sh ended with exit code 3; its last words: geometry overlaps" in cockpit.failure("bad").message
    assert cockpit.failure("absent").cause is Cause.ENVIRONMENT
    assert "no-such-program" in cockpit.failure("absent").message
    assert cockpit.failure("garbled").cause is Cause.RESULT


# ---------------------------------------------------------------------------------------------------- endings


def test_that_what_a_job_leaves_running_ends_with_it(cockpit):
    @by_value
    def leave_children():
        import subprocess

        same_group = subprocess.Popen(["sleep", "600"])
        own_session = subprocess.Popen(["sleep", "600"], start_new_session=True)
        return [same_group.pid, own_session.pid]

    cockpit.order("a", leave_children)

    cockpit.wait_until_gone(cockpit.outcome("a").result)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans go to their job on Linux only")
def test_that_a_job_ending_does_not_touch_the_children_of_another(cockpit):
    @by_value
    def start_and_hold():
        import os
        import subprocess
        import time
        from pathlib import Path

        child = subprocess.Popen(["setsid", "--fork", "sleep", "600"])  # its orphan
        child.wait()
        Path("ready").touch()
        while not Path("go").exists():
            time.sleep(0.01)
        return len(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())

    cockpit.order("a", start_and_hold)
    wait_until((cockpit.directory / "a" / "ready").exists, "the orphan runs")
    for index in range(3):
        cockpit.order(str(index), double, arguments={"x": 1})
        cockpit.outcome(str(index))
    (cockpit.directory / "a" / "go").touch()

    assert cockpit.outcome("a") == HasSucceeded(1)


def test_that_killing_gives_the_verdict_and_killing_the_unknown_does_nothing(cockpit):
    cockpit.order("a", hold)
    cockpit.wait_for_start("a")

    cockpit.pilot.kill("nobody")
    cockpit.pilot.kill("a")
    cockpit.pilot.kill("a")

    assert cockpit.outcome("a") == WasCancelled()


def test_that_a_job_killed_before_it_started_never_runs(cockpit):
    @by_value
    def mark():
        import time
        from pathlib import Path

        time.sleep(0.2)
        Path("mark").touch()

    for index in range(5):
        cockpit.order(str(index), mark)
        cockpit.pilot.kill(str(index))

    assert [cockpit.outcome(str(index)) for index in range(5)] == [WasCancelled()] * 5
    assert not list(cockpit.directory.glob("*/mark"))


def test_that_jobs_of_a_pilot_that_died_are_lost_and_the_next_order_starts_another(cockpit):
    cockpit.order("a", hold)
    cockpit.wait_for_start("a")
    process = cockpit.process()
    job = process.children()[0].pid

    process.kill()

    assert cockpit.failure("a").cause is Cause.LOST
    assert "SIGKILL" in cockpit.failure("a").message
    cockpit.wait_until_gone([job])
    cockpit.order("b", double, arguments={"x": 1})
    assert cockpit.outcome("b") == HasSucceeded({"y": 2})


def test_that_a_pilot_that_is_asked_to_end_takes_its_jobs_along(cockpit):
    cockpit.order("a", hold)
    cockpit.wait_for_start("a")
    process = cockpit.process()
    job = process.children()[0].pid

    process.send_signal(signal.SIGTERM)

    assert cockpit.failure("a").cause is Cause.LOST
    cockpit.wait_until_gone([process.pid, job])


def test_that_closing_ends_running_jobs_as_cancelled_and_takes_no_more(cockpit):
    cockpit.order("a", hold)
    cockpit.wait_for_start("a")
    process = cockpit.process()
    pids = [process.pid, *(child.pid for child in process.children(recursive=True))]

    cockpit.pilot.close()
    cockpit.pilot.close()

    assert cockpit.outcome("a") == WasCancelled()
    cockpit.wait_until_gone(pids)
    with pytest.raises(RuntimeError, match="closed"):
        cockpit.order("b", double, arguments={"x": 1})


def test_that_closing_does_not_wait_for_an_import(cockpit, tmp_path):
    cockpit.order("a", shipped(tmp_path / "src", "import time\nopen('importing', 'w')\ntime.sleep(600)\n"))
    wait_until((cockpit.directory / "pilot" / "importing").exists, "the import has begun")

    cockpit.pilot.close()

    assert cockpit.outcome("a") == WasCancelled()


def test_that_a_job_that_is_killed_by_its_limit_says_how_long_it_ran(cockpit):
    cockpit.order("a", hold, resources=Resources(walltime_s=0.5))

    assert cockpit.failure("a").cause is Cause.TIMEOUT
    assert "walltime_s=0.5" in cockpit.failure("a").message


def test_that_memory_shared_with_the_pilot_is_not_counted_for_every_process(cockpit, tmp_path):
    text = (
        "import os, time\n"
        "ballast = bytearray(os.urandom(1)) * 200_000_000\n"
        "def objective():\n"
        "    children = [os.fork() for _ in range(2)]\n"
        "    if 0 in children:\n"
        "        time.sleep(600)\n"
        "    time.sleep(1.5)\n"
        "    return len(ballast)\n"
    )

    cockpit.order("a", shipped(tmp_path / "src", text), resources=Resources(memory_mb=400))

    assert cockpit.outcome("a") == HasSucceeded(200_000_000)
