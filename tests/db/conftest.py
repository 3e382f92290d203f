"""Both kinds of database for every contract test, and results to put in them."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

import eftcore as eft
from db.reading.user_sql import select
from db.schema.models import ComparisonRow
from db.session import Database, parse_url
from db.writing.repository import (
    record_comparison,
    record_measurement,
    record_prediction,
    record_simulation,
    record_study,
    record_widths,
)
from eftcore import specs
from eftcore.ensemble.next_order import MeasuredNextOrder
from eftcore.errors import InputError
from eftcore.verdicts.widths import widths_of
from tests import checked
from tests.db.workers import MadeSample
from tests.servers import create_database, drop_database

PROVENANCE = {
    "git_commit": "0" * 40,
    "git_dirty": False,
    "versions": {"numpy": np.__version__},
    "host": "bench",
    "device": "cpu",
    "python": "3.11",
    "worker_seconds": 2.5,
    "elapsed_seconds": 1.25,
    "started_at": "2026-01-31T12:00:00+02:00",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[sa.URL]:
    """A database without tables: no file yet (SQLite), or created and empty (PostgreSQL)."""
    if backend == "sqlite":
        yield parse_url(f"sqlite:///{tmp_path / 'results.db'}")
        return
    server = request.getfixturevalue("postgresql_server")
    url = create_database(server)
    yield url
    drop_database(server, url)


@pytest.fixture
def url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[sa.URL]:
    """A database at the newest revision, without rows."""
    with template_copy(request, tmp_path, backend) as made:
        yield made


@contextmanager
def template_copy(request: pytest.FixtureRequest, folder: Path, backend: str = "") -> Iterator[sa.URL]:
    """While the block runs, a database without rows: an SQLite file in this folder, or on the PostgreSQL of the tests.

    The kind is the parameter of the fixture that asks, unless given.
    """
    if (backend or request.param) == "sqlite":
        path = folder / "results.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield parse_url(f"sqlite:///{path}")
        return
    server = request.getfixturevalue("postgresql_server")
    made = create_database(server, request.getfixturevalue("postgresql_template").database)
    yield made
    drop_database(server, made)


@pytest.fixture
def db(url: sa.URL) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.dispose()


@pytest.fixture
def read_only(url: sa.URL) -> Iterator[Database]:
    database = Database(url, read_only=True)
    yield database
    database.dispose()


@pytest.fixture
def sqlite_db(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """For what does not depend on the kind of database."""
    path = tmp_path / "only.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.dispose()


MakeTheory = Callable[..., eft.Theory]
MakeSample = Callable[..., Any]


@pytest.fixture(scope="session")
def make_theory() -> MakeTheory:
    """A real prediction of a small network, made once a version; ``changes`` replace attributes of the result."""
    made: dict[str, eft.Theory] = {}

    def make(
        closure: str = "g_only",
        *,
        activation: str = "tanh",
        n_inputs: int = 2,
        depth: int = 8,
        changes: dict[str, Any] | None = None,
        branch: dict[str, Any] | None = None,
        **options: Any,
    ) -> eft.Theory:
        model = eft.ResNet(activation=activation, weight_variance=2.0, epsilon=0.25, depth=depth, **(branch or {}))
        kernel = eft.InputKernel.equicorrelated(n_inputs=n_inputs, variance=2.0, correlation=0.3)
        asked = repr((specs.ALGORITHM_VERSION, model, kernel, closure, sorted(options.items())))
        if asked not in made:
            made[asked] = eft.predict(model, kernel, closure=closure, **options)
        # a spec of its own, since copies of one keep the digest that it was asked for
        spec = eft.PredictionSpec(**made[asked].spec.model_dump())
        return replace(made[asked], **{"spec": spec, **(changes or {})})

    return make


@pytest.fixture(scope="session")
def make_sample(make_theory: MakeTheory) -> MakeSample:
    """What a simulation of make_theory's network could give: the theory with noise of 1 to 4 percent."""

    def make(
        *,
        width: int = 16,
        shards: tuple[tuple[int, int], ...] = ((0, 64), (1, 64)),
        changes: dict[str, Any] | None = None,
        **network: Any,
    ) -> MadeSample:
        theory = make_theory("g_only", **network)
        noise = np.random.default_rng(width)
        arrays: dict[str, np.ndarray] = {}
        sizes = {"mean": 0.01, "covariance": 0.02, "correction": 0.04, "source": 0.04, "increment_covariance": 0.02}
        for name, size in sizes.items():
            exact = getattr(theory, name)
            wobble = noise.standard_normal(exact.shape)
            arrays[name] = exact * (1 + size * (wobble + wobble.swapaxes(1, 2)) / 2)
            arrays[f"{name}_se"] = size * np.abs(exact)
        spec = eft.EnsembleSpec(model=theory.spec.model, kernel=theory.spec.kernel, width=width)
        made = MadeSample(spec=spec, shards=shards, depth=theory.depth, time=theory.time, **arrays)
        return replace(made, **(changes or {}))

    return make


