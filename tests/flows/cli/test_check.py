"""eft check: exit codes, what it prints and writes, and one clear message for each kind of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.eftcore.measure.corpus import DEPTH, FEATURES
from tests.flows.conftest import Eft

MODULE = """
from tests.eftcore.measure.corpus import BUGS, CORRECT

make_model = CORRECT["pre-norm GELU"].make
bug = BUGS["m for sqrt(m)"].make
depth = 3
"""
SPEC = """
block = "two_matrix"
normalisation = "layer"
activation = "gelu"
weight_variance = 2.0
hidden_ratio = 2.0
residual_scale = "1/sqrt(L)"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module, inputs and a spec."""
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "mine.toml").write_text(SPEC)
    np.save(tmp_path / "inputs.npy", np.random.default_rng(1).normal(size=(2, FEATURES)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


USUAL = ("--inputs", "inputs.npy", "--networks", "60")


def test_a_correct_module_passes(eft: Eft, folder: Path) -> None:
    done = eft("check", "mine.py", *USUAL, "--spec", "mine.toml", "--report", "report.html")
    assert done.code == 0
    assert f"All {DEPTH} blocks are as the spec says" in done.out
    assert "gelu (two matrices, layer, m/n = 2)" in done.out
    assert "exact leading order" in done.out, "how far theory can be trusted"
    assert "60 networks, about" in done.err
    assert "625 networks" in done.err
    page = (folder / "report.html").read_text()
    assert "All 6 blocks are as the spec says" in page
    assert page.count("<tr>") == 1 + DEPTH
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ), "nothing is loaded from elsewhere"


def test_a_bug_is_named_and_fails(eft: Eft, folder: Path) -> None:
    done = eft("check", "mine.py:bug", *USUAL, "--spec", "mine.toml", "--json")
    assert done.code == 1
    found = json.loads(done.out)
    assert (found["passed"], found["first_deviating"]) == (False, "blocks.0")
    assert found["p_value"] < 1e-6
    assert "m for sqrt(m) in the deviation" in found["blocks"][0]["confusions"]
    assert found["spec"]["depth"] == DEPTH
    assert found["provenance"]["module"] == "Network"


def test_without_a_spec_the_nearest_is_found(eft: Eft, folder: Path) -> None:
    done = eft("check", "mine.py:make_model", "--inputs", "inputs.npy", "--networks", "150")
    assert done.code == 0
    assert "all blocks together are most like gelu (two matrices" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none.py", *USUAL), "module = 'none.py': no such file"),
        (("mine.py:other", *USUAL), "has no function 'other'"),
        (("mine.py:depth", *USUAL), "has no function 'depth'"),
        (("broken.py", *USUAL), "it fails (ZeroDivisionError"),
        (("mine.py", "--inputs", "mine.toml"), "--inputs = 'mine.toml': is no .npy file of numbers"),
        (("mine.py", *USUAL, "--spec", "none.toml"), "none.toml: cannot be read"),
        (("mine.py", *USUAL, "--spec", "mine.py"), "mine.py: is not valid TOML"),
        (("mine.py", *USUAL, "--spec", "wrong.toml"), "wrong.toml: activation = 'geluu': unknown"),
        (("mine.py", *USUAL, "--positions", "sum"), "positions = 'sum': must be one of average, separate"),
        (("mine.py", *USUAL, "--dtype", "int8"), "dtype = 'int8'"),
        (("mine.py", *USUAL, "--stream", "layers.*"), "stream = 'layers.*': no module"),
    ],
)
def test_wrong_arguments_are_answered_in_a_line(eft: Eft, folder: Path, arguments: tuple[str, ...], words: str) -> None:
    (folder / "broken.py").write_text("1 / 0")
    (folder / "wrong.toml").write_text(SPEC.replace("gelu", "geluu") + "depth = 6\n")
    done = eft("check", *arguments)
    assert done.code == 2
    assert words in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_it_is_recorded_where_there_is_a_database(eft: Eft, folder: Path, tmp_path: Path) -> None:
    usual = ("check", "mine.py:bug", *USUAL, "--spec", "mine.toml")
    without = eft(*usual)
    assert without.out.splitlines()[-1].startswith("not recorded: ")
    assert "eft db upgrade" in without.out.splitlines()[-1]
    assert not (folder / "eft-data").exists(), "nothing is created"
    refused = eft(*usual, "--record", "--db", f"sqlite:///{tmp_path / 'none.db'}")
    assert refused.code == 1
    assert "there is no database yet" in refused.err
    assert "networks, about" not in refused.err, "told before the work"

    assert eft("db", "upgrade").code == 0
    assert "record" not in eft(*usual, "--no-record").out
    done = eft(*usual, "--json")
    assert done.code == 1, "as without a record"
    assert "recorded as run 1 of sqlite:///" in done.err
    json.loads(done.out)
    rows = json.loads(eft("sql", "SELECT * FROM v_checks ORDER BY layer", "--json").out)
    assert [row["block_name"] for row in rows] == [f"blocks.{index}" for index in range(DEPTH)]
    first = rows[0]
    assert (first["factory"], first["samples"], first["first_deviating_layer"]) == (
        "corpus.py:_all.<locals>.<lambda>",
        60,
        1,
    )
    assert "m for sqrt(m)" in first["diagnosis"]
    assert first["verdict"] == json.loads(done.out)["sentence"]
    (run,) = json.loads(eft("sql", "SELECT * FROM v_runs WHERE kind = 'check'", "--json").out)
    assert (run["status"], run["seed"], run["device"]) == ("succeeded", 0, "cpu")
    assert run["python"]
    assert run["elapsed_seconds"] > 0
    kinds = "SELECT DISTINCT reference_kind, closure, quantity FROM v_errors ORDER BY quantity"
    beside = json.loads(eft("sql", kinds, "--json").out)
    assert [tuple(row.values()) for row in beside] == [("check", "exact", "K0"), ("check", "exact", "V4")]
    again = eft(*usual)
    assert "recorded as run 1 of" in again.out.splitlines()[-1], "the same check is the same run"
