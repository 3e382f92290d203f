"""`eft predict` and `eft design`: what they print, and what they say of wrong input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import eftcore as physics
from eftcore import activation_names
from flows.study.expansion import load_study
from tests.flows import warm
from tests.flows.conftest import Eft


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


def test_warnings_of_the_theory_are_one_line(environment: dict[str, str]):
    order_two = ("--activation", "relu", "--closure", "wick", "--order", "2", "--depth", "4", "--inputs", "1")
    done = warm.run(environment, "predict", *order_two)
    assert done.returncode == 0
    assert re.fullmatch(r"eft: order = 2: the Wick orders above may matter; [^\n]*\n", done.stderr), done.stderr
