"""Commands on the database: looking after it, moving results, SQL, windows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import eftcore as physics
from db.errors import DatabaseReadOnly
from db.session import Database
from db.settings import default_url
from db.writing import repository
from eftcore.verdicts.widths import widths_of
from eftcore.words import width_text
from tests.flows.conftest import Eft


@pytest.fixture
def make_runs() -> Callable[[Database], None]:
    """Record the study "first": a simulation, two predictions and their windows."""

    def make(db: Database) -> None:
        model = physics.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=4)
        kernel = physics.InputKernel.explicit([[2.0]])
        study_id = repository.record_study(db, name="first", digest="f" * 64, spec={"name": "first"}, runs_asked=3)
        sample = physics.simulate(model, kernel, width=16, samples=64, seed=0)
        simulation = repository.record_simulation(db, sample, provenance={}, study_id=study_id)
        for closure in ("mean", "g_only"):
            theory = physics.predict(model, kernel, closure)
            repository.record_comparison(
                db,
                prediction_run_id=repository.record_prediction(db, theory, provenance={}, study_id=study_id),
                reference_run_id=simulation,
                comparison=physics.compare(theory, sample),
            )
        db.dispose()

    return make


def test_database_commands(eft: Eft, home: Path):
    assert eft("db", "info").code == 1
    created = eft("db", "upgrade")
    assert created.code == 0
    assert "created" in created.out
    assert (home / "results.db").is_file()
    assert "up to date" in eft("db", "upgrade").out
    assert json.loads(eft("db", "info", "--json").out)["up_to_date"] is True
    for command in (["runs"], ["windows"], ["windows", "--reference", "theory"]):
        assert json.loads(eft(*command, "--json").out) == []
    for wrong in (["--reference", "exact"], ["--reference", "theory", "--width", "8"]):
        refused = eft("windows", *wrong)
        assert refused.code == 2
        assert wrong[-1] in refused.err


def test_database_is_looked_after(eft: Eft, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    eft("db", "upgrade")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert eft("db", "check").out == "the database is sound\n"
    assert eft("db", "backup", str(tmp_path / "copy.db")).code == 0
    assert eft("db", "backup", str(tmp_path / "copy.db")).code == 2
    assert eft("db", "check", "--db", f"sqlite:///{tmp_path}/copy.db").code == 0
    assert eft("db", "downgrade", "0001_first_tables").code == 1, "the answer was no"
    assert eft("db", "downgrade", "0001_first_tables", "--yes").code == 0
    assert eft("db", "current").out.startswith("0001_first_tables (this program: ")
    unsound = eft("db", "check")
    assert unsound.code == 1
    assert "eft db upgrade" in unsound.out
    assert eft("db", "downgrade", "0000", "--yes").code == 2


def test_results_move_and_go(eft: Eft, home: Path, tmp_path: Path):
    eft("db", "upgrade")
    with closing(Database(default_url()).engine.raw_connection()) as connection:
        connection.execute(f"INSERT INTO studies (name, digest, spec) VALUES ('mine', '{'a' * 64}', '{{}}')")
        connection.commit()
    archive, other = str(tmp_path / "a.zip"), f"sqlite:///{tmp_path}/other.db"
    assert eft("export", archive).out.splitlines()[0] == "studies: 1 rows"
    assert eft("import", archive).out == "nothing new\n"
    assert eft("import", archive, "--db", other).code == 1, "there is no such database yet"
    eft("db", "upgrade", "--db", other)
    assert eft("import", archive, "--db", other).out == "studies: 1 rows\n"
    assert eft("export", str(tmp_path / "w.csv"), "--view", "v_windows", "--db", other).out == "0 rows\n"
    assert eft("export", str(tmp_path / "x.csv"), "--view", "v_windows", "--study", "mine", "--db", other).code == 2
    assert eft("delete", "--db", other).code == 2
    assert eft("delete", "--study", "mine", "--dry-run", "--db", other).out == "studies: 1 rows\n"
    assert eft("delete", "--study", "mine", "--yes", "--db", other).out == "studies: 1 rows\ndeleted\n"
    assert eft("delete", "--study", "mine", "--yes", "--db", other).code == 2
    assert "nothing to delete" in eft("gc", "--db", other).out


COUNTING = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) SELECT i FROM n"


def test_sql_says_where_it_stops(eft: Eft):
    eft("db", "upgrade")
    shown = eft("sql", COUNTING)
    assert (shown.code, len(shown.out.splitlines())) == (0, 1000 + 2)
    assert shown.err == "the first 1000 rows of more; --limit 0 prints all\n"
    part = json.loads(eft("sql", COUNTING, "--json", "--limit", "2").out)
    assert part == {"rows": [{"i": 1}, {"i": 2}], "truncated": True, "limit": 2}
    whole = eft("sql", COUNTING, "--json", "--limit", "0")
    assert (len(json.loads(whole.out)), whole.err) == (1500, "")
    exact = eft("sql", COUNTING, "--json", "--limit", "1500")
    assert (len(json.loads(exact.out)), exact.err) == (1500, "")


def test_sql_keeps_every_column_and_digit(eft: Eft):
    eft("db", "upgrade")
    query = f"SELECT 1 AS n, {2**62 + 1} AS n, NULL AS n UNION ALL SELECT 2, NULL, 0.5"
    wanted = [{"n": 1, "n_2": 2**62 + 1, "n_3": None}, {"n": 2, "n_2": None, "n_3": 0.5}]
    assert json.loads(eft("sql", query, "--json").out) == wanted
    assert str(2**62 + 1) in eft("sql", query).out


def test_windows_in_width(eft: Eft, home: Path, make_runs: Callable[[Database], None]):
    eft("db", "upgrade")
    assert json.loads(eft("windows", "--in-width", "--json").out) == []
    db = Database(default_url())
    make_runs(db)
    model = physics.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=4)
    exact = physics.predict(model, physics.InputKernel.explicit([[2.0]]), "exact", next_order=True)
    run_id = repository.record_prediction(db, exact, provenance={})
    repository.record_widths(db, prediction_run_id=run_id, reference_run_id=run_id, widths=widths_of(exact, exact))
    db.dispose()

    table = eft("windows", "--in-width", "--quantity", "V4")
    assert table.code == 0
    heading, _, _, *lines = table.out.splitlines()
    assert heading == "activation tanh, C_W 2, C_b 0, epsilon 0.25, t 0.25, inputs explicit"
    (from_theory,) = [line.split("  ") for line in lines if "next order  V4" in line]
    row = widths_of(exact, exact, [0.05]).query("quantity == 'V4' and depth == 4").iloc[0]
    assert width_text(row.to_dict()) in [cell.strip() for cell in from_theory]
    assert [line for line in lines if line.startswith("simulation") and "g_only" in line]
    rows = json.loads(eft("windows", "--in-width", "--layer", "2", "--tolerance", "0.1", "--json").out)
    assert {(row["layer"], row["tolerance"]) for row in rows} == {(2, 0.1)}
    assert {row["reference_kind"] for row in rows} == {"simulation", "theory"}


def test_filters_that_match_nothing_say_what_there_is(eft: Eft, home: Path, make_runs: Callable[[Database], None]):
    eft("db", "upgrade")
    for command in ("runs", "windows"):
        empty = eft(command, "--study", "nosuch")
        assert (empty.code, "eft run quick" in empty.err) == (0, True)
    make_runs(Database(default_url()))
    for arguments, parts in (
        (["windows", "--closure", "nosuch"], ["closure = 'nosuch'", "there are: g_only, mean"]),
        (["windows", "--study", "nosuch"], ["study = 'nosuch'", "there are: first"]),
        (["windows", "--width", "7"], ["width = 7", "there are: 16"]),
        (["windows", "--tolerance", "0.3"], ["tolerance = 0.3", "there are: 0.01, 0.05, 0.1"]),
        (["windows", "--reference", "theory"], ["reference_kind = 'theory'", "there are: simulation"]),
        (["windows", "--in-width", "--reference", "theory"], ["reference_kind = 'theory'", "there are: simulation"]),
        (["windows", "--in-width", "--layer", "9"], ["layer = 9", "there are: 0, 1, 2, 3, 4"]),
        (["windows", "--in-width", "--study", "nosuch"], ["study = 'nosuch'", "there are: first"]),
        (["runs", "--activation", "leaky_relu(slope=.2)"], ["activation = 'leaky_relu(slope=.2)'", "there are: tanh"]),
        (["runs", "--kind", "nosuch", "--study", "first"], ["kind = 'nosuch'", "prediction, simulation"]),
        (["runs", "--kind", "simulation", "--status", "failed"], ["status = 'failed'", "there are: succeeded"]),
    ):
        table = eft(*arguments)
        assert table.code == 0
        assert [part for part in parts if part not in table.err] == [], table.err
        assert len(table.out.splitlines()) == 2, "the heading of an empty table"
        assert json.loads(eft(*arguments, "--json").out) == []
    assert json.loads(eft("runs", "--json", "--limit", "1").out)["truncated"] is True
    assert len(json.loads(eft("runs", "--json", "--limit", "0").out)) == 3


def test_sql_only_reads(eft: Eft):
    eft("db", "upgrade")
    answer = eft("sql", "SELECT COUNT(*) AS n FROM v_runs", "--json")
    assert json.loads(answer.out) == [{"n": 0}]
    for statement in ("DELETE FROM runs", "DROP TABLE runs", "SELECT nothing FROM v_runs", "SELEC 1"):
        refused = eft("sql", statement)
        assert refused.code == 2, statement
        assert refused.err.startswith("eft: ")
        assert "Traceback" not in refused.err
    assert json.loads(eft("sql", "SELECT COUNT(*) AS n FROM v_runs", "--json").out) == [{"n": 0}]


def test_database_problems_are_1_and_say_what_to_do(eft: Eft, tiny: Path, tmp_path: Path):
    missing = eft("windows")
    assert missing.code == 1
    assert "eft db upgrade" in missing.err
    assert "eft db upgrade" in eft("run", str(tiny)).err
    unreachable = eft("windows", "--db", "postgresql://127.0.0.1:1/none")
    assert unreachable.code == 1
    other = tmp_path / "other.db"
    other.write_text("not a database" * 100)
    assert eft("windows", "--db", f"sqlite:///{other}").code == 1
    assert eft("windows", "--db", "mysql://host/name").code == 2


def test_a_database_that_cannot_be_written_is_told_before_anything_runs(
    eft: Eft, home: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    eft("db", "upgrade")

    def refuse(*_: object, **__: object) -> int:
        raise DatabaseReadOnly("database is read-only; make it writable")

    monkeypatch.setattr(repository, "record_study", refuse)
    result = eft("run", str(tiny))
    assert result.code == 1
    assert "make it writable" in result.err
    assert [path.name for path in home.iterdir() if not path.name.startswith("results.db")] == []
