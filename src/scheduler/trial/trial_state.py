"""The states of a trial, under the import path of existing programs."""

from scheduler.core.states import TrialState

__all__ = ["TrialState"]
