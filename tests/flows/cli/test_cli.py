"""The eft command: output, exit codes, and one clear message for each kind of bad input."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer

import eftcore as physics
from db.errors import DatabaseReadOnly
from db.session import Database
from db.settings import default_url
from db.writing import repository
from eftcore import activation_names
from eftcore.verdicts.widths import widths_of
from eftcore.words import width_text
from flows.cli.app import app
from flows.study.expansion import load_study
from tests.flows import warm
from tests.flows.conftest import TINY, Eft


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


COMMANDS = [
    "",
    "run",
    "predict",
    "design",
    "check",
    "runs",
    "windows",
    "sql",
    "export",
    "import",
    "delete",
    "gc",
    "ui",
    "db",
]
COMMANDS += ["top-up", "serve", "server", "server start", "server stop", "server status"]
COMMANDS += [f"db {name}" for name in ("upgrade", "downgrade", "current", "check", "info", "backup")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(eft: Eft, command: str):
    result = eft(*command.split(), "--help")
    assert result.code == 0
    assert "Usage:" in result.out


def _commands(path: tuple[str, ...], command: Any) -> Iterator[tuple[str, Any]]:
    """The command with its whole name, and all those below it."""
    yield " ".join(path), command
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands((*path, name), below)


ALL_COMMANDS = dict(_commands(("eft",), typer.main.get_command(app)))


def _refusal(line: str) -> str | None:
    """What `eft` says against a command line, its options and their types; nothing is carried out."""
    command, words = ALL_COMMANDS["eft"], shlex.split(line)[1:]
    while below := getattr(command, "commands", {}):
        if words[0] not in below:
            return f"No such command {words[0]!r}"
        command = below[words.pop(0)]
    try:
        command.make_context("eft", words)
    except Exception as error:  # UsageError of click, or of the copy that typer brings
        return str(error)
    return None


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_command_has_an_example_that_it_takes(name: str, eft: Eft):
    example = (ALL_COMMANDS[name].epilog or "").removeprefix("Example: ")
    assert f"{example} ".startswith(f"{name} ")
    assert _refusal(example) is None
    shown = " ".join(eft(*name.split()[1:], "--help").out.split())
    assert f"Example: {example}" in shown


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("eft runs --nothing 1", "No such option"),
        ("eft windows --tolerance much", "valid"),
        ("eft sql", "Missing"),
        ("eft db nothing", "No such command 'nothing'"),
    ],
)
def test_an_example_that_eft_does_not_take_would_be_found(line: str, complaint: str):
    assert complaint in (_refusal(line) or "")


def test_cite_prints_both_works_in_words_and_as_bibtex(eft: Eft):
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = eft("--cite")
    assert cited.code == 0
    assert f"{project['authors'][0]['name']}. resnet-eft: " in cited.out
    assert f"Version {project['version']}.\n" in cited.out
    assert "Hidetoshi Kawase and Toshihiro Ota. Collective Kernel EFT" in cited.out
    assert project["urls"]["Paper"].removeprefix("https://arxiv.org/abs/") in cited.out
    software, paper = re.findall(r"^@misc\{[\w-]+,\n(?:  \w+ = \{.*\},\n)+\}$", cited.out, flags=re.MULTILINE)
    assert f"author = {{{{{project['authors'][0]['name']}}}}}" in software
    assert "author = {Kawase, Hidetoshi and Ota, Toshihiro}" in paper
    assert "eprint = {2604.15742}" in paper


def test_predict_prints_the_reference_row(eft: Eft):
    result = eft("predict", "--json")
    assert result.code == 0
    last = json.loads(result.out)["rows"][-1]
    assert last["t"] == pytest.approx(2.0)
    assert last["K0_00"] == pytest.approx(4.36796, abs=5e-6)
    assert last["V4_00,11"] == pytest.approx(3.56702, abs=5e-6)
    assert last["K1_01"] == pytest.approx(-0.1980, abs=5e-5)


def test_predict_says_what_a_given_wick_order_leaves_out(eft: Eft):
    result = eft("predict", "--closure", "wick", "--order", "8", "--depth", "20", "--inputs", "1", "--rows", "1")
    assert result.code == 0
    assert "wick 8" in result.out
    assert "Left out at most by ending the series there, relative: V4 " in result.out
    assert "asked" not in result.out


def test_predict_has_the_next_order(eft: Eft):
    options = ["--closure", "exact", "--next-order", "--inputs", "1", "--epsilon", "0.2", "--depth", "5", "--rows", "1"]
    result = eft("predict", *options)
    assert result.code == 0
    header, _, _, last = result.out.splitlines()[:4]
    assert header.split() == ["t", "layer", "K0_00", "V4_00,00", "D_00,00", "K1_00", "K2_00", "T_00,00,00"]
    model = physics.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.2, depth=5)
    theory = physics.predict(model, physics.InputKernel.explicit([[2.0]]), "exact", next_order=True)
    assert theory.covariance_next is not None
    assert theory.third_cumulant is not None
    assert float(last.split()[4]) == pytest.approx(theory.covariance_next[-1, 0, 0], rel=1e-5)
    assert float(last.split()[-1]) == pytest.approx(theory.third_cumulant[-1, 0, 0, 0], rel=1e-5)
    assert ", D " in result.out


def test_design_answers_and_writes_a_study_that_checks_it(eft: Eft, tmp_path: Path):
    network = ["--activation", "relu", "--epsilon", "0.2", "--layers", "25", "--width", "64"]
    found = json.loads(eft("design", *network, "--json").out)
    rows = {(row["theory"], row["quantity"]): row for row in found["from_width"]}
    assert rows["exact", "V4"]["width"] == pytest.approx(106, abs=2)
    assert rows["g_only", "V4"]["status"] == "never"
    down = {(row["theory"], row["quantity"]): row["layer"] for row in found["down_to_layer"]}
    assert 10 <= down["exact", "V4"] < 25
    assert down["exact", "K0"] == 25
    assert found["kernel_interval"]["low"] < 2.6 < found["kernel_interval"]["high"]
    study = tmp_path / "check.toml"
    shown = eft("design", *network, "--study", str(study))
    assert "exact leading order" in shown.out
    assert "no width" in shown.out
    assert "of one network lies in [" in shown.out
    assert load_study(study).name == "design"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--width", "0"], "width = 0: must be a whole number of at least 1"),
        (["--tolerance", "-0.1"], "tolerance = -0.1: must lie between 0 and 1"),
        (["--layers", "5", "--total-time", "1"], "--layers = 5: does not go with --total-time 1.0"),
    ],
)
def test_design_refuses_what_makes_no_sense(eft: Eft, options: list[str], message: str):
    result = eft("design", "--epsilon", "0.5", *options)
    assert result.code == 2
    assert message in result.err


def test_predict_table_has_a_row_for_each_step_and_its_error(eft: Eft):
    result = eft("predict", "--activation", "relu", "--rows", "2", "--total-time", "0.5", "--epsilon", "0.1")
    lines = [line.split() for line in result.out.splitlines()]
    assert [line[:2] for line in lines if line and line[0] in {"0", "0.25", "0.5"}] == [
        ["0", "0"],
        ["0.25", "25"],
        ["0.5", "50"],
    ]
    assert "Estimated relative error" in result.out


def test_predict_raises_the_wick_order_and_says_what_is_left_out(eft: Eft):
    result = eft("predict", "--closure", "wick", "--order", "auto", "--depth", "20", "--inputs", "1", "--rows", "1")
    (order,) = re.findall(r"closure: wick (\d+), exact step", result.out)
    assert int(order) > 2
    assert re.search(r"Left out .* V4 \S+, K1 \S+ \(asked: 0\.001\)", result.out)


@pytest.mark.parametrize(("option", "said"), [("--continuous", "continuous depth"), ("--step=exact", "exact step")])
def test_predict_knows_the_depth_schemes(eft: Eft, option: str, said: str):
    common = ("--closure", "g_only", "--depth", "20", "--epsilon", "0.3", "--rows", "1")
    result, euler = eft("predict", option, *common), eft("predict", *common)
    assert said in result.out
    assert "euler step" in euler.out
    rows = [next(line for line in text.splitlines() if line.startswith("1.8 ")) for text in (result.out, euler.out)]
    assert rows[0] != rows[1]


def test_predict_names_every_activation(eft: Eft):
    listed = " ".join(eft("predict", "--help").out.replace("│", " ").split())
    assert [name for name in activation_names() if name != "swish" and name not in listed] == []


def test_predict_takes_real_inputs(eft: Eft, tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_text("1,1\n1,-1\n1,0\n")
    result = eft("predict", "--data", str(path), "--closure", "mean", "--json")
    first = json.loads(result.out)["rows"][0]
    assert (first["K0_00"], first["K0_01"]) == (1.0, 0.0)


def test_small_commands_import_no_heavy_library():
    script = (
        "import sys; from flows.cli import main\n"
        "assert not {'numpy', 'scipy', 'pydantic'} & set(sys.modules), 'for a command that needs no physics'\n"
        "try: main(['predict', '--depth', '4'])\n"
        "except SystemExit as stopped: assert not stopped.code\n"
        "print(sorted({'torch', 'prefect', 'streamlit', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


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


BAD_PREDICTIONS = {
    "negative weight variance": (["--weight-variance", "-1"], ["weight_variance", "-1", "greater than 0"]),
    "unknown activation": (["--activation", "tahn"], ["activation", "tahn", "tanh"]),
    "unknown closure": (["--closure", "gonly"], ["closure", "gonly", "g_only"]),
    "depth 0": (["--depth", "0"], ["depth", "0", "greater than or equal to 1"]),
    "NaN": (["--variance", "nan"], ["variance", "nan", "finite"]),
    "impossible correlation": (["--correlation", "-1.5"], ["correlation", "-1.5", "between -1 and 1"]),
    "both lengths": (["--depth", "4", "--total-time", "1"], ["--depth = 4", "--total-time 1.0", "only one"]),
    "missing file": (["--data", "no.npy"], ["no.npy", "no such file"]),
}


@pytest.mark.parametrize(("arguments", "parts"), BAD_PREDICTIONS.values(), ids=BAD_PREDICTIONS.keys())
def test_bad_predictions_name_field_value_and_remedy(eft: Eft, arguments: list[str], parts: list[str]):
    result = eft("predict", *arguments)
    assert result.code == 2
    assert [part for part in parts if part not in result.err] == [], result.err
    assert "Traceback" not in result.err
    assert result.out == ""


@pytest.mark.parametrize("arguments", [["predict", "--widht", "3"], ["run"], ["dance"], ["windows", "--width", "x"]])
def test_bad_usage_is_2(eft: Eft, arguments: list[str]):
    result = eft(*arguments)
    assert result.code == 2
    assert "Traceback" not in result.err


BAD_STUDIES = {
    "does not parse": ("name = [", ["broken.toml", "TOML"]),
    "unknown field": (TINY.replace("seed", "sead"), ["broken.toml", "sead", "unknown field"]),
    "width 0": (TINY.replace("[8, 16]", "[8, 0]"), ["broken.toml", "width", "0", "greater"]),
    "negative variance": (
        TINY.replace("variance = 2.0", "variance = -2.0"),
        ["broken.toml", "weight_variance", "-2.0"],
    ),
    "NaN": (TINY.replace("epsilon = 0.5", "epsilon = nan"), ["broken.toml", "epsilon", "nan", "finite"]),
}


@pytest.mark.parametrize(("text", "parts"), BAD_STUDIES.values(), ids=BAD_STUDIES.keys())
def test_bad_studies_stop_before_anything_is_written(eft: Eft, home: Path, tmp_path: Path, text: str, parts: list[str]):
    path = tmp_path / "broken.toml"
    path.write_text(text)
    result = eft("run", str(path))
    assert result.code == 2
    assert [part for part in parts if part not in result.err] == [], result.err
    assert not home.exists()


BAD_INPUTS: dict[str, tuple[bytes, str, list[str]]] = {
    "a gap in the first row": (b"\xef\xbb\xbf,1\n1,-1\n", "", ["data.csv", "row 1, cell 1", "empty"]),
    "NA in the first row": (b"NA,1\n1,-1\n", "", ["data.csv", "row 1, cell 1 = 'NA'", "remove"]),
    "squares that overflow": (b"1e200,1\n1,-1\n", "variance = 1.0", ["[0]: ", "1e+200", "squares overflow", "rescale"]),
    "squares that vanish": (
        b"1e-200,0\n0,1e-200\n",
        "variance = 1.0",
        ["[0]: ", "1e-200", "squares vanish", "rescale"],
    ),
}


@pytest.mark.parametrize(("content", "scaled", "parts"), BAD_INPUTS.values(), ids=BAD_INPUTS.keys())
def test_bad_inputs_stop_before_anything_is_written(
    eft: Eft, home: Path, tmp_path: Path, content: bytes, scaled: str, parts: list[str]
):
    (tmp_path / "data.csv").write_bytes(content)
    study = TINY.partition("[[kernel]]")[0] + f"[[kernel]]\nkind = 'file'\npath = 'data.csv'\n{scaled}\n"
    (tmp_path / "inputs.toml").write_text(study)
    for command in (["run", str(tmp_path / "inputs.toml")], ["predict", "--data", str(tmp_path / "data.csv")]):
        result = eft(*command)
        assert result.code == 2
        assert [part for part in parts if part not in result.err] == [], result.err
        assert "Traceback" not in result.err
        assert not home.exists()


def test_an_unknown_study_is_2(eft: Eft):
    result = eft("run", "slow")
    assert result.code == 2
    assert "quick" in result.err


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


def test_warnings_of_the_theory_are_one_line(environment: dict[str, str]):
    order_two = ("--activation", "relu", "--closure", "wick", "--order", "2", "--depth", "4", "--inputs", "1")
    done = warm.run(environment, "predict", *order_two)
    assert done.returncode == 0
    assert re.fullmatch(r"eft: order = 2: the Wick orders above may matter; [^\n]*\n", done.stderr), done.stderr
