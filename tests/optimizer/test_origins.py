"""A state that was saved early, brought up to date from what events tell, is that of the undisturbed run."""

from __future__ import annotations

import json

import pytest

from scheduler.errors import OptimizationError
from scheduler.optimizer import restore


def measure(candidate):
    return {"f": ((candidate.parameters["x"] - 0.3) ** 2 + (candidate.parameters["y"] - 0.6) ** 2, None)}


def ask_and_tell(optimizer, count):
    """Trials run one by one; returns what events would tell of them."""
    story = []
    for _ in range(count):
        (candidate,) = optimizer.ask(1).candidates
        story.append((candidate, optimizer.origin(candidate.index)))
        optimizer.tell(candidate.index, measure(candidate))
    return story


def bring_up_to_date(optimizer, story):
    for candidate, origin in story:
        optimizer.adopt(candidate, origin)
        optimizer.tell(candidate.index, measure(candidate))


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 3), (2, 2)])
def test_that_the_quasi_random_sequence_goes_on_where_it_was(make_optimizer, before, after):
    optimizer = make_optimizer(seed=None)
    ask_and_tell(optimizer, before)
    saved = optimizer.snapshot()
    story = ask_and_tell(optimizer, after)

    restored = restore(saved)
    bring_up_to_date(restored, story)

    assert restored.ask(1) == optimizer.ask(1)
    assert restored.standing() == optimizer.standing()


def test_that_the_phase_changes_at_the_same_trial(make_optimizer):
    optimizer = make_optimizer()
    ask_and_tell(optimizer, 2)
    saved = optimizer.snapshot()
    story = ask_and_tell(optimizer, 5)

    restored = restore(saved)
    bring_up_to_date(restored, story)

    assert restored.standing() == optimizer.standing()
    assert restored.standing().phase == "Bayesian optimization (BoTorch)"
    assert [c.index for c in restored.ask(1).candidates] == [c.index for c in optimizer.ask(1).candidates] == [7]
    assert json.loads(restored.snapshot()).keys() == json.loads(optimizer.snapshot()).keys()


def test_that_a_pending_trial_is_pending_again(make_optimizer):
    optimizer = make_optimizer()
    ask_and_tell(optimizer, 1)
    saved = optimizer.snapshot()
    (candidate,) = optimizer.ask(1).candidates

    restored = restore(saved)
    restored.adopt(candidate, optimizer.origin(candidate.index))

    assert restored.candidate(candidate.index) == candidate
    assert restored.experiment.trials[candidate.index].status.is_running


def test_that_an_attached_design_has_no_origin_and_is_attached_again(make_optimizer):
    optimizer = make_optimizer()
    ask_and_tell(optimizer, 1)
    saved = optimizer.snapshot()
    candidate = optimizer.attach({"x": 0.25, "y": 0.75})

    restored = restore(saved)

    assert optimizer.origin(candidate.index) is None
    restored.adopt(candidate, None)
    assert restored.candidate(candidate.index) == candidate


def test_that_a_gap_in_the_story_is_refused(make_optimizer):
    optimizer = make_optimizer()
    ask_and_tell(optimizer, 1)
    saved = optimizer.snapshot()
    _, (candidate, origin) = ask_and_tell(optimizer, 2)

    with pytest.raises(OptimizationError, match="trial 2 would become trial 1"):
        restore(saved).adopt(candidate, origin)
