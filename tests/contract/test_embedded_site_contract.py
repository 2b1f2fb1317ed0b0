"""The embedded site keeps the contract of runners."""

from pathlib import Path

import pytest

from scheduler.runners.pandaidds_runner import PanDAiDDSRunner
from scheduler.testing import RunnerContract, payloads


class TestEmbeddedSite(RunnerContract):
    @pytest.fixture
    def runner(self):
        source_dir = Path(payloads.__file__).parent
        return PanDAiDDSRunner(source_dir=source_dir, service="local", config={"slots": 2})
