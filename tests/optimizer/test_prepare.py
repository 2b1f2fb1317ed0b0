"""Designs made ahead in real Ax: no trace of them before they become trials, and nothing else changes."""

from __future__ import annotations

import pytest

from scheduler.core.specs import Function, StepSpec, WorkflowSpec
from scheduler.engine import Engine, EngineSettings
from scheduler.optimizer import Candidate, restore
from scheduler.testing import FakeRunner, MemoryRun


def value(parameters):
    return {"f": ((parameters["x"] - 0.3) ** 2 + (parameters["y"] - 0.6) ** 2, None)}


def play(optimizer, trials):
    for _ in range(trials):
        (candidate,) = optimizer.ask(1).candidates
        optimizer.tell(candidate.index, value(candidate.parameters))


def test_that_a_design_that_is_forgotten_leaves_no_trace(make_optimizer):
    optimizer, undisturbed = make_optimizer(), make_optimizer()
    for each in (optimizer, undisturbed):
        play(each, 7)

    made = optimizer.prepare()

    assert made.goes_stale
    assert optimizer.next_index == 7
    (candidate,) = optimizer.ask(1).candidates
    (expected,) = undisturbed.ask(1).candidates
    assert candidate.parameters == pytest.approx(expected.parameters, abs=1e-6)


def test_that_a_quasi_random_design_that_is_lost_in_a_crash_is_made_again(make_optimizer):
    optimizer = make_optimizer()
    play(optimizer, 2)

    made = optimizer.prepare()
    resumed = restore(optimizer.snapshot())

    assert not made.goes_stale
    assert resumed.ask(1).candidates[0].parameters == pytest.approx(made.parameters, abs=1e-9)


def test_that_a_quasi_random_design_that_is_forgotten_is_the_next_one_again(make_optimizer):
    optimizer, undisturbed = make_optimizer(), make_optimizer()
    for each in (optimizer, undisturbed):
        play(each, 2)

    made = optimizer.prepare()
    designs = [[each.ask(1).candidates[0].parameters for _ in range(2)] for each in (optimizer, undisturbed)]

    assert designs[0][0] == made.parameters
    assert designs[0] == designs[1]


@pytest.mark.parametrize("trials", [1, 7], ids=["quasi-random", "model"])
def test_that_a_design_that_is_taken_is_the_trial_that_asking_would_have_made(make_optimizer, trials):
    optimizer, undisturbed = make_optimizer(), make_optimizer()
    for each in (optimizer, undisturbed):
        play(each, trials)

    made = optimizer.prepare()
    optimizer.adopt(Candidate(optimizer.next_index, made.parameters), made.origin)

    (expected,) = undisturbed.ask(1).candidates
    assert optimizer.candidate(trials).parameters == pytest.approx(expected.parameters, abs=1e-6)
    for each in (optimizer, undisturbed):
        each.tell(trials, value(each.candidate(trials).parameters))
    (later,), (expected,) = optimizer.ask(1).candidates, undisturbed.ask(1).candidates
    assert later.parameters == pytest.approx(expected.parameters, abs=1e-3)
    assert restore(optimizer.snapshot()).next_index == trials + 2


def test_that_the_limits_of_the_strategy_hold_for_what_is_made_ahead(make_optimizer):
    optimizer = make_optimizer()
    while optimizer.ask(1).candidates:
        assert optimizer.next_index < 20
    assert optimizer.prepare() is None


def test_that_with_one_place_the_engine_makes_the_designs_of_a_bare_loop(make_optimizer):
    bare, through = make_optimizer(), make_optimizer()
    play(bare, 8)
    workflow = WorkflowSpec(
        (StepSpec("only", Function(lambda x, y: {"f": value({"x": x, "y": y})["f"][0]}), "fake"),), "only"
    )
    engine = Engine(
        workflow, through, {"fake": FakeRunner()}, MemoryRun(), settings=EngineSettings(max_parallel_trials=1)
    )
    engine.optimize(8)
    engine.close()

    for index in range(8):
        assert through.candidate(index).parameters == pytest.approx(bare.candidate(index).parameters, abs=1e-6)


def test_that_torch_gets_its_threads_back(make_optimizer):
    import torch

    optimizer, before = make_optimizer(), torch.get_num_threads()
    optimizer.threads = before + 2
    with optimizer.at_work():
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before
    optimizer.threads = None
    with optimizer.at_work():
        assert torch.get_num_threads() == before
