"""Data on the move: archives between databases, views as files, deleting and tidying up."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from db.reading import queries
from db.reading.files import export_view
from db.reading.study_queries import study_progress
from db.schema.models import Configuration, KernelQuantile, Run
from db.schema.views import VIEWS
from db.session import Database
from db.upkeep import maintenance, removal
from db.upkeep.exporting import export_archive
from db.upkeep.importing import import_archive
from db.writing.repository import PrecisionTarget, mark_failed, mark_pending, record_prediction, record_simulation
from eftcore.errors import EnvironmentProblem, InputError
from tests.db.conftest import PROVENANCE, template_copy
from tests.servers import create_database, drop_database

RELEASED_ARCHIVES = sorted(
    (Path(__file__).parents[1] / "released").glob("archive_format_*.zip"),
    key=lambda path: int(path.stem.rpartition("_")[2]),
)
OLDEST, NEWEST = RELEASED_ARCHIVES[0], RELEASED_ARCHIVES[-1]


@pytest.fixture
def other(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty database of the other kind."""
    folder = tmp_path / "other"
    folder.mkdir()
    with template_copy(request, folder, "sqlite" if backend == "postgresql" else "postgresql") as url:
        database = Database(url)
        yield database
        database.dispose()


@pytest.fixture(scope="module")
def filled_once(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    record_all,
    record_reference,
    record_next_order,
    record_measured,
    record_checked,
    make_sample,
    make_theory,
) -> Iterator[Callable[[str], sa.URL]]:
    """(kind of database): two studies, one with a theory as reference too and with the next order in 1/n, which is also
    measured; a check of a module, a top-up with a target, a failure, numbers that are not finite, and a run that is
    only planned. To be copied."""

    @cache
    def fill(backend: str) -> sa.URL:
        url = stack.enter_context(template_copy(request, tmp_path_factory.mktemp("filled"), backend))
        db = Database(url)
        study_id = record_all(db, "first").study_id
        record_reference(db, study_id)
        record_next_order(db, study_id)
        record_measured(db, study_id)
        record_checked(db)
        record_all(db, "second", activation="erf", width=32)
        targets = [PrecisionTarget(quantity="V4", kind="relative_se", target=0.1, reached=0.02)]
        more = make_sample(shards=((0, 64), (1, 64), (2, 64)))
        source = more.source.copy()
        source[0], source[1] = np.nan, np.inf
        more.source.setflags(write=True)
        more.source[:] = source
        record_simulation(db, more, provenance=PROVENANCE, targets=targets, stopped_because="met")
        mark_failed(db, make_theory("mean", activation="relu").spec, error="no", provenance=PROVENANCE)
        mark_pending(db, make_theory("mean", activation="sin").spec)
        db.dispose()
        return url

    with ExitStack() as stack:
        yield fill


@pytest.fixture
def filled(
    filled_once: Callable[[str], sa.URL], backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Database]:
    """A copy of filled_once, on each kind of database."""
    template = filled_once(backend)
    if backend == "sqlite":
        url = template.set(database=str(shutil.copy(str(template.database), tmp_path / "filled.db")))
    else:
        url = create_database(request.getfixturevalue("postgresql_server"), template.database)
    database = Database(url)
    yield database
    database.dispose()
    if backend == "postgresql":
        drop_database(request.getfixturevalue("postgresql_server"), url)


def test_archive_is_lossless_between_the_two_kinds(filled, other, tmp_path):
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    rows = export_archive(filled, first)
    assert rows["runs"] == 15, "what is only planned stays at home"
    assert rows["comparisons"] == 3 + 3 + 3 + 1 + 1
    assert (rows["module_checks"], rows["checked_blocks"]) == (1, 4)
    assert rows["width_windows"] == 3 * 9 * (3 + 3 + 1)
    assert rows["kernel_quantiles"] == 3 * 2 * 9 * 7 + 2 * 5 * 7
    assert import_archive(other, first) == rows
    assert maintenance.check(other.url) == []
    assert set(study_progress(other).runs_asked) == {4}
    assert export_archive(other, second) == rows
    assert first.read_bytes() == second.read_bytes()
    run = queries.runs(filled, status="succeeded", kind="simulation", limit=1)
    there = queries.runs(other).set_index("digest").run_id[run.digest[0]]
    for name, array in queries.arrays(filled, run.run_id[0]).items():
        np.testing.assert_array_equal(queries.arrays(other, there)[name], array)
    ours, theirs = (queries.windows(database, study="first", reference_kind="theory") for database in (filled, other))
    numbers = [name for name in ours if not name.endswith("_id")]
    assert len(ours) == 3 * (1 + 2 + 3)
    pd.testing.assert_frame_equal(ours[numbers], theirs[numbers])
    ours, theirs = (queries.measurements(database, study="first") for database in (filled, other))
    numbers = [name for name in ours if not name.endswith("_id")]
    assert ours.groupby("quantity").component.nunique().to_dict() == {"D": 6, "K2": 3}
    pd.testing.assert_frame_equal(ours[numbers], theirs[numbers])
    ours, theirs = (queries.quantiles(database, study="first") for database in (filled, other))
    numbers = [name for name in ours if not name.endswith("_id")]
    assert len(ours) == 2 * 9 * 7
    assert ours.low.isna().sum() == ours.high.isna().sum() == 2 * 2 * 9
    pd.testing.assert_frame_equal(ours[numbers], theirs[numbers])
    ours, theirs = (queries.checks(database) for database in (filled, other))
    numbers = [name for name in ours if not name.endswith("_id")]
    assert len(ours) == 4
    pd.testing.assert_frame_equal(ours[numbers], theirs[numbers])
    ours, theirs = (queries.width_windows(database, study="first") for database in (filled, other))
    numbers = [name for name in ours if not name.endswith("_id")]
    assert set(ours.reference_kind) == {"simulation", "theory"}
    pd.testing.assert_frame_equal(ours[numbers], theirs[numbers])


