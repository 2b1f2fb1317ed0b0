"""A job whose files are packed: what every place needs to run it."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.core.specs import Function, Resources
from scheduler.panda.locate import FunctionLocation
from scheduler.panda.sandbox import Tarball
from scheduler.panda.selection import Selection
from scheduler.runners.base_runner import Attempt


@dataclass(frozen=True, slots=True)
class Shipment:
    """An attempt, ready to be sent.

    Attributes:
        attempt: What the engine asked for; its directory is absolute.
        function: Its payload.
        location: Where the function is in the files that ship.
        selection: The files that ship.
        tarball: The same, packed.
        resources: Its limits, none of them None; they hold for each slice.
    """

    attempt: Attempt
    function: Function
    location: FunctionLocation
    selection: Selection
    tarball: Tarball
    resources: Resources
