"""The Rucio catalogue against a real Rucio server, in an environment that has the Rucio client."""

import json
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.live.environments import ROOT, environment
from tests.live.rucio_server import RucioServer

TIME_LIMIT_S = 170

# What the tests ask Rucio itself, not through our package.
CLIENT_PROGRAM = """
import json, sys
from rucio.client import Client

client = Client()
scope, pattern = sys.argv[1:]
known = {}
for name in client.list_dids(scope, [{"name": pattern}], did_type="dataset"):
    files = sorted(client.list_files(scope, name), key=lambda file: file["name"])
    known[name] = {"open": client.get_did(scope, name)["open"], "files": [file["name"] for file in files]}
print(json.dumps(known))
"""


class RucioUser:
    """Programs with the Rucio client, as an account of a Rucio server."""

    def __init__(self, server: RucioServer, directory: Path) -> None:
        self.server = server
        self._directory = directory
        self._python = environment(
            "rucio-client", ["rucio-clients"], constraints=ROOT / "constraints.txt", is_layered=True
        ).python

    def run(self, *arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python as alice."""
        with self.start(*arguments, cwd=cwd, **variables) as process:
            try:
                out, err = process.communicate(timeout=TIME_LIMIT_S)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(self, *arguments: object, cwd: Path, **variables: str) -> subprocess.Popen[str]:
        """Start Python as alice."""
        return subprocess.Popen(
            [self._python, *map(str, arguments)],
            cwd=cwd,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self._directory),
                "OMP_NUM_THREADS": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                **self.server.environment("alice"),
                **variables,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def datasets(self, pattern: str) -> dict[str, dict[str, object]]:
        """What the Rucio client shows: the datasets with such a name, and their files."""
        done = self.run("-c", CLIENT_PROGRAM, "user.alice", pattern, cwd=self._directory)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def odd_configurations(self) -> dict[str, str]:
        """Configurations with a wrong password, of a server that is not there, and that are not there."""
        good = Path(self.server.environment("alice")["RUCIO_CONFIG"])
        text = good.read_text().replace(str(good.parent), "{directory}")
        changes = {
            "mallory": re.sub(r"(?m)^password = .*", "password = wrong", text),
            "nowhere": text.replace(self.server.url, "http://127.0.0.1:9"),
        }
        for name, changed in changes.items():
            directory = self._directory / name
            directory.mkdir(exist_ok=True)
            (directory / "rucio.cfg").write_text(changed.replace("{directory}", str(directory)))
        return {name: str(self._directory / name / "rucio.cfg") for name in (*changes, "nothing")}


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RucioUser]:
    with RucioServer(tmp_path_factory.mktemp("rucio")) as server:
        server.add_account("alice")
        server.add_account("bob")
        server.add_account("carol", quota_bytes=0)
        yield RucioUser(server, tmp_path_factory.mktemp("user"))


@pytest.mark.timeout(600)  # the first run makes two virtual environments
def test_that_the_rucio_catalogue_keeps_the_contract_and_explains_refusals(alice):
    accounts = {name: alice.server.environment(name)["RUCIO_CONFIG"] for name in ("alice", "bob", "carol")}
    configurations = {**accounts, **alice.odd_configurations()}

    done = alice.run(
        *("-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "tests/live/rucio_cases.py"),
        cwd=ROOT,
        LIVE_RUCIO_RSE=alice.server.rse,
        LIVE_RUCIO_STORAGE=str(alice.server.storage),
        **{f"LIVE_RUCIO_{name.upper()}": file for name, file in configurations.items()},
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"\d+ passed in .*", done.stdout.strip().splitlines()[-1]), done.stdout


def test_that_the_datasets_example_runs_on_rucio_datasets(alice, tmp_path):
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("scheduler_runs", "__pycache__")
    )
    program = tmp_path / "examples" / "datasets.py"
    text = program.read_text()
    for old, new in (
        ('"job_dir": None,', '"job_dir": None,\n        "config": {"catalogue": "rucio"},'),
        ("max_trials=10", "max_trials=2"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    program.write_text(text)

    done = alice.run(program.name, cwd=program.parent)

    assert done.returncode == 0, done.stderr[-3000:]
    assert "Best parameters: {" in done.stdout
    known = alice.datasets("user.alice.my_experiment.simreco.*")
    points = [f"eta_points_{eta}plusparticles_{name}plus" for eta in (0.1, 0.2) for name in ("kaon", "pi")]
    assert sorted(name.removeprefix("user.alice.my_experiment.simreco.").rsplit(".", 1)[0] for name in known) == sorted(
        2 * points
    )
    for name, dataset in known.items():
        assert dataset == {"open": False, "files": [f"{name}_00000{number}.my_test.txt" for number in (1, 2)]}
    (run,) = (path.parent for path in (program.parent / "scheduler_runs").glob("*/trials"))
    assert not (run / "datasets").exists()


PROGRAM_WITH_A_LOCAL_READER = """
import sys

from ax.service.ax_client import AxClient, ObjectiveProperties
from scheduler import AxScheduler, JobLibRunner, MultiStepsFunction, PanDAiDDSRunner


def simulate(x, slice_index):
    with open("out.txt", "w") as file:
        file.write(f"{x + slice_index}")


def add_up(x, files):
    return {"objective": sum(float(open(name).read()) for name in files), "count": len(files)}


if __name__ == "__main__":
    ax_client = AxClient(random_seed=1, verbose_logging=False)
    ax_client.create_experiment(
        name="local_reader",
        parameters=[{"name": "x", "type": "range", "bounds": [0.0, 1.0]}],
        objectives={"objective": ObjectiveProperties(minimize=True)},
    )
    site = PanDAiDDSRunner(service="local", config={"catalogue": "rucio", "rse": sys.argv[1]})
    here = JobLibRunner(n_jobs=2, config={"catalogue": "rucio"})
    dataset = "user.alice.local_reader.#job_id"
    objective = MultiStepsFunction(
        objective_funcs={
            "sim": {
                "func": simulate, "runner": site, "return_func_results": False, "with_output_dataset": True,
                "output_file": "out.txt", "output_dataset": dataset, "num_events": 3, "num_events_per_job": 1,
            },
            "end": {"func": add_up, "runner": here, "with_input_datasets": True, "input_datasets": {"files": dataset}},
        },
        deps={"end": {"parent": "sim", "dep_type": "datasets"}},
    )
    scheduler = AxScheduler(ax_client, site, config={"progress": False})
    scheduler.set_objective_function(objective)
    best = scheduler.run_optimization(max_trials=2)
    values = ax_client.get_trials_data_frame()
    print("x and objective:", [[float(x), float(v)] for x, v in zip(values["x"], values["objective"])])
"""


@pytest.mark.long
def test_that_a_local_step_downloads_what_a_site_step_made(alice, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM_WITH_A_LOCAL_READER))

    done = alice.run(program.name, alice.server.rse, cwd=tmp_path)

    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("x and objective: "))
    for x, value in json.loads(line.removeprefix("x and objective: ")):
        assert value == pytest.approx(3 * x + 0 + 1 + 2)
    known = alice.datasets("user.alice.local_reader.*")
    assert [len(dataset["files"]) for dataset in known.values()] == [3, 3]


PROGRAM_THAT_MEETS_AN_OUTAGE = """
import logging, sys
from pathlib import Path
from scheduler.panda.rucio_catalogue import RucioCatalogue

logging.basicConfig(level="WARNING", stream=sys.stdout, format="%(message)s")
catalogue = RucioCatalogue()
catalogue.create(sys.argv[1])
Path("made.txt").write_text("Wikipedia")
print("the dataset is open", flush=True)
sys.stdin.readline()
catalogue.add_numbered(sys.argv[1], [Path("made.txt")], name="f", producer="p")
catalogue.close(sys.argv[1])
"""


def test_that_an_outage_is_a_warning_and_waited_for(alice, tmp_path):
    name = "user.alice.outage"
    with alice.start("-c", PROGRAM_THAT_MEETS_AN_OUTAGE, name, cwd=tmp_path) as program:
        assert program.stdout.readline() == "the dataset is open\n"
        alice.server.stop()
        program.stdin.write("go on\n")
        program.stdin.flush()
        assert program.stdout.readline() == "Rucio does not answer; asking again in 1 s\n"
        alice.server.start()
        out, _ = program.communicate(timeout=TIME_LIMIT_S)

    assert program.returncode == 0, out
    assert alice.datasets(name) == {name: {"open": False, "files": [f"{name}_000001.f"]}}


def test_that_a_rucio_that_does_not_answer_is_named_before_anything_runs(alice, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM_WITH_A_LOCAL_READER))

    done = alice.run(program.name, alice.server.rse, cwd=tmp_path, RUCIO_CONFIG=alice.odd_configurations()["nowhere"])

    assert done.returncode != 0
    assert "ConfigurationError: step 'sim'" in done.stderr
    assert "Rucio cannot be used: the server does not answer" in done.stderr
    assert not list(tmp_path.glob("scheduler_runs/*/trials/*"))
