"""A release has the rows of the database, explains each column, says when a file was changed, and can be imported."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from db.reading import queries
from db.session import Database
from db.upkeep import migrate
from db.upkeep.crate import write_crate
from db.upkeep.importing import import_archive
from db.upkeep.release import DICTIONARY, LAW, SUMS, TABLES, archive_of, write_release, write_sums
from eftcore.errors import InputError


@pytest.fixture
def results(
    db: Database,
    record_all: Callable[..., object],
    record_next_order: Callable[..., object],
    record_measured: Callable[..., object],
    record_checked: Callable[..., object],
) -> Database:
    """Two studies, a measurement and a check."""
    record_all(db)
    record_next_order(db)
    record_measured(db)
    record_checked(db)
    record_all(db, "second", activation="erf", width=32)
    return db


def _tables(folder: Path) -> dict[str, pd.DataFrame]:
    return {table.name: pd.read_parquet(folder / table.file) for table in (*TABLES, LAW)}


def _count(db: Database, sql: str) -> int:
    return int(queries.select(db, sql).iloc[0, 0])


def test_a_release_has_the_rows_of_the_database(results: Database, tmp_path: Path) -> None:
    released = write_release(results, tmp_path / "all")
    tables = _tables(tmp_path / "all")
    assert {each.table.name: each.rows for each in released} == {name: len(rows) for name, rows in tables.items()}
    ended = "status IN ('succeeded', 'failed')"
    assert len(tables["runs"]) == _count(results, f"SELECT count(*) FROM v_runs WHERE {ended}")
    views = {"errors": "v_errors", "windows": "v_windows", "widths": "v_width_windows", "next_order": "v_measurements"}
    for name, view in {**views, "law": "v_quantiles"}.items():
        assert len(tables[name]) == _count(results, f"SELECT count(*) FROM {view}") > 0, name
    configurations = tables["configurations"]
    assert configurations["configuration_id"].is_unique
    assert set(configurations["configuration_id"]) == set(tables["runs"]["configuration_id"])
    there = queries.select(results, "SELECT * FROM v_errors").sort_values(["prediction_run_id", "reference_run_id"])
    assert np.isclose(tables["errors"]["error"].sum(), there["error"].sum(), rtol=1e-12)


def test_trajectories_have_every_number_of_every_run(results: Database, tmp_path: Path) -> None:
    write_release(results, tmp_path / "all")
    rows = _tables(tmp_path / "all")
    values = rows["trajectories"].merge(rows["runs"][["run_id", "kind", "epsilon"]], on="run_id", how="left")
    assert len(values) == _count(results, "SELECT count(*) FROM trajectory_values")
    assert np.allclose(values["time"], values["epsilon"] ** 2 * values["layer"], rtol=1e-12)
    assert values.loc[values["kind"] == "simulation", "se"].notna().all()
    assert values.loc[values["kind"] == "prediction", "se"].isna().all()


def test_a_release_of_a_study_has_its_runs_alone(results: Database, tmp_path: Path) -> None:
    write_release(results, tmp_path / "one", study=["second"])
    tables = _tables(tmp_path / "one")
    own = queries.select(results, "SELECT run_id FROM v_study_runs WHERE study = 'second'")["run_id"]
    assert set(tables["runs"]["run_id"]) == set(own)
    assert set(tables["trajectories"]["run_id"]) <= set(own)
    assert set(tables["configurations"]["activation"]) == {"erf"}
    for name in ("errors", "windows"):
        assert set(tables[name]["prediction_run_id"]) | set(tables[name]["reference_run_id"]) <= set(own), name
        assert len(tables[name]) > 0
    with pytest.raises(InputError, match="there is no such study"):
        write_release(results, tmp_path / "none", study=["second", "third"])


def test_every_column_is_explained(results: Database, tmp_path: Path) -> None:
    write_release(results, tmp_path / "all")
    with (tmp_path / "all" / DICTIONARY).open(encoding="utf-8") as file:
        said = list(csv.DictReader(file))
    columns = [(name, column) for name, rows in _tables(tmp_path / "all").items() for column in rows]
    assert [(row["table"], row["column"]) for row in said] == columns
    assert all(row["type"] and row["meaning"] for row in said)
    assert not [row for row in said if "see conventions" in row["meaning"]]


def test_a_release_is_imported_whole(results: Database, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    write_release(results, folder)
    write_sums(folder)
    url = f"sqlite:///{tmp_path / 'theirs.db'}"
    migrate.upgrade(url)
    theirs = Database(url)
    import_archive(theirs, archive_of(folder))
    for view in ("v_runs", "v_windows", "v_width_windows", "v_quantiles", "v_checks"):
        count = f"SELECT count(*) FROM {view}"
        assert _count(theirs, count) == _count(results, count), view
    theirs.dispose()


@pytest.mark.parametrize("harm", ["changed", "missing", "no release"])
def test_a_damaged_release_is_refused(harm: str, sqlite_db: Database, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    write_release(sqlite_db, folder)
    write_sums(folder)
    assert archive_of(folder) == folder / "results.zip"
    match harm:
        case "changed":
            (folder / DICTIONARY).write_text("nothing\n")
        case "missing":
            (folder / "law.parquet").unlink()
        case _:
            (folder / SUMS).unlink()
    with pytest.raises(InputError, match="is no release" if harm == "no release" else "not what it was"):
        archive_of(folder)


def test_nothing_is_overwritten(sqlite_db: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match="is there already and not empty"):
            write_release(sqlite_db, place)


def test_the_crate_describes_every_file_and_column(
    sqlite_db: Database, record_all: Callable[..., object], tmp_path: Path
) -> None:
    from rocrate.rocrate import ROCrate

    record_all(sqlite_db)
    folder = tmp_path / "release"
    released = write_release(sqlite_db, folder)
    write_crate(
        folder, released, version="1.2.3", studies=["mine"], made=date(2026, 1, 31), description="what it holds"
    )
    crate = ROCrate(folder)
    files = {entity.id: entity for entity in crate.data_entities}
    there = {path.name for path in folder.iterdir()} - {"ro-crate-metadata.json"}
    assert set(files) == there
    assert files["windows.parquet"]["contentSize"] == str((folder / "windows.parquet").stat().st_size)
    columns = {column["name"] for column in files["windows.parquet"]["variableMeasured"]}
    assert columns == set(pd.read_parquet(folder / "windows.parquet"))
    assert crate.root_dataset["license"] == "https://spdx.org/licenses/MIT"
    assert crate.get("#resnet-eft")["softwareVersion"] == "1.2.3"