@pytest.fixture(scope="session")
def make_next_order(make_theory: MakeTheory) -> MakeTheory:
    """The exact closure with a next order of our choice: D and K2 are ratio (1 + t) times V4 and K1, known to 1 %."""

    def make(ratio: float = 2.0, **network: Any) -> eft.Theory:
        exact = make_theory("exact", **network)
        assert exact.covariance is not None
        assert exact.correction is not None
        growing = ratio * (1 + exact.time[:, None, None])
        return replace(
            exact,
            spec=exact.spec.model_copy(update={"next_order": True}),
            covariance_next=growing * exact.covariance,
            correction_next=growing * exact.correction,
            details={"truncation_error": {"V4": 0.0, "K1": 0.0, "D": 0.01, "K2": 0.01}},
        )

    return make


@pytest.fixture(scope="session")
def make_measured(make_next_order: MakeTheory, make_sample: MakeSample) -> Callable[..., MeasuredNextOrder]:
    """What simulations of make_theory's network at two widths could give: make_next_order with noise of a tenth."""

    def make(widths: tuple[int, ...] = (16, 64), ratio: float = 2.0, **network: Any) -> MeasuredNextOrder:
        exact, noise = make_next_order(ratio, **network), np.random.default_rng(3)
        samples = [make_sample(width=width, **network) for width in widths]
        arrays: dict[str, np.ndarray] = {}
        for name in ("covariance_next", "correction_next"):
            known = getattr(exact, name)
            wobble = noise.standard_normal(known.shape)
            arrays[name] = known * (1 + 0.1 * (wobble + wobble.swapaxes(1, 2)) / 2)
            arrays[f"{name}_se"] = 0.1 * np.abs(known)
        trusted = np.tile(np.arange(len(exact.depth)) > 0, (2, 1))
        spec = eft.MeasurementSpec.of(exact.spec, [(sample.spec, sample.samples, sample.digest) for sample in samples])
        return MeasuredNextOrder(spec=spec, freedom=np.full(trusted.shape, 40.0), trusted=trusted, **arrays)

    return make


@pytest.fixture(scope="session")
def record_measured(
    make_next_order: MakeTheory, make_measured: Callable[..., MeasuredNextOrder]
) -> Callable[..., tuple[int, int]]:
    """Hold the next order of one network against a measurement; gives the run ids of the two."""

    def record(database: Database, study_id: int | None = None, **network: Any) -> tuple[int, int]:
        exact, measured = make_next_order(**network), make_measured(**network)
        prediction = record_prediction(database, exact, provenance=PROVENANCE, study_id=study_id)
        measurement = record_measurement(database, measured, provenance=PROVENANCE, study_id=study_id)
        comparison = eft.compare(exact, measured)
        pair = {"prediction_run_id": prediction, "reference_run_id": measurement}
        record_comparison(database, **pair, comparison=comparison)
        return prediction, measurement

    return record


@pytest.fixture(scope="session")
def record_next_order(make_theory: MakeTheory, make_next_order: MakeTheory) -> Callable[..., int]:
    """Record from which width on the closures of one network hold; gives the run id of the next order."""

    def record(
        database: Database, study_id: int | None = None, closures: tuple[str, ...] = ("mean", "g_only"), **network: Any
    ) -> int:
        exact = make_next_order(**network)
        reference = record_prediction(database, exact, provenance=PROVENANCE, study_id=study_id)
        network.pop("ratio", None)
        for theory in (exact, *(make_theory(closure, **network) for closure in closures)):
            run_id = record_prediction(database, theory, provenance=PROVENANCE, study_id=study_id)
            widths = widths_of(theory, exact)
            record_widths(database, prediction_run_id=run_id, reference_run_id=reference, widths=widths)
        return reference

    return record