def test_networks_with_two_matrices_move(db, other, record_all, tmp_path):
    branch = {"block": "two_matrix", "normalisation": "layer", "hidden_ratio": 2.0, "hidden_bias_variance": 0.1}
    record_all(db, closures=("mean", "g_only"), branch=branch)
    export_archive(db, tmp_path / "two.zip")
    import_archive(other, tmp_path / "two.zip")
    names = [
        "block",
        "normalisation",
        "hidden_ratio",
        "hidden_weight_variance",
        "hidden_bias_variance",
        "certified_until",
    ]
    found = queries.windows(other)
    assert found.iloc[0][names[:-1]].tolist() == ["two_matrix", "layer", 2.0, 1.0, 0.1]
    assert found[names].equals(queries.windows(db)[names])


def test_importing_twice_adds_nothing(filled, other, tmp_path, count_rows):
    export_archive(filled, tmp_path / "a.zip")
    import_archive(other, tmp_path / "a.zip")
    before = count_rows(other)
    assert set(import_archive(other, tmp_path / "a.zip").values()) == {0}
    assert set(import_archive(filled, tmp_path / "a.zip").values()) == {0}
    assert count_rows(other) == before


def test_one_study_or_some_runs_go_alone(filled, other, tmp_path):
    rows = export_archive(filled, tmp_path / "a.zip", study="second")
    assert (rows["studies"], rows["runs"], rows["comparisons"], rows["width_windows"]) == (1, 4, 3, 0)
    import_archive(other, tmp_path / "a.zip")
    assert set(queries.runs(other).activation) == {"erf"}
    ours, theirs = (queries.windows(database, study="second") for database in (filled, other))
    numbers = [name for name in ours if not name.endswith("_id")]
    pd.testing.assert_frame_equal(ours[numbers], theirs[numbers])

    chosen = queries.runs(filled, activation="tanh", closure="g_only").run_id.tolist()
    rows = export_archive(filled, tmp_path / "b.zip", run_ids=chosen)
    assert (rows["studies"], rows["runs"], rows["comparisons"], rows["study_runs"]) == (1, 1, 0, 1)
    import_archive(other, tmp_path / "b.zip")
    assert len(queries.runs(other)) == 5


def test_top_up_whose_base_stays_behind_extends_nothing(filled, other, tmp_path):
    top_up = queries.runs(filled, kind="simulation").dropna(subset=["extends_run_id"]).run_id.tolist()
    export_archive(filled, tmp_path / "a.zip", run_ids=top_up)
    import_archive(other, tmp_path / "a.zip")
    assert queries.runs(other).extends_run_id.isna().all()


def test_success_replaces_what_failed_here_and_not_the_reverse(filled, other, make_theory, provenance, tmp_path):
    failed_here, failed_there = make_theory("g_only"), make_theory("mean", activation="relu")
    mark_failed(other, failed_here.spec, error="no", provenance=provenance)
    record_prediction(other, failed_there, provenance=provenance)
    export_archive(filled, tmp_path / "a.zip")
    import_archive(other, tmp_path / "a.zip")
    assert set(queries.runs(other).status) == {"succeeded"}
    assert maintenance.check(other.url) == []


def test_an_activation_of_an_older_archive_gets_its_present_name(db, other, make_theory, provenance, tmp_path):
    record_prediction(db, make_theory("mean", activation="leaky_relu(slope=0.2)"), provenance=provenance)
    with db.session() as session:
        session.execute(sa.update(Configuration).values(activation="leaky_relu(slope=0.20000000000000001)"))
    export_archive(db, tmp_path / "a.zip")
    import_archive(other, tmp_path / "a.zip")
    assert queries.runs(other, activation="leaky_relu(slope=.2)").activation.tolist() == ["leaky_relu(slope=0.2)"]


