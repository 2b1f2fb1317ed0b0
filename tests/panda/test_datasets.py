import json

import pytest

from scheduler.errors import ConfigurationError, DatasetError
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


@pytest.fixture
def stage(catalogue, tmp_path):
    def stage(name=NAME):
        directory = tmp_path / "staged"
        directory.mkdir()
        return [(file, (directory / file).read_text()) for file in catalogue.stage(name, directory)]

    return stage


def test_that_files_come_out_under_their_numbered_names_in_order(catalogue, make_files, stage):
    catalogue.create(NAME)
    catalogue.add_numbered(NAME, make_files("a", "b"), name="my_test.txt", producer="p")
    catalogue.close(NAME)
    assert stage() == [(f"{NAME}_000001.my_test.txt", "a"), (f"{NAME}_000002.my_test.txt", "b")]


def test_that_files_are_moved_and_described_by_size_and_checksum(catalogue, make_files):
    catalogue.create(NAME)
    (path,) = make_files("Wikipedia")
    catalogue.add(NAME, {"x.txt": path}, producer="me")
    (file,) = catalogue.files(NAME)
    assert (file.name, file.bytes, file.adler32, file.producer) == ("x.txt", 9, "11e60398", "me")
    assert not path.exists()


def test_that_a_link_is_copied_and_what_it_leads_to_stays(catalogue, make_files, tmp_path):
    (path,) = make_files("big")
    link = tmp_path / "link"
    link.symlink_to(path)
    catalogue.create(NAME)
    catalogue.add(NAME, {"x.txt": link})
    assert path.read_text() == "big"
    assert not (catalogue.root / NAME / "files" / "x.txt").is_symlink()


def test_that_numbers_go_on_after_other_files_and_after_a_withdrawal(catalogue, make_files):
    catalogue.create(NAME)
    catalogue.add_numbered(NAME, make_files("a", "b"), name="f", producer="one")
    assert catalogue.withdraw(NAME, "one") == (f"{NAME}_000001.f", f"{NAME}_000002.f")
    assert catalogue.add_numbered(NAME, make_files("c"), name="f", producer="one") == (f"{NAME}_000003.f",)
    assert [file.name for file in catalogue.files(NAME)] == [f"{NAME}_000003.f"]
    assert [path.name for path in (catalogue.root / NAME / "files").iterdir()] == [f"{NAME}_000003.f"]


def test_that_a_withdrawal_leaves_the_files_of_others(catalogue, make_files):
    catalogue.create(NAME)
    for producer in ("one", "two"):
        catalogue.add_numbered(NAME, make_files(producer), name="f", producer=producer)
    catalogue.withdraw(NAME, "one")
    assert [file.producer for file in catalogue.files(NAME)] == ["two"]


def test_that_a_closed_dataset_refuses_additions_until_it_is_reopened(catalogue, make_files):
    catalogue.create(NAME)
    catalogue.close(NAME)
    files = make_files("a")
    for refused in (
        lambda: catalogue.add(NAME, {"x": files[0]}),
        lambda: catalogue.add_numbered(NAME, files, name="x", producer=""),
        lambda: catalogue.close(NAME),
        lambda: catalogue.withdraw(NAME, ""),
    ):
        with pytest.raises(DatasetError, match=f"'{NAME}' is closed"):
            refused()
    catalogue.reopen(NAME)
    catalogue.add(NAME, {"x": files[0]})
    assert len(catalogue.files(NAME)) == 1


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


def test_that_a_dataset_is_created_once(catalogue):
    catalogue.create(NAME)
    with pytest.raises(DatasetError, match="exists already"):
        catalogue.create(NAME)


def test_that_a_name_rucio_refuses_is_refused(catalogue):
    with pytest.raises(ConfigurationError, match="pi\\+"):
        catalogue.create("user.alice.pi+")


def test_that_a_file_name_is_taken_once(catalogue, make_files):
    catalogue.create(NAME)
    first, second = make_files("a", "b")
    catalogue.add(NAME, {"x": first})
    with pytest.raises(DatasetError, match="has a file 'x' already"):
        catalogue.add(NAME, {"x": second})
    assert second.exists()


def test_that_names_with_slashes_are_datasets_of_their_own(catalogue):
    for name in ("user.alice.x", "user.alice.x/", "user.alice.x/y", "user.alice/../x"):
        catalogue.create(name)
    assert len(list(catalogue.root.iterdir())) == 4


@pytest.mark.parametrize("damage", ["other content", "Wikipediaa", ""])
def test_that_a_changed_file_is_found_out_when_it_is_staged(catalogue, make_files, stage, damage):
    catalogue.create(NAME)
    catalogue.add(NAME, {"x.txt": make_files("Wikipedia")[0]})
    catalogue.close(NAME)
    (catalogue.root / NAME / "files" / "x.txt").write_text(damage)
    with pytest.raises(DatasetError, match=r"x\.txt .*was changed"):
        stage()


def test_that_a_missing_file_is_found_out_when_it_is_staged(catalogue, make_files, stage):
    catalogue.create(NAME)
    catalogue.add(NAME, {"x.txt": make_files("a")[0]})
    catalogue.close(NAME)
    (catalogue.root / NAME / "files" / "x.txt").unlink()
    with pytest.raises(DatasetError, match=r"cannot stage 'x\.txt'"):
        stage()


def test_that_an_open_dataset_is_not_staged(catalogue, stage):
    catalogue.create(NAME)
    with pytest.raises(DatasetError, match="is not complete"):
        stage()


def test_that_staging_does_not_overwrite_a_file(catalogue, make_files, tmp_path):
    catalogue.create(NAME)
    catalogue.add(NAME, {"x.txt": make_files("a")[0]})
    catalogue.close(NAME)
    (tmp_path / "x.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"has a file 'x\.txt' already"):
        catalogue.stage(NAME, tmp_path)
    assert (tmp_path / "x.txt").read_text() == "mine"


def test_that_a_staged_copy_may_be_changed(catalogue, make_files, stage, tmp_path):
    catalogue.create(NAME)
    catalogue.add(NAME, {"x.txt": make_files("a")[0]})
    catalogue.close(NAME)
    stage()
    (tmp_path / "staged" / "x.txt").write_text("changed by a job")
    assert (catalogue.root / NAME / "files" / "x.txt").read_text() == "a"


def test_that_a_file_counts_only_once_it_is_registered(catalogue, make_files, tmp_path):
    catalogue.create(NAME)
    with pytest.raises(DatasetError, match=r"cannot move .*missing\.txt"):
        catalogue.add(NAME, {"x.txt": make_files("a")[0], "y.txt": tmp_path / "missing.txt"})
    assert catalogue.files(NAME) == ()


def test_that_another_process_sees_what_was_registered(catalogue, make_files):
    catalogue.create(NAME)
    catalogue.add_numbered(NAME, make_files("a"), name="f", producer="p")
    catalogue.close(NAME)
    other = LocalCatalogue(catalogue.root)
    assert other.files(NAME) == catalogue.files(NAME)
    assert other.is_closed(NAME)
    stored = json.loads((catalogue.root / NAME / "dataset.json").read_text())
    assert stored["dataset"] == NAME
