"""A trial as programs see it: a window on the engine's record."""

from __future__ import annotations

from scheduler.core.machine import ExperimentState
from scheduler.core.specs import Container, Function, Payload, Scalar, Script
from scheduler.job.job import Job, JobType
from scheduler.job.multi_steps_job import MultiStepsJob
from scheduler.trial.trial_state import TrialState


class Trial:
    """One design and its evaluation. Read-only: it always shows the present state.

    Args:
        experiment: The engine's state.
        index: The optimizer's index of the trial.
    """

    def __init__(self, experiment: ExperimentState, index: int) -> None:
        self._experiment = experiment
        self._record = experiment.trials[index]
        self.index = index

    @property
    def trial_id(self) -> str:
        """``trial_<index>``."""
        return f"trial_{self.index}"

    @property
    def parameters(self) -> dict[str, Scalar]:
        """The design parameters."""
        return dict(self._record.parameters)

    @property
    def state(self) -> TrialState:
        """Where the trial is."""
        return self._record.state

    @property
    def jobs(self) -> list[Job]:
        """Its jobs, parents first."""
        workflow = self._experiment.workflow
        kind = MultiStepsJob if len(workflow.steps) > 1 else Job
        return [kind(record, _job_type(workflow.step(job.step).payload)) for job, record in self._record.jobs.items()]

    @property
    def error(self) -> str | None:
        """Why it failed or is infeasible, as the first job said that ended it so; None if none did."""
        found, failure = self._experiment.infeasibility(self.index), self._experiment.failure(self.index)
        if found is not None:
            return f"infeasible: {found.reason}"
        return None if failure is None else str(failure)

    @property
    def run_time_s(self) -> float | None:
        """Seconds from its start to its outcome; None before."""
        return None if self._record.ended_at is None else self._record.ended_at - self._record.started_at

    def get_results(self) -> dict[str, object] | None:
        """The result of the final step, texts included; None until the trial is completed."""
        return dict(self._experiment.result(self.index)) if self.state is TrialState.COMPLETED else None

    def check_status(self) -> TrialState:
        """Where the trial is."""
        return self.state

    def __repr__(self) -> str:
        return f"Trial({self.index}, {self.state})"


def _job_type(payload: Payload) -> JobType:
    match payload:
        case Function():
            return JobType.FUNCTION
        case Script():
            return JobType.SCRIPT
        case Container():
            return JobType.CONTAINER
