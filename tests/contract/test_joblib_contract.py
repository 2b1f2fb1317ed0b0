"""JobLibRunner keeps the contract of runners, with each of its backends."""

import pytest

from scheduler.runners.joblib_runner import JobLibRunner
from scheduler.testing import RunnerContract


class TestFreshInterpreters(RunnerContract):
    @pytest.fixture
    def runner(self):
        return JobLibRunner(n_jobs=2)


class TestForksOfTheProgram(RunnerContract):
    @pytest.fixture
    def runner(self):
        return JobLibRunner(n_jobs=2, backend="multiprocessing")


class TestThreads(RunnerContract):
    runs_processes = False
    limits_memory = False

    @pytest.fixture
    def runner(self):
        return JobLibRunner(n_jobs=2, backend="threading")
