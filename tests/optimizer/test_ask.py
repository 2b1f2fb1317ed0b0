"""Asking for candidates: the limits of the strategy, its end, and its failures."""

from __future__ import annotations

import pytest

from scheduler.errors import ConfigurationError, GenerationError
from scheduler.optimizer import Candidate, adapt


def test_that_asking_for_one_makes_one_trial(make_optimizer):
    optimizer = make_optimizer()

    proposal = optimizer.ask(1)

    assert len(proposal.candidates) == 1
    assert not proposal.must_wait
    assert not proposal.is_complete
    assert list(optimizer.experiment.trials) == [0]
    assert optimizer.experiment.trials[0].status.is_running


def test_that_asking_for_none_makes_none(make_optimizer):
    optimizer = make_optimizer()

    assert optimizer.ask(0).candidates == ()
    assert not optimizer.experiment.trials


def test_that_candidates_have_plain_python_values(make_optimizer):
    (candidate,) = make_optimizer().ask(1).candidates

    assert {type(value) for value in candidate.parameters.values()} == {float}
    assert candidate.parameters.keys() == {"x", "y"}


def test_that_a_batch_stops_where_the_strategy_wants_data(make_optimizer):
    optimizer = make_optimizer()

    proposal = optimizer.ask(20)

    assert [candidate.index for candidate in proposal.candidates] == [0, 1, 2, 3, 4]
    assert proposal.must_wait
    assert not proposal.is_complete
    assert len(optimizer.experiment.trials) == 5
    again = optimizer.ask(1)
    assert again.candidates == ()
    assert again.must_wait


def test_that_the_strategy_s_limit_of_parallel_trials_is_obeyed(make_optimizer, sobol):
    optimizer = make_optimizer(strategy=sobol(max_parallelism=3))

    first = optimizer.ask(10)
    optimizer.tell(first.candidates[0].index, {"f": (1.0, None)})
    second = optimizer.ask(10)

    assert (len(first.candidates), first.must_wait) == (3, True)
    assert (len(second.candidates), second.must_wait) == (1, True)


def test_that_a_strategy_without_limit_gives_what_is_asked_for(make_optimizer, sobol):
    proposal = make_optimizer(strategy=sobol()).ask(7)

    assert len(proposal.candidates) == 7
    assert len({tuple(candidate.parameters.values()) for candidate in proposal.candidates}) == 7
    assert not proposal.must_wait


def test_that_the_end_of_a_strategy_is_completion(make_optimizer, sobol):
    optimizer = make_optimizer(strategy=sobol(3))

    proposal = optimizer.ask(5)

    assert len(proposal.candidates) == 3
    assert proposal.is_complete
    assert optimizer.ask(1).is_complete


def test_that_an_exhausted_search_space_is_completion(make_optimizer, breaking):
    from ax.exceptions.core import SearchSpaceExhausted

    optimizer = make_optimizer(strategy=breaking(at_call=3, error=SearchSpaceExhausted))

    proposal = optimizer.ask(50)

    assert len(proposal.candidates) == 2
    assert proposal.is_complete


def test_that_completion_by_a_global_stopping_strategy_is_completion(sobol):
    from ax.global_stopping.strategies.base import BaseGlobalStoppingStrategy
    from ax.service.ax_client import AxClient, ObjectiveProperties

    class StopAfterOneTrial(BaseGlobalStoppingStrategy):
        def _should_stop_optimization(self, experiment):
            return len(experiment.trials) >= 1, "enough"

    client = AxClient(
        generation_strategy=sobol(),
        global_stopping_strategy=StopAfterOneTrial(min_trials=0, inactive_when_pending_trials=False),
    )
    client.create_experiment(
        parameters=[{"name": "x", "type": "range", "bounds": [0.0, 1.0]}],
        objectives={"f": ObjectiveProperties(minimize=True)},
    )
    optimizer = adapt(client)

    proposal = optimizer.ask(5)

    assert len(proposal.candidates) == 1
    assert proposal.is_complete


def test_that_a_failing_generator_raises_with_its_exception_as_the_cause(make_optimizer, breaking):
    optimizer = make_optimizer(strategy=breaking(at_call=1))

    with pytest.raises(GenerationError, match="trial 0 in phase 'Breaking': ArithmeticError: the generator broke") as e:
        optimizer.ask(1)

    assert isinstance(e.value.__cause__, ArithmeticError)
    assert not optimizer.experiment.trials


def test_that_a_failure_of_the_model_is_no_completion(make_optimizer, run):
    optimizer = make_optimizer()
    first, *_ = run(optimizer, 5)
    # Behind the optimizer's back: errors for one trial only, which BoTorch refuses to model.
    optimizer.experiment.trials[first].update_trial_data(raw_data={"f": (1.0, 0.1)})

    with pytest.raises(GenerationError, match=r"trial 5 in phase 'Bayesian optimization \(BoTorch\)'"):
        optimizer.ask(1)


def test_that_candidates_made_before_a_failure_are_not_lost(make_optimizer, breaking, caplog):
    optimizer = make_optimizer(strategy=breaking(at_call=3))

    proposal = optimizer.ask(5)

    assert [candidate.index for candidate in proposal.candidates] == [0, 1]
    assert not proposal.must_wait
    assert not proposal.is_complete
    assert "the generator broke" in caplog.text
    assert [candidate.index for candidate in optimizer.ask(1).candidates] == [2]


def test_that_failed_trials_do_not_block_the_strategy(make_optimizer):
    optimizer = make_optimizer()

    for candidate in optimizer.ask(5).candidates:
        optimizer.tell_failed(candidate.index, "out of memory")
    proposal = optimizer.ask(2)

    assert [candidate.index for candidate in proposal.candidates] == [5, 6]
    assert optimizer.standing().phase == "Sobol"


def test_that_waiting_with_nothing_pending_is_said_as_waiting(make_optimizer):
    optimizer = make_optimizer()
    for candidate in optimizer.ask(5).candidates:
        optimizer.experiment.trials[candidate.index].mark_completed()  # without any data

    proposal = optimizer.ask(1)

    assert proposal.candidates == ()
    assert proposal.must_wait
    assert not proposal.is_complete


def test_that_the_user_s_own_design_becomes_a_running_trial(make_optimizer):
    optimizer = make_optimizer()

    candidate = optimizer.attach({"x": 0.25, "y": 0.75})

    assert candidate == Candidate(0, {"x": 0.25, "y": 0.75})
    assert optimizer.experiment.trials[0].status.is_running
    assert optimizer.candidate(0) == candidate


@pytest.mark.parametrize(
    "parameters",
    [{"x": 0.5}, {"x": 0.5, "y": 0.5, "z": 0.5}, {}, {"x": [1], "y": 0.5}],
    ids=["missing", "unknown", "empty", "of the wrong type"],
)
def test_that_a_design_outside_the_space_is_refused_with_its_values(make_optimizer, parameters):
    optimizer = make_optimizer()

    with pytest.raises(ConfigurationError) as caught:
        optimizer.attach(parameters)

    assert repr(parameters) in str(caught.value)
    assert not optimizer.experiment.trials


def test_that_an_unknown_trial_is_named_together_with_the_known_ones(make_optimizer):
    optimizer = make_optimizer()

    with pytest.raises(ConfigurationError, match="no trial 3: there is none yet"):
        optimizer.candidate(3)
    optimizer.ask(2)
    with pytest.raises(ConfigurationError, match="no trial 3: the trials are 0 to 1"):
        optimizer.candidate(3)
