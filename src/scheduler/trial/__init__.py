"""Import paths of existing programs for trials."""

from __future__ import annotations

from scheduler.trial.trial import Trial as Trial
from scheduler.trial.trial_state import TrialState as TrialState
