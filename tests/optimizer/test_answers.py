"""How it stands, the best parameters and the Pareto set."""

from __future__ import annotations

import logging

import pytest

from scheduler.errors import NoSuccessfulTrialError, OptimizationError
from scheduler.optimizer import adapt


def two_goals(x, y):
    return {"f": (x**2 + y**2, 0.01), "g": ((x - 1) ** 2 + y**2, 0.01)}


def test_that_the_phase_is_said_in_words(make_optimizer, run):
    optimizer = make_optimizer()

    phases = []
    for _ in range(6):
        run(optimizer, 1)
        phases.append(optimizer.standing().phase)

    assert phases[0] in {"Sobol", "center of the search space"}
    assert phases[1:5] == ["Sobol"] * 4
    assert phases[5] == "Bayesian optimization (BoTorch)"


def test_that_a_node_of_the_user_is_called_by_its_name(make_optimizer, breaking):
    assert make_optimizer(strategy=breaking(at_call=99)).standing().phase == "Breaking"


def test_that_data_from_before_the_adaption_count(make_client, run):
    client = make_client()
    first = adapt(client)
    run(first, 3)
    first.tell_failed(first.ask(1).candidates[0].index, "killed")

    second = adapt(client)

    assert second.standing() == first.standing()
    assert second.standing().best.startswith("f ")


def test_that_trials_without_all_metrics_do_not_count(make_client):
    client = make_client(minimized={"f": True, "g": True})
    optimizer = adapt(client)
    optimizer.ask(2)
    optimizer.tell(0, {"f": (1.0, None), "g": (1.0, None)})
    partial = optimizer.experiment.trials[1]
    partial.update_trial_data(raw_data={"f": 0.0})
    partial.mark_completed()

    assert adapt(client).standing().best == "1 trial in the Pareto set"


def test_that_thresholds_and_constraints_of_the_experiment_decide_what_is_best(make_optimizer):
    optimizer = make_optimizer(
        minimized={"f": True, "g": False}, thresholds={"f": 4.0, "g": 0.0}, constraints=["h >= 1"]
    )
    optimizer.ask(3)

    optimizer.tell(0, {"f": (1.0, None), "g": (9.0, None), "h": (0.0, None)})
    assert optimizer.standing().best == "none of 1 results keeps the constraints and thresholds"
    optimizer.tell(1, {"f": (5.0, None), "g": (9.0, None), "h": (2.0, None)})
    optimizer.tell(2, {"f": (1.0, None), "g": (2.0, None), "h": (2.0, None)})

    assert optimizer.standing().best == "hypervolume 6, 1 trial in the Pareto set"


def test_that_without_results_there_is_no_answer(make_optimizer):
    optimizer = make_optimizer()
    optimizer.tell_failed(optimizer.ask(1).candidates[0].index, "killed")

    with pytest.raises(NoSuccessfulTrialError):
        optimizer.best_parameters()
    with pytest.raises(NoSuccessfulTrialError):
        optimizer.pareto()


def test_that_one_result_is_the_best(make_optimizer, run):
    optimizer = make_optimizer()
    (only,) = run(optimizer, 1)

    assert optimizer.best_parameters() == optimizer.candidate(only).parameters


def test_that_the_best_of_the_sobol_points_is_the_observed_best(make_optimizer, run):
    optimizer = make_optimizer()
    run(optimizer, 4)

    best = optimizer.best_parameters()

    assert optimizer.standing().best.endswith(f"in trial {index_of(optimizer, best)}")
    assert {type(value) for value in best.values()} == {float}


def test_that_the_last_result_counts_although_no_candidate_was_made_since(make_optimizer, run):
    optimizer = make_optimizer()
    run(optimizer, 5)
    (last,) = optimizer.ask(1).candidates

    optimizer.tell(last.index, {"f": (-50.0, None)})

    assert optimizer.best_parameters() == last.parameters


def test_that_the_best_parameters_are_those_that_the_client_gives(make_client, run):
    client = make_client()
    optimizer = adapt(client)
    run(optimizer, 6)

    best = optimizer.best_parameters()

    get_best = getattr(client, "get_best_parameters", None) or client.get_best_parameterization
    assert best == pytest.approx(get_best()[0])


def test_that_observed_results_decide_where_the_model_fails(make_optimizer, run, caplog):
    optimizer = make_optimizer()
    first, *_ = run(optimizer, 5)
    optimizer.ask(1)
    # Behind the optimizer's back: errors for one trial only, which BoTorch refuses to model.
    optimizer.experiment.trials[first].update_trial_data(raw_data={"f": (-1.0, 0.1)})

    best = optimizer.best_parameters()

    assert best == optimizer.candidate(first).parameters
    assert "Ax failed to fit its model; the observed results decide" in caplog.text


def test_that_no_result_within_the_constraints_is_an_error_that_says_so(make_optimizer, run):
    optimizer = make_optimizer(constraints=["h <= 0"])
    run(optimizer, 2, lambda x, y: {"f": (x * y, 0.0), "h": (1.0 + x, 0.0)})

    with pytest.raises(OptimizationError, match=r"2 completed trials.*constraints"):
        optimizer.best_parameters()


def test_that_the_wrong_question_is_answered_with_the_right_one(make_optimizer, run):
    single, several = make_optimizer(), make_optimizer(minimized={"f": True, "g": True})
    run(single, 1)
    run(several, 1, two_goals)

    with pytest.raises(OptimizationError, match="best parameters"):
        single.pareto()
    with pytest.raises(OptimizationError, match="Pareto set"):
        several.best_parameters()


def test_that_both_clients_give_the_pareto_set_in_one_layout(make_optimizer, run):
    optimizer = make_optimizer(minimized={"f": True, "g": True}, thresholds={"f": 3.0, "g": 3.0})
    run(optimizer, 4, two_goals)

    pareto = optimizer.pareto()

    assert pareto
    for index, (parameters, (means, covariances)) in pareto.items():
        assert parameters == pytest.approx(optimizer.candidate(index).parameters)
        assert means.keys() == covariances.keys() == {"f", "g"}
        assert covariances["f"]["f"] >= 0
        assert {type(value) for value in (*parameters.values(), *means.values(), covariances["g"]["g"])} == {float}


def test_that_a_threshold_for_one_objective_only_still_gives_a_pareto_set(make_optimizer, run, caplog):
    caplog.set_level(logging.WARNING)
    optimizer = make_optimizer(minimized={"f": True, "g": True}, thresholds={"g": 3.0})
    run(optimizer, 4, two_goals)

    pareto = optimizer.pareto()

    assert pareto
    assert optimizer.standing().best.startswith(f"{len(pareto)} trial")
    parameters, (means, covariances) = next(iter(pareto.values()))
    assert means["f"] == pytest.approx(two_goals(**parameters)["f"][0])
    assert covariances["f"]["f"] == pytest.approx(0.0001)
    assert "observed results" in caplog.text


def test_that_a_pareto_set_of_nothing_within_the_thresholds_is_empty(make_optimizer, run, caplog):
    optimizer = make_optimizer(minimized={"f": True, "g": True}, thresholds={"f": -3.0, "g": -3.0})
    run(optimizer, 2, two_goals)

    assert optimizer.pareto() == {}
    assert "none of 2 results keeps the constraints and thresholds" in caplog.text


def index_of(optimizer, parameters):
    return next(i for i in optimizer.experiment.trials if optimizer.candidate(i).parameters == parameters)
