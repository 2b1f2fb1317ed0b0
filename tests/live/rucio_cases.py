"""What is run against a real Rucio server; ``test_rucio.py`` starts it, in an environment with the Rucio client.

The variables ``LIVE_RUCIO_<ACCOUNT>`` name the configurations of the accounts, ``LIVE_RUCIO_STORAGE`` the directory of
the storage element.
"""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from scheduler.errors import ConfigurationError, DatasetError
from scheduler.panda.rucio_catalogue import RucioCatalogue
from scheduler.testing import CatalogueContract

RSE = os.environ["LIVE_RUCIO_RSE"]
STORAGE = Path(os.environ["LIVE_RUCIO_STORAGE"])


@pytest.fixture
def catalogue():
    return RucioCatalogue()


@pytest.fixture
def dataset():
    return f"user.alice.{uuid.uuid4().hex[:12]}"


@pytest.fixture
def client():
    from rucio.client import Client

    return Client()


def make_file(directory, content="Wikipedia"):
    path = directory / "made.txt"
    path.write_text(content)
    return path


def run_as(account, code):
    """Run statements in a process whose Rucio client is another account: its configuration is read once a process."""
    program = f"from scheduler.panda.rucio_catalogue import RucioCatalogue\n{code}\n"
    environment = {**os.environ, "RUCIO_CONFIG": os.environ[f"LIVE_RUCIO_{account.upper()}"]}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


class TestRucioCatalogue(CatalogueContract):
    @pytest.fixture
    def catalogue(self):
        return RucioCatalogue()

    @pytest.fixture
    def dataset(self):
        return f"user.alice.{uuid.uuid4().hex[:12]}"

    def stored_file(self, catalogue, dataset, name):
        (path,) = STORAGE.rglob(name)
        return path


def test_that_a_dataset_is_what_the_rucio_client_shows(catalogue, client, dataset, tmp_path):
    catalogue.create(dataset)
    catalogue.add_numbered(dataset, [make_file(tmp_path)], name="f.txt", producer="p")
    catalogue.close(dataset)

    known = client.get_did("user.alice", dataset)
    (file,) = client.list_files("user.alice", dataset)
    (rule,) = client.list_did_rules("user.alice", dataset)

    assert (known["type"], known["open"], known["length"], known["bytes"]) == ("DATASET", False, 1, 9)
    assert (file["scope"], file["name"], file["adler32"]) == ("user.alice", f"{dataset}_000001.f.txt", "11e60398")
    assert (rule["account"], rule["copies"], rule["rse_expression"]) == ("alice", 1, RSE)


def test_that_a_refused_upload_leaves_no_file_behind(catalogue, client, dataset, tmp_path):
    catalogue.create(dataset)
    catalogue.close(dataset)

    with pytest.raises(DatasetError, match="is closed"):
        catalogue.add_numbered(dataset, [make_file(tmp_path)], name="f", producer="p")

    assert list(client.list_dids("user.alice", [{"name": f"{dataset}*"}], did_type="file")) == []
    assert (tmp_path / "made.txt").exists()


def test_that_an_upload_that_fails_half_way_is_undone_and_explained(catalogue, client, dataset, tmp_path):
    other = f"{dataset}.other"
    catalogue.create(other)
    catalogue.add(other, {f"{dataset}.b": make_file(tmp_path)})
    catalogue.create(dataset)
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_text("a")
    second.write_text("b")

    with pytest.raises(DatasetError, match=rf"cannot upload into dataset '{dataset}' in Rucio: .*File already exists"):
        catalogue.add(dataset, {f"{dataset}.a": first, f"{dataset}.b": second})

    assert catalogue.files(dataset) == ()
    assert first.exists()
    assert second.exists()