def _repack(path: Path, name: str, change) -> None:
    with zipfile.ZipFile(path) as archive:
        contents = {item: archive.read(item) for item in archive.namelist()}
    contents[name] = change(contents[name])
    with zipfile.ZipFile(path, "w") as archive:
        for item, data in contents.items():
            archive.writestr(item, data)


@pytest.mark.parametrize(
    ("backend", "path"),
    [
        pytest.param(
            backend,
            path,
            id=f"{backend}-{path.stem}",
            marks=[pytest.mark.campaign] * (backend == "postgresql" and path not in (OLDEST, NEWEST)),
        )
        for backend in ("sqlite", "postgresql")
        for path in RELEASED_ARCHIVES
    ],
    indirect=["backend"],
)
def test_archive_of_an_older_format(db, tmp_path, count_rows, path):
    """Written by the programs of revisions 0002 to 0014: two simulations with comparisons, a top-up, a failure; from
    format 6 on also the next order in 1/n, from 7 on the widths that follow from it, from 8 on the third cumulant, from
    9 on a measurement."""
    counts, written = import_archive(db, path), int(path.stem.rpartition("_")[2])
    assert counts["runs"] == 8 + (written >= 6) + (written >= 9)
    assert counts["comparisons"] == 8 + (written >= 2) + (written >= 9)
    assert counts["kernel_quantiles"] == 0
    assert counts["width_windows"] == (324 if written >= 7 else 0)
    third = queries.select(db, "SELECT quantity FROM kernel_trajectories WHERE quantity = 'T'")
    assert len(third) == (1 if written >= 8 else 0)
    assert maintenance.check(db.url) == []
    simulated = queries.windows(db, study="released", reference_kind="simulation")
    windows = pd.concat([simulated, queries.windows(db, reference_kind=["theory", "measurement"])])
    errors = queries.errors(db)
    assert (len(windows), len(errors)) == (counts["validity_windows"], counts["error_metrics"])
    assert study_progress(db).runs_asked.isna().all(), "older formats do not say it"
    runs = queries.runs(db)
    assert runs.next_order.notna().equals(runs.kind == "prediction"), "a column of its own since format 6"
    assert set(windows.width.dropna()) == {16, 32}
    assert set(import_archive(db, path).values()) == {0}
    assert export_archive(db, tmp_path / "now.zip") == counts


@pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.campaign)], indirect=True)
@pytest.mark.parametrize(
    ("name", "change", "word"),
    [
        ("trajectory_values.parquet", lambda data: data[:-30] + bytes(30), "checksum"),
        ("manifest.json", lambda data: data.replace(b'"format": 11', b'"format": 12'), "update the program"),
        ("manifest.json", lambda data: data[:50], "damaged"),
    ],
)
def test_damaged_archive_changes_nothing(filled, other, tmp_path, count_rows, name, change, word):
    path = tmp_path / "a.zip"
    export_archive(filled, path)
    _repack(path, name, change)
    before = count_rows(other)
    with pytest.raises(InputError, match=word):
        import_archive(other, path)
    assert count_rows(other) == before


def test_wrong_archives_and_targets_are_refused(sqlite_db, tmp_path):
    path = tmp_path / "a.zip"
    path.write_text("not a zip")
    for wrong in (path, tmp_path / "none.zip"):
        with pytest.raises(InputError, match="eft export"):
            import_archive(sqlite_db, wrong)
    with pytest.raises(InputError, match="already"):
        export_archive(sqlite_db, path)
    for selection in ({"study": "none"}, {"run_ids": [77]}):
        with pytest.raises(InputError, match="no such"):
            export_archive(sqlite_db, tmp_path / "b.zip", **selection)
    with pytest.raises(EnvironmentProblem, match="folder"):
        export_archive(sqlite_db, tmp_path / "none" / "b.zip")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_every_view_as_a_file(filled, tmp_path, suffix):
    for view in VIEWS:
        path = tmp_path / f"{view.name}.{suffix}"
        count = export_view(filled, path, view.name)
        frame = pd.read_csv(path) if suffix == "csv" else pd.read_parquet(path)
        assert len(frame) == count > 0
        assert list(frame) == [column.name for column in view.c]
    runs = pd.read_csv(tmp_path / "v_runs.csv") if suffix == "csv" else pd.read_parquet(tmp_path / "v_runs.parquet")
    expected = queries.runs(filled).set_index("run_id")
    np.testing.assert_array_equal(runs.set_index("run_id").epsilon.sort_index(), expected.epsilon.sort_index())
    assert set(runs.converged.dropna()) == {True}
    assert str(pd.to_datetime(runs.created_at, utc=True).dtype).endswith("UTC]")


