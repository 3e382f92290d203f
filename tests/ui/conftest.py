"""A small real database: two activations simulated, three closures predicted and compared with each."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import streamlit as st
from streamlit.testing.v1 import AppTest

import eftcore as eft
import ui
from db.reading import queries
from db.schema.models import StudyRun
from db.session import Database
from db.writing import care
from db.writing.repository import mark_failed, record_comparison, record_prediction, record_simulation, record_study
from tests.checked import record_checked
from tests.servers import create_database, drop_database
from ui.processes import Computation, Work

PROVENANCE = {
    "git_commit": "0123456789abcdef" * 2 + "01234567",
    "git_dirty": True,
    "versions": {"numpy": "2.4.6", "torch": "2.13.0"},
    "host": "bench",
    "device": "cpu",
    "python": "3.11.7",
    "worker_seconds": 2.5,
    "elapsed_seconds": 1.25,
    "started_at": "2026-01-31T12:00:00+02:00",
}
CLOSURES = ("mean", "source_only", "g_only")

ROOMY = """phone => {
    const boxes = selector => [...document.querySelectorAll(selector)].map(found => found.getBoundingClientRect())
    const charts = boxes('[data-testid=stPlotlyChart]')
    return document.scrollingElement.scrollWidth <= innerWidth
        && document.querySelector('[data-testid=stMain]').scrollWidth <= innerWidth
        && charts.every(box => box.left >= 0 && box.right <= innerWidth && box.height > box.width === phone)
        && boxes('[data-testid=stPlotlyChart] text').every(box => box.left >= 0 && box.right <= innerWidth)
        && [...document.querySelectorAll('[data-testid=stPlotlyChart]')].every(chart => {
            const image = chart.querySelector('.main-svg')?.getBoundingClientRect()
            const apart = (one, other) => one.right <= other.left + 1 || other.right <= one.left + 1
                || one.bottom <= other.top + 1 || other.bottom <= one.top + 1
            const said = [...chart.querySelectorAll('.annotation-text, .legendtext')]
                .map(found => found.getBoundingClientRect()).filter(box => box.height)
            return image && said.every((one, place) => said.slice(place + 1).every(other => apart(one, other)))
                && [...chart.querySelectorAll('text')].map(found => found.getBoundingClientRect())
                    .every(box => !box.height || box.top >= image.top - 1 && box.bottom <= image.bottom + 1)
        })
        && (!phone || [...document.querySelectorAll('[data-testid=stPlotlyChart]')].every(chart => {
            const [bar, legend] = ['.modebar-container > div', '.legend'].map(part => chart.querySelector(part))
            return !bar || !legend || bar.getBoundingClientRect().bottom <= legend.getBoundingClientRect().top + 1
        }))
}"""
"""Whether nothing reaches beyond the window, sideways, no text beyond the picture that is saved, and no name of a
legend, title or label over another; and on a phone panels stand one under the other and the toolbar of a figure stands
above its legend."""


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
            reference_run_id=simulation,
            comparison=eft.compare(theory, sample),
        )
    return simulation


@pytest.fixture(scope="session")
def results_file(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tanh and relu at width 16, and a check. Not to be written."""
    path = Path(shutil.copy(sqlite_template, tmp_path_factory.mktemp("results")))
    database = Database(f"sqlite:///{path}")
    for activation in ("tanh", "relu"):
        record(database, activation)
    record_checked(database, PROVENANCE)
    database.dispose()
    return path


@pytest.fixture(scope="session")
def results(results_file: Path) -> Iterator[Database]:
    """The same, opened as the explorer opens it."""
    database = Database(f"sqlite:///{results_file}", read_only=True)
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def postgresql_results(postgresql_server: sa.URL, postgresql_template: sa.URL) -> Iterator[Database]:
    """The same on a real PostgreSQL."""
    url = create_database(postgresql_server, postgresql_template.database)
    database = Database(url)
    for activation in ("tanh", "relu"):
        record(database, activation)
    record_checked(database, PROVENANCE)
    database.dispose()
    reader = Database(url, read_only=True)
    yield reader
    reader.dispose()
    drop_database(postgresql_server, url)


