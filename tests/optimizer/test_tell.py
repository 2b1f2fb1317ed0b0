"""Telling results and failures: what reaches Ax's data, and what is refused."""

from __future__ import annotations

import math

import pytest

from scheduler.errors import ConfigurationError, OptimizationError
from scheduler.optimizer import adapt


def rows(optimizer):
    """(trial, metric) -> (mean, sem), as Ax keeps them; no sem is None."""
    return {
        (row.trial_index, row.metric_name): (row.mean, None if math.isnan(row.sem) else row.sem)
        for row in optimizer.experiment.lookup_data().df.itertuples()
    }


def test_that_mean_and_error_reach_the_data(make_optimizer):
    optimizer = make_optimizer()
    optimizer.ask(1)

    optimizer.tell(0, {"f": (0.5, 0.125)})

    assert rows(optimizer) == {(0, "f"): (0.5, 0.125)}
    assert optimizer.experiment.trials[0].status.is_completed


def test_that_an_unknown_error_is_not_an_error_of_zero(make_optimizer):
    optimizer = make_optimizer(minimized={"f": True, "g": True})
    optimizer.ask(1)

    optimizer.tell(0, {"f": (0.5, None), "g": (2, 0.0)})

    assert rows(optimizer) == {(0, "f"): (0.5, None), (0, "g"): (2.0, 0.0)}


def test_that_other_names_become_tracking_metrics(make_optimizer):
    optimizer = make_optimizer()
    optimizer.ask(2)

    optimizer.tell(0, {"f": (0.5, None), "mass": (12.0, 0.5)})
    optimizer.tell(1, {"f": (0.5, None), "mass": (13.0, 0.5), "cost": (1.0, None)})

    assert rows(optimizer)[1, "mass"] == (13.0, 0.5)
    assert rows(optimizer)[1, "cost"] == (1.0, None)
    assert {metric.name for metric in optimizer.experiment.tracking_metrics} == {"mass", "cost"}
    assert optimizer.required_metrics == {"f"}


@pytest.mark.parametrize("errors_first", [True, False], ids=["errors first", "errors later"])
def test_that_metrics_with_errors_in_some_trials_only_lose_them_and_the_run_goes_on(
    make_optimizer, run, caplog, errors_first
):
    optimizer = make_optimizer()
    told = 0

    def measure(x, y):
        nonlocal told
        told += 1
        error = 0.25 if (told <= 2) == errors_first else None
        return {"f": (x * y, error), "mass": (x + y, error)}

    run(optimizer, 5, measure)
    proposal = optimizer.ask(1)  # Bayesian, and it would fail on a mixture

    assert len(proposal.candidates) == 1
    assert optimizer.standing().phase == "Bayesian optimization (BoTorch)"
    assert {error for _, error in rows(optimizer).values()} == {None}
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("scheduler.")]
    assert [warning.split(" comes")[0] for warning in warnings] == ["metric 'f'", "metric 'mass'"]


def test_that_a_missing_metric_is_refused_and_the_trial_goes_on(make_optimizer):
    optimizer = make_optimizer(minimized={"f": True, "g": False}, constraints=["h <= 3"])
    optimizer.ask(1)

    with pytest.raises(OptimizationError, match="trial 0 has no g, h"):
        optimizer.tell(0, {"f": (0.5, None)})

    assert optimizer.experiment.trials[0].status.is_running
    assert rows(optimizer) == {}


def test_that_nothing_is_told_twice(make_optimizer):
    optimizer = make_optimizer()
    optimizer.ask(2)
    optimizer.tell(0, {"f": (0.5, None)})
    optimizer.tell_failed(1, "killed")

    with pytest.raises(OptimizationError, match="trial 0 is completed"):
        optimizer.tell(0, {"f": (0.7, None)})
    with pytest.raises(OptimizationError, match="trial 0 is completed"):
        optimizer.tell_failed(0, "late news")
    with pytest.raises(OptimizationError, match="trial 1 is failed"):
        optimizer.tell(1, {"f": (0.7, None)})

    assert rows(optimizer) == {(0, "f"): (0.5, None)}


def test_that_an_unknown_trial_takes_no_outcome(make_optimizer):
    with pytest.raises(ConfigurationError, match="no trial 9"):
        make_optimizer().tell(9, {"f": (0.5, None)})


def test_that_what_ax_refuses_is_said_with_its_reason(make_optimizer):
    optimizer = make_optimizer()
    optimizer.ask(1)

    with pytest.raises(OptimizationError, match=r"result of trial 0: .*not a number") as caught:
        optimizer.tell(0, {"f": ("not a number", None)})

    assert caught.value.__cause__ is not None
    assert optimizer.standing().best == ""


def test_that_the_reason_of_a_failure_is_kept_with_the_trial(make_optimizer):
    optimizer = make_optimizer()
    optimizer.ask(1)

    optimizer.tell_failed(0, "step 'sim' ran out of memory")

    trial = optimizer.experiment.trials[0]
    assert trial.status.is_failed
    assert "step 'sim' ran out of memory" in (trial.status_reason or trial.run_metadata["failure"])


def test_that_the_client_sees_what_the_optimizer_does(make_client):
    client = make_client()
    optimizer = adapt(client)
    optimizer.ask(1)
    optimizer.tell(0, {"f": (0.5, None)})

    assert adapt(client).standing().best == "f 0.5 in trial 0"
