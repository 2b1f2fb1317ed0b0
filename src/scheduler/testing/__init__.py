"""What tests of the scheduler, of runners and of optimizers are made with; shipped for authors of plug-ins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.testing.fake_optimizer import FakeOptimizer as FakeOptimizer
from scheduler.testing.fake_runner import FakeRunner as FakeRunner
from scheduler.testing.fake_runner import Fate as Fate
from scheduler.testing.memory_run import MemoryRun as MemoryRun
from scheduler.testing.simulation import InlineLane as InlineLane
from scheduler.testing.simulation import SimulatedMailbox as SimulatedMailbox

if TYPE_CHECKING:
    from scheduler.testing.catalogue_contract import CatalogueContract as CatalogueContract
    from scheduler.testing.runner_contract import RunnerContract as RunnerContract


def __getattr__(name: str) -> object:
    # The contracts need pytest, which the fakes do not.
    if name == "RunnerContract":
        from scheduler.testing.runner_contract import RunnerContract

        return RunnerContract
    if name == "CatalogueContract":
        from scheduler.testing.catalogue_contract import CatalogueContract

        return CatalogueContract
    raise AttributeError(f"module 'scheduler.testing' has no attribute {name!r}")