@pytest.fixture(params=["sqlite", "postgresql"])
def both(request: pytest.FixtureRequest) -> Database:
    """The results on each kind of database in turn."""
    return request.getfixturevalue("results" if request.param == "sqlite" else "postgresql_results")


@pytest.fixture
def put() -> Callable[..., int]:
    """Record one configuration: put(fresh, "tanh", label="...") gives the simulation's run id."""
    return record


@pytest.fixture
def fresh(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """A database of one test, without rows, to be written."""
    database = Database(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'fresh.db')}")
    yield database
    database.dispose()


@pytest.fixture
def studied(results_file: Path, tmp_path: Path) -> Iterator[Database]:
    """The results as two studies: "curved" with tanh, and "kinked" with relu, which is archived and has a title."""
    database = Database(f"sqlite:///{shutil.copy(results_file, tmp_path / 'studied.db')}")
    for digest, (name, activation) in enumerate((("curved", "tanh"), ("kinked", "relu"))):
        study = record_study(database, name=name, digest=str(digest) * 64, spec=ONE_RUN, runs_asked=4)
        members = queries.runs(database, activation=activation)["run_id"].tolist()
        with database.session() as session:
            session.execute(sa.insert(StudyRun), [{"study_id": study, "run_id": int(run)} for run in members])
    care.annotate(database, study, title="With a kink", tags=["sharp"], archived=True)
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
    study = record_study(database, name="wild", digest="0" * 64, spec=ONE_RUN, runs_asked=2)
    mark_failed(database, spec, error="K0 <b>leaves</b> the range", provenance={}, study_id=study)


def record_half(database: Database) -> None:
    model = eft.ResNet(activation="tanh", weight_variance=1.0, epsilon=0.5, depth=4)
    theory = eft.predict(model, eft.InputKernel.explicit([[1.0]]), "mean")
    study = record_study(database, name="half", digest="1" * 64, spec=ONE_RUN, runs_asked=2)
    record_prediction(database, theory, provenance={}, study_id=study)


@pytest.fixture(scope="session")
def shapes(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Databases that hold little, or are of another version. Not to be written."""
    folder = tmp_path_factory.mktemp("shapes")
    found = {"empty": sqlite_template}
    for name, fill in (("failed", record_failed), ("half", record_half)):
        found[name] = Path(shutil.copy(sqlite_template, folder / f"{name}.db"))
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


class InThisProcess:
    """Computes what pages ask for at once, so that a page is finished when its script is."""

    def __init__(self) -> None:
        self.found: dict[str, Computation] = {}

    def known(self, key: str) -> bool:
        return key in self.found

    def ask(self, _session: str, key: str, work: Work, *arguments: Any, long: bool = False) -> Computation:
        if key not in self.found:
            made = self.found[key] = Computation(key)
            made.parts.update(work(*arguments))
            made.finish()
        return self.found[key]

    def leave(self, _session: str) -> None:
        """Nothing runs."""


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """Run a page of the explorer on a database, without a browser: open_page(url, "run", simulation="3").

    Streamlit leaves the page's script as the main module, which processes that are forked later would run.
    """
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    st.cache_data.clear()  # what other tests have read
    computing = InThisProcess()
    monkeypatch.setattr("ui.waiting.processes", lambda: computing)

    def run(database_url: object, page: str = "windows", /, **query: str | list[str]) -> AppTest:
        monkeypatch.setenv("EFT_DATABASE_URL", str(database_url))
        app = AppTest.from_file(str(Path(ui.__file__).with_name("app.py")), default_timeout=60)
        app.switch_page(f"views/{page}.py")
        app.query_params.update(query)
        return app.run()

    return run