def test_wrong_views_are_refused(sqlite_db, tmp_path):
    for name, view, word in (("a.csv", "runs", "v_runs"), ("a.xlsx", "v_runs", "parquet")):
        with pytest.raises(InputError, match=word):
            export_view(sqlite_db, tmp_path / name, view)


def test_widths_that_are_missing_here_are_added_to_runs_that_are_not(filled, other, make_theory, provenance, tmp_path):
    """A run that exists already keeps its trajectories, and gets the widths that only the archive has."""
    record_prediction(other, make_theory("g_only"), provenance=provenance)
    rows = export_archive(filled, tmp_path / "a.zip")
    assert import_archive(other, tmp_path / "a.zip")["width_windows"] == rows["width_windows"]
    exact = queries.runs(filled, closure="exact").run_id.tolist()
    assert export_archive(filled, tmp_path / "b.zip", run_ids=exact)["width_windows"] == 3 * 3 * 9, "of itself alone"


def test_quantiles_that_are_missing_here_are_added_to_runs_that_are_not(filled, other, tmp_path, count_rows):
    """As after an upgrade, or an import of an older archive."""
    rows = export_archive(filled, tmp_path / "a.zip")
    import_archive(other, tmp_path / "a.zip")
    before = queries.quantiles(other)
    with other.session() as session:
        session.execute(sa.delete(KernelQuantile))
    added = import_archive(other, tmp_path / "a.zip")
    assert {name: count for name, count in added.items() if count} == {"kernel_quantiles": rows["kernel_quantiles"]}
    pd.testing.assert_frame_equal(queries.quantiles(other), before)


def test_deleting_a_study_keeps_what_others_use(db, record_all, count_rows):
    record_all(db, "first")
    record_all(db, "second", width=32)  # the same predictions
    before = count_rows(db)
    tried = removal.delete_study(db, "second", dry_run=True)
    assert count_rows(db) == before
    assert tried["runs"] == 1
    assert removal.delete_study(db, "second") == tried
    after = count_rows(db)
    assert {name: before[name] - after[name] for name in tried} == tried
    assert set(queries.windows(db, study="first").width) == {16}
    assert queries.studies(db).name.tolist() == ["first"]
    with pytest.raises(InputError, match="second"):
        removal.delete_study(db, "second")


def test_deleting_runs(db, record_all):
    recorded = record_all(db)
    with pytest.raises(InputError, match="99"):
        removal.delete_runs(db, [recorded.simulation, 99])
    tried = removal.delete_runs(db, [recorded.simulation], dry_run=True)
    assert (tried["runs"], tried["comparisons"]) == (1, 3)
    assert removal.delete_runs(db, [recorded.simulation]) == tried
    assert len(queries.runs(db)) == 3


def test_a_measurement_outlives_its_samples_and_takes_what_was_held_against_it(db, record_all, record_measured):
    recorded = record_all(db)
    _, measurement = record_measured(db, recorded.study_id)
    removal.delete_runs(db, [recorded.simulation])
    assert set(queries.windows(db).reference_run_id) == {measurement}
    gone = removal.delete_runs(db, [measurement])
    assert (gone["runs"], gone["comparisons"]) == (1, 1)
    assert queries.measurements(db).empty
    assert queries.windows(db).empty
    record_measured(db, recorded.study_id)
    removal.delete_study(db, "first")
    assert queries.runs(db).empty


def test_tidying_up_takes_only_what_nothing_needs(filled, count_rows):
    kept = set(queries.runs(filled, status="succeeded").run_id)
    assert removal.collect_garbage(filled) == {}
    tried = removal.collect_garbage(filled, unsuccessful=True, dry_run=True)
    assert tried == {"runs": 1, "model_configurations": 1}, "the failed one; the planned one is fresh"
    with filled.session() as session:
        session.execute(sa.update(Run).where(Run.status == "pending").values(updated_at=sa.text("'2001-01-01'")))
    tried = removal.collect_garbage(filled, unsuccessful=True, dry_run=True)
    assert tried == {"runs": 2, "model_configurations": 2}
    assert removal.collect_garbage(filled, unsuccessful=True) == tried
    assert set(queries.runs(filled).run_id) == kept
    assert removal.collect_garbage(filled, unsuccessful=True) == {}


def test_tidying_up_makes_an_sqlite_file_smaller(sqlite_db, record_all):
    record_all(sqlite_db, depth=200)
    removal.delete_study(sqlite_db, "first")
    removal.collect_garbage(sqlite_db)
    sqlite_db.dispose()
    assert Path(str(sqlite_db.url.database)).stat().st_size < 300_000