@pytest.fixture(scope="session")
def make_check() -> Callable[..., eft.Check]:
    return checked.checked


@pytest.fixture(scope="session")
def record_checked() -> Callable[..., tuple[int, int]]:
    """Record a check, and the exact leading order of what the module should be, held against it; the two run ids."""

    def record(database: Database, seed: int = 0) -> tuple[int, int]:
        check = checked.record_checked(database, PROVENANCE, seed)
        with database.reading() as session:
            against = sa.select(ComparisonRow.prediction_run_id).where(ComparisonRow.reference_run_id == check)
            return check, session.scalars(against).one()

    return record


@dataclass(frozen=True)
class Recorded:
    """Ids of one study: a simulation, three closures, and their comparisons."""

    study_id: int
    simulation: int
    predictions: dict[str, int]
    comparisons: dict[str, int]


@pytest.fixture(scope="session")
def record_all(make_theory: MakeTheory, make_sample: MakeSample) -> Callable[..., Recorded]:
    """Put one complete study into a database."""

    def record(database: Database, name: str = "first", closures: tuple[str, ...] = (), **network: Any) -> Recorded:
        digest = uuid.uuid5(uuid.NAMESPACE_OID, name).hex * 2
        study_id = record_study(database, name=name, digest=digest, spec={"name": name}, runs_asked=4)
        sample = make_sample(**network)
        simulation = record_simulation(database, sample, provenance=PROVENANCE, study_id=study_id)
        network = {key: value for key, value in network.items() if key not in ("width", "samples")}
        predictions, comparisons = {}, {}
        for closure in closures or ("mean", "source_only", "g_only"):
            theory = make_theory(closure, **network)
            run_id = record_prediction(database, theory, provenance=PROVENANCE, study_id=study_id)
            predictions[closure] = run_id
            comparisons[closure] = record_comparison(
                database,
                prediction_run_id=run_id,
                reference_run_id=simulation,
                comparison=eft.compare(theory, sample),
            )
        return Recorded(study_id, simulation, predictions, comparisons)

    return record


@pytest.fixture(scope="session")
def record_reference(make_theory: MakeTheory) -> Callable[..., int]:
    """Hold the closures of one network against the exact leading order; gives the run id of that reference."""

    def record(database: Database, study_id: int | None = None, **network: Any) -> int:
        exact = make_theory("wick", order="auto", **network)
        reference = record_prediction(database, exact, provenance=PROVENANCE, study_id=study_id)
        for closure in ("mean", "source_only", "g_only"):
            theory = make_theory(closure, **network)
            record_comparison(
                database,
                prediction_run_id=record_prediction(database, theory, provenance=PROVENANCE, study_id=study_id),
                reference_run_id=reference,
                comparison=eft.compare(theory, exact),
            )
        return reference

    return record


def let_through(database: Database, attempts: Iterable[str]) -> dict[str, str]:
    """Queries of a user that were not refused, each with its answer or with an error that is not of the query."""
    answers = {}
    for attempt in attempts:
        try:
            answers[attempt] = str(select(database, attempt))
        except InputError as error:
            if not str(error).startswith("sql: "):
                answers[attempt] = str(error)
    return answers


@pytest.fixture
def provenance() -> dict[str, Any]:
    return dict(PROVENANCE)


@pytest.fixture
def started_at() -> datetime:
    """PROVENANCE's start, in UTC."""
    return datetime(2026, 1, 31, 10, tzinfo=UTC)


@pytest.fixture
def count_rows() -> Callable[[Database], dict[str, int]]:
    """Rows of every table."""
    from db.schema.models import Base

    def count(database: Database) -> dict[str, int]:
        with database.reading() as session:
            return {
                table.name: int(session.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
                for table in Base.metadata.sorted_tables
            }

    return count


@pytest.fixture
def statements() -> Callable[[Database], list[str]]:
    """The SQL that a database is sent from now on, transaction control aside."""

    def watch(database: Database) -> list[str]:
        seen: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            if not statement.startswith("BEGIN"):
                seen.append(statement)

        sa.event.listen(database.engine, "before_cursor_execute", note)
        return seen

    return watch
