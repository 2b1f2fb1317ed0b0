"""A generation strategy of one's own: eight quasi-random designs, then multi-objective Bayesian optimization."""

from ax.adapter.registry import Generators
from ax.api.client import Client
from ax.api.configs import RangeParameterConfig
from ax.core.trial_status import TrialStatus
from ax.generation_strategy.generation_node import GenerationNode
from ax.generation_strategy.generation_strategy import GenerationStrategy
from ax.generation_strategy.generator_spec import GeneratorSpec
from ax.generation_strategy.transition_criterion import MaxGenerationParallelism, MaxTrialsAwaitingData, MinTrials
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement

from scheduler import AxScheduler, JobLibRunner

SOBOL_TRIALS = 8
RESULTS_BEFORE_MODEL = 6
MODEL_TRIALS_AT_ONCE = 2


def evaluate_detector(radius, thickness):
    """A toy: the resolution is best at (1, 1) and the cost is lowest at (0, 0)."""
    return {
        "resolution": (radius - 1.0) ** 2 + (thickness - 1.0) ** 2,
        "cost": radius**2 + thickness**2,
    }


def make_strategy():
    """Sobol points first, then candidates that enlarge the hypervolume under the Pareto set."""
    lost = [TrialStatus.FAILED, TrialStatus.ABANDONED]
    sobol = GenerationNode(
        name="Sobol",
        generator_specs=[GeneratorSpec(generator_enum=Generators.SOBOL, generator_kwargs={"seed": 7})],
        transition_criteria=[
            MinTrials(threshold=SOBOL_TRIALS, transition_to="MOBO", not_in_statuses=lost),
            MinTrials(
                threshold=RESULTS_BEFORE_MODEL,
                transition_to="MOBO",
                only_in_statuses=[TrialStatus.COMPLETED],
                count_only_trials_with_data=True,
            ),
        ],
        pausing_criteria=[MaxTrialsAwaitingData(threshold=SOBOL_TRIALS, not_in_statuses=lost)],
    )
    mobo = GenerationNode(
        name="MOBO",
        generator_specs=[
            GeneratorSpec(
                generator_enum=Generators.BOTORCH_MODULAR,
                generator_kwargs={"botorch_acqf_class": qLogNoisyExpectedHypervolumeImprovement},
            )
        ],
        pausing_criteria=[
            MaxGenerationParallelism(threshold=MODEL_TRIALS_AT_ONCE, only_in_statuses=[TrialStatus.RUNNING])
        ],
    )
    return GenerationStrategy(name="Sobol+MOBO", nodes=[sobol, mobo])


if __name__ == "__main__":
    client = Client()
    client.configure_experiment(
        name="explicit_strategy",
        parameters=[
            RangeParameterConfig(name="radius", parameter_type="float", bounds=(0.0, 1.0)),
            RangeParameterConfig(name="thickness", parameter_type="float", bounds=(0.0, 1.0)),
        ],
    )
    # two objectives, both minimized; the constraints are the worst values that are still of interest
    client.configure_optimization(
        objective="-resolution, -cost", outcome_constraints=["resolution <= 2.0", "cost <= 2.0"]
    )
    client.set_generation_strategy(make_strategy())

    scheduler = AxScheduler(client, JobLibRunner(n_jobs=-1))
    scheduler.set_objective_function(evaluate_detector)
    pareto_set = scheduler.run_optimization(max_trials=12)

    for index, (parameters, (means, _covariances)) in sorted(pareto_set.items()):
        print(f"Pareto trial {index}: {parameters} -> {means}")
