import pytest

from scheduler.panda.datasets import LocalCatalogue
from scheduler.testing import CatalogueContract


class TestLocalCatalogue(CatalogueContract):
    @pytest.fixture
    def catalogue(self, tmp_path):
        return LocalCatalogue(tmp_path / "datasets")

    def stored_file(self, catalogue, dataset, name):
        return catalogue.root / dataset / "files" / name
