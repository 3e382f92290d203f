"""Running studies from Python, in a script or a notebook: ``flows.run_study``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from db.errors import DatabaseMissing
from db.reading import queries
from db.session import Database
from db.settings import default_url
from db.upkeep import migrate
from flows import launch
from flows.study.requests import Resources, StudyRequest

if TYPE_CHECKING:
    from flows.orchestration.execution import Summary


@dataclass(frozen=True)
class StudyResult:
    """A study that ran: ``summary`` says what was cached, computed and failed; the frames come from the database."""

    study: str
    database: str = field(repr=False)  # it may hold a password
    summary: Summary

    @property
    def windows(self) -> pd.DataFrame:
        """Validity windows against simulations, and against the study's reference theory: rows of v_windows."""
        return self._frame(queries.windows, study=self.study)

    @property
    def errors(self) -> pd.DataFrame:
        """Errors of each closure over depth, against the same references: rows of v_errors."""
        return self._frame(queries.errors, study=self.study)

    @property
    def width_windows(self) -> pd.DataFrame:
        """From which width on each prediction holds, by the next order in 1/n and by simulations: v_width_windows."""
        return self._frame(queries.width_windows, study=self.study)

    @property
    def runs(self) -> pd.DataFrame:
        """Simulations and predictions with their provenance: rows of v_runs."""
        return self._frame(queries.runs, study=self.study)

    def _frame(self, query: Any, **filters: Any) -> pd.DataFrame:
        db = Database(self.database, read_only=True)
        try:
            found: pd.DataFrame = query(db, **filters)
            return found
        finally:
            db.dispose()


def run_study(
    study: str | os.PathLike[str], *, db: str | None = None, renew: bool = False, **resources: Any
) -> StudyResult:
    """Run a study. Results that are stored already are not computed again.

    Args:
        study: a bundled study by name ("quick"), or the path of a study file.
        db: address of the results database; by default EFT_DATABASE_URL, else an SQLite file in ./eft-data. The
            database is created if there is none.
        renew: compute results of an older version of an algorithm (``summary.superseded`` counts them) anew; the old
            results stay in the database, shown as superseded.
        resources: fields of flows.study.requests.Resources: device, runner, workers, dask_address, task_timeout.

    Raises InputError for a wrong study or resource, EnvironmentProblem for a database, server or cluster that cannot
    be used. Tasks that failed are in ``summary.failures`` of the result.
    """
    wanted = Resources(**resources)
    request = StudyRequest(study=os.fspath(study), renew=renew)
    with _database(db) as url:
        try:
            migrate.require_current(url)
        except DatabaseMissing:
            migrate.upgrade(url)
        summary = launch.run_study(request, wanted)
    return StudyResult(study=summary.study, database=url, summary=summary)


@contextmanager
def _database(url: str | None) -> Iterator[str]:
    """Put the address of the database into the environment, where tasks read it, until the end of the block."""
    before = os.environ.get("EFT_DATABASE_URL")
    if url is not None:
        os.environ["EFT_DATABASE_URL"] = url
    try:
        yield default_url()
    finally:
        if before is not None:
            os.environ["EFT_DATABASE_URL"] = before
        else:
            os.environ.pop("EFT_DATABASE_URL", None)
