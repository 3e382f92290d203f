"""Small studies for tests, how they are run in this process, and how much is recorded of them."""

from __future__ import annotations

from pathlib import Path

from db.reading import queries
from db.session import Database
from db.settings import default_url
from flows.study.requests import StudyRequest
from tests.flows.conftest import TINY

TASKS = 2 + 2 * (1 + 1 + 2 + 1)
"""Of the tiny study: two predictions; for each of two widths one shard, one merge, two comparisons, one record."""
TABLES = ("v_runs", "v_windows", "v_errors", "v_trajectories", "v_width_windows", "v_quantiles")


def run(path: Path):
    """Run a study; the summary, also when tasks failed."""
    from flows.run import StudyFailed, run_study

    try:
        return run_study(StudyRequest(study=str(path)))
    except StudyFailed as failed:
        return failed.summary


def counts() -> dict[str, int]:
    """Rows of every view."""
    db = Database(default_url(), read_only=True)
    found = {view: int(queries.select(db, f"SELECT COUNT(*) AS n FROM {view}")["n"].iloc[0]) for view in TABLES}
    db.dispose()
    return found


THEORY = TINY.replace("[8, 16]", "[8]").replace("[model]", 'reference = { name = "wick", order = "auto" }\n[model]')
"""Of it: three predictions, two comparisons and a record against the reference, five tasks of one width."""


TARGET = (
    TINY.replace("samples = 4096\n", "").replace("[8, 16]", "[8]")
    + """
[precision]
quantity = "V4"
relative = 0.1
max_samples = 2000
"""
)
