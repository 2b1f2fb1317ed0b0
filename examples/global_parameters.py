"""Every design is evaluated at four combinations of global parameters, then merged (the tutorial; `make demo`)."""

import logging
from itertools import product

from ax.service.ax_client import AxClient, ObjectiveProperties

from scheduler import AxScheduler, JobLibRunner, JobType, MultiStepsFunction, PanDAiDDSRunner
from scheduler.utils.common import setup_logging

global_parameters = {
    "particles": ["pi+", "kaon+"],
    "eta_points": [0.1, 0.2],
}


def objective_function_step(x, y, particles, eta_points):
    if particles == "pi+":
        return {"xyz": ((x - 0.5) ** 3 + (y - 0.5) ** 3) * eta_points}
    elif particles == "kaon+":
        return {"xyz": ((x - 0.5) ** 2 + (y - 0.5) ** 2) * eta_points}
    else:
        return {"xyz": 0.1}


def objective_function_ana(x, y, xyz):
    # xyz is {job key: value}; a job key is the combination as sorted (name, value) pairs
    sorted_keys = sorted(global_parameters.keys())
    combinations = [dict(zip(sorted_keys, values)) for values in product(*[global_parameters[k] for k in sorted_keys])]
    job_keys = combinations
    xyz_sum = sum([xyz[tuple(k.items())] for k in job_keys])
    return {"objective": (x - 0.5) ** 2 + (y - 0.5) ** 2 + xyz_sum * 0.1}


if __name__ == "__main__":
    setup_logging(log_level="info")

    logging.debug("setup ax client")
    # Initialize Ax client
    ax_client = AxClient()

    logging.info("Creating experiment")

    # Define your parameter space
    ax_client.create_experiment(
        name="my_experiment",
        parameters=[
            {
                "name": "x",
                "type": "range",
                "bounds": [0.0, 1.0],
                "value_type": "float",
            },
            {
                "name": "y",
                "type": "range",
                "bounds": [0.0, 1.0],
                "value_type": "float",
            },
        ],
        objectives={"objective": ObjectiveProperties(minimize=True)},
    )

    # Virtual env deployed on cvmfs
    # Libraries like Ax are required during importing at remote computing resources.
    # On the embedded site these lines run as well; one that fails there is reported in the run directory, under sandboxes.
    init_env = [
        "source /cvmfs/unpacked.cern.ch/registry.hub.docker.com/fyingtsai/eic_xl:24.11.1/opt/conda/setup_mamba.sh;"
        "source /cvmfs/unpacked.cern.ch/registry.hub.docker.com/fyingtsai/eic_xl:24.11.1/opt/conda/dRICH-MOBO//MOBO-tools/setup_new.sh;"
        "command -v singularity &> /dev/null || export SINGULARITY=/cvmfs/oasis.opensciencegrid.org/mis/singularity/current/bin/singularity;"
        "export AIDE_HOME=$(pwd);"
        "export PWD_PATH=$(pwd);"
        'export SINGULARITY_OPTIONS="--bind /cvmfs:/cvmfs,$(pwd):$(pwd)"; '
        "export SIF=/cvmfs/singularity.opensciencegrid.org/eicweb/eic_xl:24.11.1-stable; export SINGULARITY_BINDPATH=/cvmfs,/afs; "
        "env; "
    ]
    init_env = " ".join(init_env)

    panda_attrs = {
        "name": "user.alice.my_experiment",
        "init_env": init_env,
        "cloud": "US",
        "queue": "BNL_PanDA_1",  # BNL_OSG_PanDA_1, BNL_PanDA_1
        "source_dir": None,  # used to upload files in the source directory to PanDA, which will be used for the remote jobs.
        # None is the current directory.
        "source_dir_parent_level": 1,
        "exclude_source_files": [
            r"(^|/)\.[^/]+",  # file starts with "."
            "doc*",
            "DTLZ2*",
            ".*json",
            ".*log",
            "work",
            "log",
            "OUTDIR",
            "calibrations",
            "fieldmaps",
            "gdml",
            "EICrecon-drich-mobo",
            "eic-software",
            "epic-geom-drich-mobo",
            "irt",
            "share",
            "back*",
            "__pycache__",
        ],
        "max_walltime": 3600,
        "core_count": 1,
        "total_memory": 4000,
        "enable_separate_log": True,
        "job_dir": None,
    }

    objective_function = MultiStepsFunction(
        objective_funcs={
            "simrecoana": {
                "func": objective_function_step,
                "job_type": JobType.FUNCTION,
                "runner": PanDAiDDSRunner(**panda_attrs),
            },
            "final": {
                "func": objective_function_ana,
                "job_type": JobType.FUNCTION,
                "runner": JobLibRunner(n_jobs=-1),
                "parent_result_parameter_name": "xyz",
            },
        },
        deps={
            "final": {"parent": "simrecoana", "dep_type": "results", "dep_map": "all2one"},
        },
        global_parameters=global_parameters,
        global_parameters_steps=["simrecoana"],
        final="final",  # if final is not set, it will use the last step in objective_funcs.
        # The final step will set its result as the job's result
    )

    # Create the scheduler
    scheduler = AxScheduler(ax_client, JobLibRunner(n_jobs=-1))
    logging.info(f"created scheduler: {scheduler}")

    # Set the objective function
    scheduler.set_objective_function(objective_function)

    logging.info("running optimization")
    # Run the optimization
    best_params = scheduler.run_optimization(max_trials=10)
    print("Best parameters:", best_params)
