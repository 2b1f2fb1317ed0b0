"""The cache in front of a runner keeps the contract of runners, with attempts that are cached and with others."""

import inspect
from dataclasses import replace

import pytest

from scheduler.caching.entries import StepCache
from scheduler.caching.runner import CachingRunner
from scheduler.runners.base_runner import BaseRunner
from scheduler.runners.joblib_runner import JobLibRunner
from scheduler.testing import RunnerContract


class EveryAttemptIsCached(CachingRunner):
    def submit(self, batch):
        return super().submit([replace(attempt, cache=True) for attempt in batch])


class TestInFrontOfLocalWorkers(RunnerContract):
    @pytest.fixture
    def runner(self, tmp_path):
        return CachingRunner(JobLibRunner(n_jobs=2), StepCache(tmp_path / "cache"), run_id="r")


class TestMissesOfLocalWorkers(RunnerContract):
    @pytest.fixture
    def runner(self, tmp_path):
        return EveryAttemptIsCached(JobLibRunner(n_jobs=2), StepCache(tmp_path / "cache"), run_id="r")


def test_that_the_cache_passes_on_every_question_that_a_runner_can_be_asked():
    asked = {
        name for name, member in vars(BaseRunner).items() if not name.startswith("_") and inspect.isroutine(member)
    }

    assert asked - {"wake"} <= vars(CachingRunner).keys()


def test_that_the_cache_has_every_ability_of_its_runner(tmp_path):
    runner = JobLibRunner(n_jobs=3)
    cached = CachingRunner(runner, StepCache(tmp_path), run_id="r")

    abilities = [name for name, value in vars(BaseRunner).items() if not name.startswith("_") and not callable(value)]
    assert {name: getattr(cached, name) for name in abilities} == {name: getattr(runner, name) for name in abilities}