def test_that_files_of_an_upload_that_broke_off_do_not_get_in_the_way(catalogue, client, dataset, tmp_path):
    from rucio.client.uploadclient import UploadClient

    catalogue.create(dataset)
    orphan = {
        "path": str(make_file(tmp_path)),
        "rse": RSE,
        "did_scope": "user.alice",
        "did_name": f"{dataset}_000001.f",
    }
    UploadClient().upload([{**orphan, "register_after_upload": True}])

    added = catalogue.add_numbered(dataset, [make_file(tmp_path, "new")], name="f", producer="p")

    assert added == (f"{dataset}_000002.f",)


def test_that_a_job_that_runs_again_in_another_process_finds_its_files(catalogue, dataset, tmp_path):
    catalogue.create(dataset)
    catalogue.add_numbered(dataset, [make_file(tmp_path)], name="f", producer="p")

    code = f"assert RucioCatalogue().withdraw({dataset!r}, 'p') == ({dataset + '_000001.f'!r},)"

    assert run_as("alice", code) == ""
    assert catalogue.files(dataset) == ()


def test_that_threads_use_the_catalogue_at_once(catalogue, dataset, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    catalogue.create(dataset)
    catalogue.add_numbered(dataset, [make_file(tmp_path)], name="f", producer="p")
    catalogue.close(dataset)
    desks = [tmp_path / str(number) for number in range(4)]
    for desk in desks:
        desk.mkdir()

    with ThreadPoolExecutor(4) as pool:
        staged = list(pool.map(lambda desk: catalogue.stage(dataset, desk), desks))

    assert staged == [[f"{dataset}_000001.f"]] * 4


def test_that_a_file_with_a_directory_in_its_name_is_not_staged(catalogue, dataset, tmp_path):
    catalogue.create(dataset)
    catalogue.add(dataset, {f"{dataset}/../x": make_file(tmp_path)})
    catalogue.close(dataset)

    with pytest.raises(DatasetError, match="a '/' in a file's name means a path"):
        catalogue.stage(dataset, tmp_path)


@pytest.mark.parametrize(
    ("account", "code", "message"),
    [
        (
            "bob",
            "RucioCatalogue().create({dataset!r})",
            "account 'bob' is not permitted to; the scope of its name is 'user.alice'; begin the name with 'user.bob.'",
        ),
        ("alice", "RucioCatalogue().create('user.nobody.x')", "the scope of its name is 'user.nobody'"),
        ("carol", "RucioCatalogue().create('user.carol.x')", "account 'carol' has quota at no storage element"),
        (
            "carol",
            f"RucioCatalogue(rse={RSE!r}).create('user.carol.x')",
            f"account 'carol' has no quota left at '{RSE}'; delete rules",
        ),
        (
            "alice",
            "RucioCatalogue(rse='NO_SCRATCHDISK').create({dataset!r})",
            "'NO_SCRATCHDISK' is no storage element there; choose one with config['rse']",
        ),
        ("mallory", "RucioCatalogue().exists('user.alice.x')", "the credentials are refused; renew"),
        ("nowhere", "RucioCatalogue().exists('user.alice.x')", "the server does not answer; try again"),
        (
            "nothing",
            "RucioCatalogue()",
            "ConfigurationError: Rucio cannot be used: point RUCIO_CONFIG to your rucio.cfg",
        ),
    ],
)
def test_that_a_refusal_names_its_reason_and_a_remedy(dataset, account, code, message):
    assert message in run_as(account, code.format(dataset=dataset))


def test_that_a_storage_element_that_does_not_exist_is_refused_before_anything_runs():
    with pytest.raises(ConfigurationError, match="'NO_SCRATCHDISK' is no storage element there"):
        RucioCatalogue(rse="NO_SCRATCHDISK").check(writes=True)


def test_that_what_the_rucio_client_tells_is_not_louder_than_debug(catalogue, dataset, tmp_path, caplog):
    caplog.set_level("INFO")
    catalogue.create(dataset)
    catalogue.add_numbered(dataset, [make_file(tmp_path)], name="f", producer="p")
    catalogue.close(dataset)
    (desk := tmp_path / "desk").mkdir()
    catalogue.stage(dataset, desk)

    assert [record.message for record in caplog.records] == []
