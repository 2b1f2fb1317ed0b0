"""The contract of dataset catalogues, as tests."""
# ruff: noqa: S101, D102 - these are tests: they assert, and their names say what

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.errors import ConfigurationError, DatasetError
from scheduler.panda.datasets import DatasetCatalogue

MakeFiles = Callable[..., list[Path]]


class CatalogueContract:
    """What every dataset catalogue must do, as a test class to inherit from.

    A subclass defines a fixture ``catalogue``, and :meth:`stored_file`, with which the tests damage what is stored.

    Example::

        class TestMyCatalogue(CatalogueContract):
            @pytest.fixture
            def catalogue(self, tmp_path):
                return MyCatalogue(tmp_path)

            def stored_file(self, catalogue, dataset, name):
                return catalogue.root / dataset / name
    """

    def stored_file(self, catalogue: DatasetCatalogue, dataset: str, name: str) -> Path:
        """Where a file of a dataset lies in the storage."""
        raise NotImplementedError

    @pytest.fixture
    def dataset(self) -> str:
        """The name of a dataset that does not exist; override it when the catalogue outlives a test."""
        return "user.alice.contract"

    @pytest.fixture
    def make_files(self, tmp_path: Path) -> MakeFiles:
        """Makes files with these contents."""

        def make(*contents: str) -> list[Path]:
            directory = tmp_path / "made"
            directory.mkdir(exist_ok=True)
            paths = [directory / f"{index}.txt" for index in range(len(contents))]
            for path, content in zip(paths, contents, strict=True):
                path.write_text(content)
            return paths

        return make

    @pytest.fixture
    def desk(self, tmp_path: Path) -> Path:
        """An empty directory to stage files into."""
        desk = tmp_path / "desk"
        desk.mkdir()
        return desk

    @pytest.fixture
    def complete(self, catalogue: DatasetCatalogue, dataset: str, make_files: MakeFiles) -> str:
        """The name of a closed dataset with one file, ``<dataset>.x.txt``, in which is ``Wikipedia``."""
        catalogue.create(dataset)
        catalogue.add(dataset, {f"{dataset}.x.txt": make_files("Wikipedia")[0]})
        catalogue.close(dataset)
        return dataset

    # ------------------------------------------------------------------------------------------------- what goes in

    def test_that_a_dataset_exists_open_from_its_creation_until_it_is_closed(
        self, catalogue: DatasetCatalogue, dataset: str
    ) -> None:
        assert not catalogue.exists(dataset)
        catalogue.create(dataset)
        assert catalogue.exists(dataset)
        assert not catalogue.is_closed(dataset)
        assert catalogue.files(dataset) == ()
        catalogue.close(dataset)
        assert catalogue.is_closed(dataset)

    def test_that_a_dataset_is_created_once(self, catalogue: DatasetCatalogue, dataset: str) -> None:
        catalogue.create(dataset)
        with pytest.raises(DatasetError, match=f"'{dataset}'.* exists already"):
            catalogue.create(dataset)

    def test_that_a_name_rucio_refuses_is_refused(self, catalogue: DatasetCatalogue, dataset: str) -> None:
        with pytest.raises(ConfigurationError, match=r"pi\+"):
            catalogue.create(f"{dataset}.pi+")

    def test_that_numbered_files_come_out_under_their_names_in_order(
        self, catalogue: DatasetCatalogue, dataset: str, make_files: MakeFiles, desk: Path
    ) -> None:
        names = (f"{dataset}_000001.my_test.txt", f"{dataset}_000002.my_test.txt")
        catalogue.create(dataset)
        assert catalogue.add_numbered(dataset, make_files("a", "b"), name="my_test.txt", producer="p") == names
        catalogue.close(dataset)
        assert [file.name for file in catalogue.files(dataset)] == list(names)
        assert catalogue.stage(dataset, desk) == list(names)
        assert [(desk / name).read_text() for name in names] == ["a", "b"]

    def test_that_files_are_moved_and_described_by_size_and_checksum(
        self, catalogue: DatasetCatalogue, dataset: str, make_files: MakeFiles
    ) -> None:
        (path,) = make_files("Wikipedia")
        catalogue.create(dataset)
        catalogue.add(dataset, {f"{dataset}.x": path}, producer="me")
        (file,) = catalogue.files(dataset)
        assert (file.name, file.bytes, file.adler32) == (f"{dataset}.x", 9, "11e60398")
        assert not path.exists()

    def test_that_digests_tell_contents_apart_where_an_adler32_does_not_or_are_none(
        self, catalogue: DatasetCatalogue, dataset: str, make_files: MakeFiles
    ) -> None:
        catalogue.create(dataset)
        catalogue.add_numbered(dataset, make_files("131", "212", "131"), name="x", producer="p")
        catalogue.close(dataset)
        one, other, same = catalogue.digests(dataset) or ("a", "b", "a")
        checksums = {file.adler32 for file in catalogue.files(dataset)}
        assert len(checksums) == 1
        assert one == same != other

    def test_that_a_link_is_copied_and_what_it_leads_to_stays(
        self, catalogue: DatasetCatalogue, dataset: str, make_files: MakeFiles, tmp_path: Path
    ) -> None:
        (path,) = make_files("big")
        link = tmp_path / "link"
        link.symlink_to(path)
        catalogue.create(dataset)
        catalogue.add(dataset, {f"{dataset}.x": link})
        assert path.read_text() == "big"
        assert not self.stored_file(catalogue, dataset, f"{dataset}.x").is_symlink()

    def test_that_a_file_name_is_taken_once(
        self, catalogue: DatasetCatalogue, dataset: str, make_files: MakeFiles
    ) -> None:
        catalogue.create(dataset)
        first, second = make_files("a", "b")
        catalogue.add(dataset, {f"{dataset}.x": first})
        with pytest.raises(DatasetError, match=rf"has a file '{dataset}\.x' already"):
            catalogue.add(dataset, {f"{dataset}.x": second})
        assert second.exists()

    def test_that_either_all_files_are_added_or_none(
        self, catalogue: DatasetCatalogue, dataset: str, make_files: MakeFiles, tmp_path: Path
    ) -> None:
        catalogue.create(dataset)
        files = {f"{dataset}.x": make_files("a")[0], f"{dataset}.y": tmp_path / "missing.txt"}
        with pytest.raises(DatasetError, match=r"cannot move .*missing\.txt"):
            catalogue.add(dataset, files)
        assert catalogue.files(dataset) == ()

    # -------------------------------------------------------------------------------------- producers that run again

    def test_that_numbers_go_on_after_a_withdrawal(
        self, catalogue: DatasetCatalogue, dataset: str, make_files: MakeFiles
    ) -> None:
        catalogue.create(dataset)
        catalogue.add_numbered(dataset, make_files("a", "b"), name="f", producer="one")
        assert catalogue.withdraw(dataset, "one") == (f"{dataset}_000001.f", f"{dataset}_000002.f")
        third = f"{dataset}_000003.f"
        assert catalogue.add_numbered(dataset, make_files("c"), name="f", producer="one") == (third,)
        assert [file.name for file in catalogue.files(dataset)] == [third]

    def test_that_a_withdrawal_leaves_the_files_of_others(
        self, catalogue: DatasetCatalogue, dataset: str, make_files: MakeFiles
    ) -> None:
        catalogue.create(dataset)
        for producer in ("one", "two"):
            catalogue.add_numbered(dataset, make_files(producer), name="f", producer=producer)
        assert catalogue.withdraw(dataset, "one") == (f"{dataset}_000001.f",)
        assert [file.name for file in catalogue.files(dataset)] == [f"{dataset}_000002.f"]

    def test_that_a_closed_dataset_refuses_changes_until_it_is_reopened(
        self, catalogue: DatasetCatalogue, dataset: str, make_files: MakeFiles
    ) -> None:
        catalogue.create(dataset)
        catalogue.close(dataset)
        files = make_files("a")
        for refused in (
            lambda: catalogue.add(dataset, {f"{dataset}.x": files[0]}),
            lambda: catalogue.add_numbered(dataset, files, name="x", producer=""),
            lambda: catalogue.close(dataset),
            lambda: catalogue.withdraw(dataset, ""),
        ):
            with pytest.raises(DatasetError, match=f"'{dataset}' is closed"):
                refused()
        catalogue.reopen(dataset)
        catalogue.add(dataset, {f"{dataset}.x": files[0]})
        assert len(catalogue.files(dataset)) == 1

    # ------------------------------------------------------------------------------------------------ what comes out

    def test_that_an_unknown_dataset_is_named(self, catalogue: DatasetCatalogue, dataset: str, desk: Path) -> None:
        for asked in (
            lambda: catalogue.files(dataset),
            lambda: catalogue.stage(dataset, desk),
            lambda: catalogue.is_closed(dataset),
            lambda: catalogue.close(dataset),
        ):
            with pytest.raises(DatasetError, match=f"'{dataset}'.* is unknown"):
                asked()

    def test_that_an_open_dataset_is_not_staged(self, catalogue: DatasetCatalogue, dataset: str, desk: Path) -> None:
        catalogue.create(dataset)
        with pytest.raises(DatasetError, match=f"'{dataset}' is not complete"):
            catalogue.stage(dataset, desk)

    def test_that_an_empty_dataset_is_staged_as_nothing(
        self, catalogue: DatasetCatalogue, dataset: str, desk: Path
    ) -> None:
        catalogue.create(dataset)
        catalogue.close(dataset)
        assert catalogue.stage(dataset, desk) == []

    def test_that_staging_does_not_overwrite_a_file(
        self, catalogue: DatasetCatalogue, complete: str, desk: Path
    ) -> None:
        mine = desk / f"{complete}.x.txt"
        mine.write_text("mine")
        with pytest.raises(DatasetError, match=rf"has a file '{complete}\.x\.txt' already"):
            catalogue.stage(complete, desk)
        assert mine.read_text() == "mine"

    @pytest.mark.parametrize("damage", ["Wikipedib", "Wikipediaa"])
    def test_that_a_changed_file_is_found_out_when_it_is_staged(
        self, catalogue: DatasetCatalogue, complete: str, desk: Path, damage: str
    ) -> None:
        self.stored_file(catalogue, complete, f"{complete}.x.txt").write_text(damage)
        with pytest.raises(DatasetError, match=rf"{complete}\.x\.txt.*[Cc]hecksum"):
            catalogue.stage(complete, desk)

    def test_that_a_missing_file_is_found_out_when_it_is_staged(
        self, catalogue: DatasetCatalogue, complete: str, desk: Path
    ) -> None:
        self.stored_file(catalogue, complete, f"{complete}.x.txt").unlink()
        with pytest.raises(DatasetError, match=rf"cannot stage .*{complete}\.x\.txt"):
            catalogue.stage(complete, desk)

    def test_that_a_staged_copy_may_be_changed(self, catalogue: DatasetCatalogue, complete: str, desk: Path) -> None:
        catalogue.stage(complete, desk)
        (desk / f"{complete}.x.txt").write_text("changed by a job")
        assert self.stored_file(catalogue, complete, f"{complete}.x.txt").read_text() == "Wikipedia"
