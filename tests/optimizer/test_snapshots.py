"""Taking a picture of the optimizer and going on from it."""

from __future__ import annotations

import json

import pytest

from scheduler.errors import ConfigurationError, OptimizationError
from scheduler.optimizer import adapt, restore


def test_that_the_next_sobol_points_are_the_same(make_optimizer, run):
    optimizer = make_optimizer(seed=None)
    run(optimizer, 2)
    optimizer.ask(1)

    restored = restore(optimizer.snapshot())

    assert restored.ask(2) == optimizer.ask(2)


def test_that_pending_trials_are_still_pending_and_can_be_told(make_optimizer, run):
    optimizer = make_optimizer()
    run(optimizer, 2)
    (pending,) = optimizer.ask(1).candidates
    (failed,) = optimizer.ask(1).candidates
    optimizer.tell_failed(failed.index, "killed")

    restored = restore(optimizer.snapshot())

    assert restored.candidate(pending.index) == pending
    assert restored.experiment.trials[pending.index].status.is_running
    assert restored.experiment.trials[failed.index].status.is_failed
    assert restored.standing() == optimizer.standing()
    restored.tell(pending.index, {"f": (-9.0, None)})
    assert restored.standing().best == f"f -9 in trial {pending.index}"


def test_that_bayesian_optimization_goes_on(make_optimizer, run):
    optimizer = make_optimizer()
    run(optimizer, 6)
    (pending,) = optimizer.ask(1).candidates

    restored = restore(optimizer.snapshot())

    assert restored.standing().phase == "Bayesian optimization (BoTorch)"
    assert restored.best_parameters() == pytest.approx(optimizer.best_parameters())
    restored.tell(pending.index, {"f": (0.5, None)})
    assert [candidate.index for candidate in restored.ask(1).candidates] == [7]


def test_that_names_objectives_thresholds_and_errors_survive(make_optimizer):
    optimizer = make_optimizer(
        minimized={"f": True, "g": False}, thresholds={"f": 3.0, "g": 0.5}, constraints=["h <= 3"]
    )
    optimizer.ask(1)
    optimizer.tell(0, {"f": (1.0, 0.25), "g": (2.0, None), "h": (0.0, None), "mass": (4.0, None)})

    restored = restore(optimizer.snapshot())

    assert (restored.name, restored.objectives) == ("round", {"f": True, "g": False})
    assert restored.required_metrics == {"f", "g", "h"}
    assert restored.standing() == optimizer.standing()
    assert restored.experiment.lookup_data() == optimizer.experiment.lookup_data()


def test_that_the_random_seed_survives(make_optimizer):
    optimizer = make_optimizer(seed=11)

    assert restore(optimizer.snapshot()).client._random_seed == 11


def test_that_a_snapshot_before_the_first_candidate_is_good(make_optimizer):
    optimizer = make_optimizer(seed=3)

    assert restore(optimizer.snapshot()).ask(3) == optimizer.ask(3)


def test_that_a_snapshot_of_a_restored_optimizer_is_as_good(make_optimizer, run):
    optimizer = make_optimizer()
    run(optimizer, 2)

    twice = restore(restore(optimizer.snapshot()).snapshot())

    assert twice.ask(1) == optimizer.ask(1)


def test_that_later_snapshots_of_one_optimizer_hold_all_that_happened(make_optimizer, run):
    optimizer = make_optimizer()
    run(optimizer, 2)
    optimizer.snapshot()
    run(optimizer, 2)

    later = optimizer.snapshot()

    assert later == adapt(optimizer.client).snapshot()
    assert len(json.loads(later)["generator_runs"]) == 4


def test_that_settings_of_ax_client_survive():
    from ax.global_stopping.strategies.improvement import ImprovementGlobalStoppingStrategy
    from ax.service.ax_client import AxClient, ObjectiveProperties

    client = AxClient(
        enforce_sequential_optimization=False,
        random_seed=5,
        global_stopping_strategy=ImprovementGlobalStoppingStrategy(min_trials=3, window_size=2),
    )
    client.create_experiment(
        parameters=[{"name": "x", "type": "range", "bounds": [0.0, 1.0]}],
        objectives={"f": ObjectiveProperties(minimize=True)},
    )

    restored = restore(adapt(client).snapshot()).client

    assert restored._enforce_sequential_optimization is False
    assert restored._random_seed == 5
    assert restored.global_stopping_strategy == client.global_stopping_strategy


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", "null", '{"format": 1}'])
def test_that_a_text_that_is_no_snapshot_is_refused(text):
    with pytest.raises(ConfigurationError, match="no snapshot"):
        restore(text)


def test_that_a_snapshot_of_another_version_is_refused_with_what_to_do(make_optimizer):
    content = json.loads(make_optimizer().snapshot())

    with pytest.raises(ConfigurationError, match=r"format 99.*version"):
        restore(json.dumps({**content, "format": 99}))
    with pytest.raises(ConfigurationError, match="unknown client 'Other'"):
        restore(json.dumps({**content, "client": "Other"}))


def test_that_a_damaged_snapshot_is_refused(make_optimizer):
    content = json.loads(make_optimizer().snapshot())
    del content["experiment"]["search_space"]

    with pytest.raises(ConfigurationError, match="cannot read this snapshot"):
        restore(json.dumps(content))


def test_that_what_has_no_form_in_json_is_said(make_optimizer, breaking):
    with pytest.raises(OptimizationError, match="cannot put this experiment into JSON"):
        make_optimizer(strategy=breaking(at_call=99)).snapshot()


def test_that_a_snapshot_of_ax_client_says_what_to_do_where_ax_has_none(make_ax_optimizer, monkeypatch):
    import ax.service.ax_client

    snapshot = make_ax_optimizer().snapshot()
    monkeypatch.delattr(ax.service.ax_client, "AxClient")

    with pytest.raises(ConfigurationError, match=r"ax-platform<1\.4"):
        restore(snapshot)
