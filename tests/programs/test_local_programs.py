"""The examples that need nothing but this machine's cores."""

import ast
import itertools
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


GATES_ON_THE_SITE = """
from scheduler import AxScheduler, Infeasible, PanDAiDDSRunner


def objective(x):
    if x > 6:
        raise Infeasible("too long", constraint="mass", value=x - 6)
    if x > 3:
        raise RuntimeError('#infeasible{"reason": "too heavy", "constraint": "mass", "value": 1.5}')
    return {"loss": x, "mass": x - 3}


if __name__ == "__main__":
    from ax.service.ax_client import AxClient, ObjectiveProperties

    client = AxClient(verbose_logging=False)
    client.create_experiment(
        name="gate",
        parameters=[{"name": "x", "type": "range", "bounds": [0.0, 9.0]}],
        objectives={"loss": ObjectiveProperties(minimize=True)},
        outcome_constraints=["mass <= 0.0"],
    )
    with AxScheduler(client, PanDAiDDSRunner(service="local", config={"slots": 2})) as scheduler:
        scheduler.set_objective_function(objective)
        trials = scheduler.run_batch([{"x": 1.0}, {"x": 4.0}, {"x": 8.0}])
        print("Trials:", [str(trial.state) for trial in trials])
        print("Told:", [client.experiment.trials[index].status.name.lower() for index in range(3)])
"""


def test_that_the_program_in_the_readme_runs_as_it_stands(programs, printed_value):
    (text,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    program = programs.write(text)

    outcome = program.run()

    assert outcome.returncode == 0, outcome.stderr
    assert printed_value(outcome.stdout, "Best parameters:").keys() == {"x", "y"}
    assert str(program.run_directory) in outcome.stdout


def test_that_one_objective_finds_the_minimum(programs, printed_value):
    program = programs.example("local_one_objective.py")

    outcome = program.run()

    assert outcome.returncode == 0, outcome.stderr
    best = printed_value(outcome.stdout, "Best parameters:")
    assert best == {"radius": pytest.approx(0.5, abs=0.35), "pressure": pytest.approx(1.5, abs=0.35)}


def test_that_a_gate_ends_infeasible_trials_early_and_they_are_no_failures(programs, printed_value):
    program = programs.example("local_gate.py")

    outcome = program.run()

    assert outcome.returncode == 0, outcome.stderr
    best = printed_value(outcome.stdout, "Best parameters:")
    assert best["thickness"] <= 0.8 * best["radius"] + 0.05
    states = printed_value(outcome.stdout, "Trials:")
    assert states.keys() == {"completed", "infeasible"}
    assert sum(states.values()) == 12
    assert "infeasible: the layers overlap" in outcome.stdout


def test_that_gates_work_on_the_embedded_site_also_when_written_by_hand(programs, printed_value):
    program = programs.write(GATES_ON_THE_SITE)

    outcome = program.run()

    assert outcome.returncode == 0, outcome.stderr
    assert printed_value(outcome.stdout, "Trials:") == ["completed", "infeasible", "infeasible"]
    # With a whole result to begin a model with, Ax takes the constraint of the other two.
    assert printed_value(outcome.stdout, "Told:") == ["completed", "completed", "completed"]


@pytest.mark.parametrize("name", ["local_two_objectives.py", "local_explicit_strategy.py"])
def test_that_two_objectives_give_a_pareto_set(programs, name):
    program = programs.example(name)

    outcome = program.run()

    assert outcome.returncode == 0, outcome.stderr
    designs = _pareto_designs(outcome.stdout)
    assert len(designs) >= 3
    for one, other in itertools.permutations(map(_objectives, designs), 2):
        gains = [mine - theirs for mine, theirs in zip(one, other, strict=True)]
        assert min(gains) < 0.02, f"{one} is worse than {other} in everything"


def _pareto_designs(out):
    lines = [line.partition(": ")[2] for line in out.splitlines() if line.startswith("Pareto trial ")]
    return [ast.literal_eval(line.partition(" -> ")[0]) for line in lines]


def _objectives(design):
    radius, thickness = design["radius"], design["thickness"]
    return (radius - 1) ** 2 + (thickness - 1) ** 2, radius**2 + thickness**2
