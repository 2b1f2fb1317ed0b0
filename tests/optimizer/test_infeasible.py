"""Infeasible designs in real Ax: what its models learn of them, and that everything else goes on."""

from __future__ import annotations

import logging

import pytest

from scheduler.optimizer import restore

LIMIT = 0.3


def play(optimizer, trials, *, names):
    """Ask and tell; designs with x below the limit are found infeasible before their objectives are known."""
    infeasible = []
    for _ in range(trials):
        (candidate,) = optimizer.ask(1).candidates
        x, y = candidate.parameters["x"], candidate.parameters["y"]
        if x < LIMIT:
            optimizer.tell_infeasible(candidate.index, "x is too small", {"c": (x - LIMIT, None)})
            infeasible.append(candidate.index)
        else:
            values = {"f": x + 0.1 * y, "g": 1 - x + y}
            optimizer.tell(candidate.index, {name: (values[name], None) for name in names} | {"c": (x - LIMIT, None)})
    return infeasible


def training_sizes(optimizer):
    """Metric -> how many observations Ax's last model was fitted to."""
    datasets = optimizer._service.strategy.adapter.generator.surrogate.training_data
    return {name: len(each.X) for each in datasets for name in each.outcome_names}


@pytest.mark.parametrize("names", [("f",), ("f", "g")], ids=["one objective", "two objectives"])
def test_that_the_constraint_is_learned_and_the_objectives_are_not_made_up(make_optimizer, names):
    optimizer = make_optimizer(minimized=dict.fromkeys(names, True), constraints=["c >= 0"])

    infeasible = play(optimizer, 9, names=names)

    assert infeasible, "the problem should have infeasible designs"
    sizes = training_sizes(optimizer)
    before_last = {index for index in infeasible if index < 8}
    assert sizes["c"] == 8
    assert {sizes[name] for name in names} == {8 - len(before_last)}
    statuses = {optimizer.experiment.trials[index].status.name for index in infeasible}
    assert statuses == {"COMPLETED"}
    best = [optimizer.best_parameters()] if len(names) == 1 else [each for each, _ in optimizer.pareto().values()]
    assert best
    assert all(design["x"] > LIMIT - 0.05 for design in best)


def test_that_infeasible_designs_do_not_use_up_the_initialization(make_optimizer):
    optimizer = make_optimizer(constraints=["c >= 0"])
    for index in range(14):
        (candidate,) = optimizer.ask(1).candidates
        if index < 7:
            optimizer.tell_infeasible(candidate.index, "why", {"c": (-1.0, None)})
        else:
            optimizer.tell(candidate.index, {"f": (1.0 - 0.1 * index, None), "c": (1.0, None)})
    assert "Bayesian" in optimizer.standing().phase
    assert {trial.status.name for trial in optimizer.experiment.trials.values()} == {"COMPLETED"}


def test_that_a_design_without_a_constraint_is_abandoned(make_optimizer):
    optimizer = make_optimizer()
    optimizer.ask(1)
    optimizer.tell_infeasible(0, "it does not fit into the hall", None)
    assert optimizer.experiment.trials[0].status.is_abandoned
    assert not optimizer.has_results


def test_that_the_constrained_metrics_are_those_of_the_experiment(make_optimizer):
    assert make_optimizer(constraints=["c >= 0"]).constrained_metrics == {"c"}
    assert make_optimizer().constrained_metrics == frozenset()


def test_that_a_value_that_keeps_the_constraint_is_told_with_a_warning(make_optimizer, caplog):
    optimizer = make_optimizer(constraints=["c >= 0"])
    optimizer.ask(1)
    with caplog.at_level(logging.WARNING):
        optimizer.tell_infeasible(0, "why", {"c": (1.0, None)})
    assert "keeps the constraint" in caplog.text
    assert optimizer._partial == {0: {"c": (1.0, None)}}


def test_that_errors_stay_all_or_none_when_infeasible_designs_have_them(make_optimizer):
    optimizer = make_optimizer(constraints=["c >= 0"])
    optimizer.ask(2)
    optimizer.tell_infeasible(0, "why", {"c": (-1.0, 0.5)})
    optimizer.tell(1, {"f": (1.0, None), "c": (1.0, None)})
    rows = optimizer.experiment.lookup_data().df
    assert rows[rows.metric_name == "c"]["sem"].isna().all()


def test_that_infeasible_designs_survive_a_snapshot(make_optimizer):
    optimizer = make_optimizer(constraints=["c >= 0"])
    infeasible = play(optimizer, 7, names=("f",))
    again = restore(optimizer.snapshot())
    assert sorted(again._partial) == infeasible
    assert again.standing() == optimizer.standing()
    assert again.ask(1).candidates
