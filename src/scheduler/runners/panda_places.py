"""The places where PanDAiDDSRunner runs jobs: the embedded site on this machine, and the grid."""

from __future__ import annotations

import base64
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from scheduler.core.failures import Failure
from scheduler.core.observations import Observation
from scheduler.core.specs import Function, StepSpec
from scheduler.errors import ConfigurationError
from scheduler.panda.catalogues import Catalogues
from scheduler.panda.grid import Grid
from scheduler.panda.idds import IddsClient, Site
from scheduler.panda.shipment import Shipment
from scheduler.panda.site import EmbeddedSite, SiteJob
from scheduler.panda.slices import SLICE_PARAMETERS, slices_of
from scheduler.runners.base_runner import Attempt

logger = logging.getLogger(__name__)


class Place(Protocol):
    """Where jobs run. The methods are those of :class:`~scheduler.runners.base_runner.BaseRunner`."""

    @property
    def capacity(self) -> int | None:
        """How many attempts fit; None when the place queues by itself."""
        ...

    def may_be_followed(self, native_id: str) -> bool:
        """Whether an attempt may be chained to this one."""
        ...

    def check(self, step: StepSpec) -> None:
        """Refuse a step that could never run here."""
        ...

    def contents(self, attempt: Attempt) -> Mapping[str, tuple[str, ...]] | None:
        """Digests of the files that an attempt reads, by argument; None when there are none."""
        ...

    def submit(self, jobs: Sequence[Shipment], directory: Path) -> dict[str, str | Failure]:
        """Take jobs; ``directory`` is for unpacked files."""
        ...

    def poll(self, attempts: Mapping[str, str]) -> dict[str, Observation]:
        """Look at attempts."""
        ...

    def cancel(self, attempts: Mapping[str, str]) -> None:
        """Ask for attempts to be stopped."""
        ...

    def find(self, labels: Sequence[str]) -> dict[str, str]:
        """The native ids of those that are known here."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


class EmbeddedPlace:
    """This machine.

    Args:
        slots: Cores that jobs use together; None for those of the machine, counted on first use.
        cores: Cores of a job.
        init_env: Lines of bash that run before the jobs.
        catalogues: Where datasets are.
        on_change: Called from any thread when there is something to see.
    """

    def __init__(
        self, *, slots: int | None, cores: int, init_env: str, catalogues: Catalogues, on_change: Callable[[], None]
    ) -> None:
        self._slots, self._cores, self._init_env = slots, cores, init_env
        self._catalogues, self._on_change = catalogues, on_change
        self._site: EmbeddedSite | None = None

    @property
    def capacity(self) -> int:
        """How many jobs run at once."""
        return max(1, self._all_slots // self._cores)

    def may_be_followed(self, native_id: str) -> bool:  # noqa: ARG002 - the same for all
        """Jobs of this machine are never chained: there is no queue to wait in."""
        return False

    def check(self, step: StepSpec) -> None:
        """Refuse a step with datasets for which there is no catalogue."""
        if step.output is not None or step.inputs:
            try:
                self._catalogues.check(writes=step.output is not None)
            except ConfigurationError as error:
                raise ConfigurationError(f"step '{step.name}': {error}") from error

    def contents(self, attempt: Attempt) -> Mapping[str, tuple[str, ...]] | None:
        """Digests of the files that an attempt reads, if the catalogue has them."""
        return self._catalogues.contents(attempt)

    def submit(self, jobs: Sequence[Shipment], directory: Path) -> dict[str, str | Failure]:
        """Queue attempts. The native id is the label."""
        site = self._open_site(directory)
        for job in jobs:
            site.submit(self._site_job(job))
        return {job.attempt.label: job.attempt.label for job in jobs}

    def poll(self, attempts: Mapping[str, str]) -> dict[str, Observation]:
        """Look at attempts; those of another process or of before :meth:`close` are not mentioned."""
        if self._site is None:
            return {}
        seen = {label: self._site.observe(label) for label in attempts}
        return {label: observation for label, observation in seen.items() if observation is not None}

    def cancel(self, attempts: Mapping[str, str]) -> None:
        """End attempts with all their processes."""
        for label in attempts:
            if self._site is not None:
                self._site.cancel(label)

    def find(self, labels: Sequence[str]) -> dict[str, str]:
        """The labels among these that were submitted here, to this very object: jobs die with their driver."""
        return {label: label for label in self.poll(dict.fromkeys(labels, ""))}

    def close(self) -> None:
        """End every job and remove the unpacked files."""
        site, self._site = self._site, None
        if site is not None:
            site.close()

    def _site_job(self, job: Shipment) -> SiteJob:
        return SiteJob(
            attempt=job.attempt,
            function=job.function,
            location=job.location,
            selection=job.selection,
            tarball=job.tarball,
            slices=slices_of(job.attempt, job.function.call),
            resources=job.resources,
            catalogue=self._catalogues.of(job.attempt),
        )

    @property
    def _all_slots(self) -> int:
        if self._slots is None:
            self._slots = _count_cores()
        return self._slots

    def _open_site(self, directory: Path) -> EmbeddedSite:
        if self._site is None:
            if self._cores > self._all_slots:
                logger.warning(
                    "core_count=%s is more than the %s slots here: each job takes all of them",
                    self._cores,
                    self._all_slots,
                )
            self._site = EmbeddedSite(
                slots=self._all_slots, directory=directory, init_env=self._init_env, on_change=self._on_change
            )
        return self._site


class GridPlace:
    """PanDA and iDDS. Nothing is imported or connected before the first call that needs it.

    Args:
        service: ``"panda"`` or ``"idds"``.
        site: Where and how tasks run.
        prefix: What the names of tasks begin with.
        capacity: How many attempts may be in flight; None for any number.
        on_change: Called from any thread when a result has arrived.
    """

    def __init__(
        self, service: str, site: Site, *, prefix: str | None, capacity: int | None, on_change: Callable[[], None]
    ) -> None:
        self._service, self._site, self._prefix, self._on_change = service, site, prefix, on_change
        self._capacity = capacity
        self._grid: Grid | None = None

    @property
    def capacity(self) -> int | None:
        """How many attempts may be in flight; None: PanDA queues by itself."""
        return self._capacity

    def may_be_followed(self, native_id: str) -> bool:
        """Whether this program submitted the work: others may be chained to those only."""
        return self._grid is not None and self._grid.may_be_followed(native_id)

    def check(self, step: StepSpec) -> None:
        """Refuse a function that wants to know its slice: PanDA does not tell.

        Raises:
            ConfigurationError: With the step and the parameters.
        """
        if step.output is None or step.output.slices == 1 or not isinstance(step.payload, Function):
            return
        named = [name for name in SLICE_PARAMETERS if name in inspect.signature(step.payload.call).parameters]
        if named:
            raise ConfigurationError(
                f"step '{step.name}': its function takes {', '.join(named)}, but a PanDA job is not told which of the "
                f"{step.output.slices} slices it is; draw a random seed instead, or set num_events_per_job=num_events"
            )

    def contents(self, attempt: Attempt) -> None:
        """None: the files are elsewhere, and Rucio has no digests of them."""

    def submit(self, jobs: Sequence[Shipment], directory: Path) -> dict[str, str | Failure]:  # noqa: ARG002
        """Make works of attempts. The native id has the request and the transform in iDDS."""
        return self._open().submit(jobs)

    def poll(self, attempts: Mapping[str, str]) -> dict[str, Observation]:
        """Look at attempts, also at those of another process."""
        return self._open().poll(attempts)

    def cancel(self, attempts: Mapping[str, str]) -> None:
        """Have PanDA end the tasks."""
        self._open().cancel(attempts)

    def find(self, labels: Sequence[str]) -> dict[str, str]:
        """Ask iDDS for the works of these labels."""
        return self._open().find(labels)

    def close(self) -> None:
        """Disconnect. The jobs go on."""
        grid, self._grid = self._grid, None
        if grid is not None:
            grid.close()

    def _open(self) -> Grid:
        if self._grid is None:
            self._grid = Grid(IddsClient(self._service), self._site, prefix=self._prefix, on_result=self._on_change)
        return self._grid


def in_one_line(init_env: str) -> str:
    """Lines of bash as iDDS takes them: one line that ends with ``;``.

    iDDS cuts the text at every ``;`` and puts what follows the last one before its own command. A text that does not
    survive this travels encoded.
    """
    text = init_env.strip()
    if not text:
        return ""
    if "\n" not in text and ";;" not in text and "'" not in text and '"' not in text:
        return f"{text.rstrip('; ')}; "
    encoded = base64.b64encode(text.encode()).decode()
    return f'eval "$(echo {encoded} | base64 -d)"; '


def _count_cores() -> int:
    from loky import cpu_count

    return int(cpu_count())
