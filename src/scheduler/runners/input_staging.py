"""Brings the input datasets of local jobs into their directories before they run."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from scheduler.core.failures import Cause, Failure
from scheduler.errors import DatasetError
from scheduler.panda.catalogues import CatalogueChoice, Catalogues
from scheduler.runners.base_runner import Attempt

logger = logging.getLogger(__name__)

_DOWNLOADS_AT_ONCE = 4


class InputStaging:
    """Copies or downloads datasets, in threads of its own, so that nobody who submits has to wait.

    Args:
        choice: Where the datasets are.
    """

    def __init__(self, choice: CatalogueChoice) -> None:
        self._catalogues = Catalogues(choice)
        self._pool: ThreadPoolExecutor | None = None

    def check(self) -> None:
        """See whether datasets can be read at all.

        Raises:
            ConfigurationError: With what is missing or refused, and what to do.
        """
        self._catalogues.check(writes=False)

    def contents(self, attempt: Attempt) -> dict[str, tuple[str, ...]] | None:
        """See :meth:`scheduler.panda.catalogues.Catalogues.contents`."""
        return self._catalogues.contents(attempt)

    def start(self, attempt: Attempt, on_done: Callable[[Attempt | Failure], None]) -> None:
        """Stage the inputs of an attempt into its directory.

        Args:
            attempt: The attempt.
            on_done: Called from another thread with the attempt, whose arguments now have the lists of file names, or
                with the reason why there is none.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, thread_name_prefix="scheduler-staging")
        self._pool.submit(lambda: on_done(self._stage(attempt)))

    def close(self) -> None:
        """Start no more downloads and wait for those under way. :meth:`start` may be called again."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _stage(self, attempt: Attempt) -> Attempt | Failure:
        try:
            return replace(attempt, arguments={**attempt.arguments, **self._fetch(attempt)})
        except (DatasetError, OSError) as error:
            logger.debug("the inputs of %s could not be staged", attempt.label, exc_info=True)
            return Failure(Cause.ENVIRONMENT, f"the inputs could not be staged: {error}")

    def _fetch(self, attempt: Attempt) -> Mapping[str, list[str]]:
        directory = attempt.directory.absolute()
        if directory.exists():  # the program was killed while the same attempt was being staged
            shutil.rmtree(directory)
        directory.mkdir(parents=True)
        catalogue = self._catalogues.of(attempt)
        return {argument: catalogue.stage(dataset, directory) for argument, dataset in attempt.inputs.items()}
