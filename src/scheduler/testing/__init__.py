"""What tests of the scheduler, of runners and of optimizers are made with; shipped for authors of plug-ins."""

from scheduler.testing.fake_optimizer import FakeOptimizer as FakeOptimizer
from scheduler.testing.fake_runner import Fate as Fate
from scheduler.testing.fake_runner import FakeRunner as FakeRunner
from scheduler.testing.simulation import InlineLane as InlineLane
from scheduler.testing.simulation import SimulatedMailbox as SimulatedMailbox
