import json

import pytest

from scheduler.errors import DatasetError
from scheduler.panda.datasets import LocalCatalogue

NAME = "user.alice.sim.trial_1"


@pytest.fixture
def catalogue(tmp_path):
    return LocalCatalogue(tmp_path / "datasets")


@pytest.fixture
def make_files(tmp_path):
    def make(*contents):
        directory = tmp_path / "made"
        directory.mkdir(exist_ok=True)
        paths = [directory / f"{index}.txt" for index, _ in enumerate(contents)]
        for path, content in zip(paths, contents, strict=True):
            path.write_text(content)
        return paths

    return make


def test_that_a_file_tells_its_producer(catalogue, make_files):
    catalogue.create(NAME)
    catalogue.add(NAME, {"x.txt": make_files("Wikipedia")[0]}, producer="me")
    (file,) = catalogue.files(NAME)
    assert file.producer == "me"


def test_that_a_file_that_is_withdrawn_is_removed(catalogue, make_files):
    catalogue.create(NAME)
    catalogue.add_numbered(NAME, make_files("a", "b"), name="f", producer="one")
    catalogue.withdraw(NAME, "one")
    assert list((catalogue.root / NAME / "files").iterdir()) == []


def test_that_an_unknown_dataset_is_named_with_near_matches(catalogue, tmp_path):
    catalogue.create(NAME)
    for asked in (
        lambda: catalogue.files("user.alice.sim.trial_7"),
        lambda: catalogue.stage("user.alice.sim.trial_7", tmp_path),
        lambda: catalogue.is_closed("user.alice.sim.trial_7"),
    ):
        with pytest.raises(DatasetError, match=rf"'user.alice.sim.trial_7' is unknown .* did you mean '{NAME}'\?"):
            asked()
    assert not catalogue.exists("user.alice.sim.trial_7")


def test_that_names_with_slashes_are_datasets_of_their_own(catalogue):
    for name in ("user.alice.x", "user.alice.x/", "user.alice.x/y", "user.alice/../x"):
        catalogue.create(name)
    assert len(list(catalogue.root.iterdir())) == 4


def test_that_another_process_sees_what_was_registered(catalogue, make_files):
    catalogue.create(NAME)
    catalogue.add_numbered(NAME, make_files("a"), name="f", producer="p")
    catalogue.close(NAME)
    other = LocalCatalogue(catalogue.root)
    assert other.files(NAME) == catalogue.files(NAME)
    assert other.is_closed(NAME)
    stored = json.loads((catalogue.root / NAME / "dataset.json").read_text())
    assert stored["dataset"] == NAME
