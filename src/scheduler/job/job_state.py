"""The states of a job, under the import path of existing programs."""

from scheduler.core.states import JobState

__all__ = ["JobState"]
