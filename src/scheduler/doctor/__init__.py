"""``scheduler doctor``: looks at what programs will find here. Reads only, and imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from scheduler.doctor.checks import Check, Verdict, as_json, as_table
from scheduler.doctor.credentials import examine_proxy, examine_token, token_in_words
from scheduler.doctor.installation import examine_installation
from scheduler.doctor.machine import examine_machine
from scheduler.doctor.services import examine_services, is_grid_configured, is_rucio_configured

__all__ = ["Check", "Verdict", "as_json", "as_table", "examine", "token_in_words"]


def examine(environment: Mapping[str, str], directory: Path) -> list[Check]:
    """Everything that the doctor looks at.

    Args:
        environment: The environment variables of programs.
        directory: Where programs are started.
    """
    has_grid, has_rucio = is_grid_configured(environment), is_rucio_configured(environment)
    return [
        *examine_installation(needs_panda=has_grid, needs_rucio=has_rucio),
        *examine_machine(directory),
        *examine_services(environment),
        *examine_token(environment, is_needed=has_grid),
        *examine_proxy(environment, is_needed=has_grid),
    ]
