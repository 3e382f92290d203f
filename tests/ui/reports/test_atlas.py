"""The page of the atlas, from a small study of the same shape."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import eftcore as eft
from db.reading import queries
from db.session import Database
from flows.cli import main
from tests import plainly
from ui.notation import number

STUDY = """
name = "atlas"
samples = 256
reference = "exact"
closures = ["source_only", "g_only", "sigma", { name = "wick", order = [2, 8] }, "exact"]
tolerances = [0.05, 0.10]
recorded_depths = 5

[[model]]
activation = ["tanh", "relu"]
weight_variance = 2.0
epsilon = 0.1
total_time = 0.25
widths = [8, 16]

[[model]]
activation = ["tanh", "relu"]
weight_variance = 2.0
bias_variance = 0.1
epsilon = [0.05, 0.1]
total_time = 0.25

[[model]]
activation = ["tanh", "relu"]
weight_variance = 2.0
epsilon = 0.05
total_time = 0.25

[[kernel]]
kind = "equicorrelated"
n_inputs = 2
variance = 2.0
correlation = 0.3
"""


DIGITS = """
name = "digits-16"
reference = "exact"
closures = ["g_only", "sigma"]
recorded_depths = 5

[model]
activation = "relu"
weight_variance = 2.0
epsilon = 0.2
depth = 10

[[kernel]]
kind = "digits"
classes = [0, 1]
variance = 1.0

[[kernel]]
kind = "equicorrelated"
n_inputs = 2
variance = 1.0
correlation = 0.65
"""

PLANE = """
name = "plane"
samples = 2000
closures = [{ name = "g_only", step = "exact" }, { name = "exact", next_order = true }]
tolerances = [0.05]
recorded_depths = 4

[[model]]
activation = ["tanh", "relu"]
weight_variance = 2.0
epsilon = 0.25
depth = 8
widths = [4, 16, 64]

[[kernel]]
kind = "equicorrelated"
n_inputs = 1
variance = 2.0
correlation = 0.0
"""

BLOCKS = """
name = "blocks"
samples = 512
closures = [{ name = "g_only", step = "exact" }, { name = "exact", next_order = true }]
reference = { name = "exact", next_order = true }
tolerances = [0.01, 0.05]
recorded_depths = 4

[model]
activation = ["tanh", "relu"]
weight_variance = 2.0
epsilon = 0.25
depth = 8
widths = [16]
block = ["one_matrix", "two_matrix"]
normalisation = ["none", "rms"]

[[kernel]]
kind = "equicorrelated"
n_inputs = 1
variance = 1.0
correlation = 0.0
"""


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Database, Path]:
    """The page, the database it was made from, and its folder."""
    folder = tmp_path_factory.mktemp("atlas")
    (folder / "small.toml").write_text(STUDY)
    (folder / "digits.toml").write_text(DIGITS)
    (folder / "plane.toml").write_text(PLANE)
    (folder / "blocks.toml").write_text(BLOCKS)
    studies = [str(folder / f"{name}.toml") for name in ("small", "digits", "plane", "blocks")]
    plainly.recorded(folder / "home", studies, ("atlas", "--output", str(folder / "page" / "atlas.md")))
    db = Database(f"sqlite:///{folder / 'home' / 'results.db'}", read_only=True)
    return (folder / "page" / "atlas.md").read_text(), db, folder / "page"


def test_every_table_is_what_its_query_gives(atlas: tuple[str, Database, Path]) -> None:
    page, db, folder = atlas
    parts = re.split(r"^## ", page, flags=re.MULTILINE)
    queried = dict(re.findall(r"^(\w[^\n]*)\n\n```sql\n(.*?);\n```", parts[-1], re.DOTALL | re.MULTILINE))
    shown = {part.split("\n", 1)[0]: re.findall(r"^\| (.*) \|$", part, re.MULTILINE) for part in parts[1:-1]}
    assert len(shown) == 13
    assert set(queried) - set(shown) == {
        "The plane of depth and width",
        "The next order in that plane",
        "The errors over depth",
    }
    for title, lines in shown.items():
        frame = queries.select(db, queried[title])
        cells = [[number(x) if isinstance(x, float) else str(x) for x in row] for row in frame.itertuples(index=False)]
        assert [line.split(" | ") for line in lines[2:]] == cells
        assert lines
    for figure in ("windows", "plane"):
        assert (folder / "images" / f"atlas-{figure}.svg").read_text().lstrip().startswith("<?xml")


def test_neurons_that_depth_costs_are_those_of_theory(atlas: tuple[str, Database, Path]) -> None:
    page = atlas[0]
    model = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=0.25, depth=8)
    kernel = eft.InputKernel.equicorrelated(n_inputs=1, variance=2.0, correlation=0.0)
    exact = eft.predict(model, kernel, "exact", next_order=True, depths=[0, 8])
    expected = eft.width_windows(exact, tolerances=[0.05]).query("quantity == 'V4' and depth == 8")["width"].item()
    row = next(line for line in page.splitlines() if line.startswith("| relu | 0.5 |"))
    assert float(row.strip("| ").split(" | ")[2]) == pytest.approx(expected, rel=1e-3)
    assert f"relu {number(expected, 3)}" in page


def test_windows_by_width_are_those_against_simulations(atlas: tuple[str, Database, Path]) -> None:
    """The study holds the same theories against a better theory, too, whose windows have no width."""
    section = atlas[0].split("## How windows move with n\n", 1)[1].split("\n## ", 1)[0]
    heading, _, *lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    rows = [dict(zip(heading, line, strict=True)) for line in lines]
    assert {(row["activation"], row["width"]) for row in rows} == {
        (activation, width) for activation in ("tanh", "relu") for width in ("8", "16")
    }
    assert {row["configurations"] for row in rows} == {"1"}


def test_an_error_on_the_page_is_that_of_the_theories(atlas: tuple[str, Database, Path]) -> None:
    page = atlas[0]
    errors = []
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=2.0, correlation=0.3)
    for bias_variance in (0.0, 0.1):
        for epsilon in (0.05, 0.1):
            model = eft.ResNet(
                activation="relu",
                weight_variance=2.0,
                bias_variance=bias_variance,
                epsilon=epsilon,
                depth=round(0.25 / epsilon**2),
            )
            better = eft.predict(model, kernel, "exact")
            found = eft.compare(eft.predict(model, kernel, "g_only"), better).errors
            errors.append(found.loc[found["quantity"] == "V4", "error"].iloc[-1])
    row = next(line for line in page.splitlines() if line.startswith("| relu | 2 | V4 |"))
    smallest, average, largest = (float(cell) for cell in row.strip("| ").split(" | ")[3:])
    assert smallest == pytest.approx(min(errors), rel=1e-3)
    assert average == pytest.approx(sum(errors) / len(errors), rel=1e-3)
    assert largest == pytest.approx(max(errors), rel=1e-3)


def test_the_excess_of_a_width_is_relative_to_the_leading_order(atlas: tuple[str, Database, Path]) -> None:
    page, db, _ = atlas
    simulation = queries.runs(db, kind="simulation", activation="relu", width=8)["run_id"].iloc[0]
    predictions = queries.runs(db, kind="prediction", activation="relu", closure="exact")
    configuration = queries.runs(db, run_id=simulation)["configuration_id"].iloc[0]
    exact = predictions.loc[predictions["configuration_id"] == configuration, "run_id"].item()
    simulated, predicted = queries.arrays(db, simulation), queries.arrays(db, exact)
    for quantity in ("K0", "V4"):
        leading = predicted[quantity][-1, 0, 0]
        excess = 8 * (simulated[quantity][-1, 0, 0] - leading) / leading
        variance = (8 * simulated[f"{quantity}_se"][-1, 0, 0] / leading) ** 2
        row = next(line for line in page.splitlines() if line.startswith(f"| {quantity} | relu | 2 | 8 | 1 |"))
        found = [float(cell) for cell in row.strip("| ").split(" | ")[5:]]
        assert found == pytest.approx([excess, variance], rel=1e-3)


def test_blocks_are_compared_by_what_theory_says_of_each(atlas: tuple[str, Database, Path]) -> None:
    page = atlas[0]
    assert "up to T in 4 of 4 networks with two matrices" in page
    kernel = eft.InputKernel.equicorrelated(n_inputs=1, variance=1.0, correlation=0.0)
    for normalisation in (None, "rms"):
        model = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=0.25, depth=8, normalisation=normalisation)
        exact = eft.predict(model, kernel, "exact", depths=[8])
        spread = exact.covariance.item() / exact.mean.item() ** 2
        beginning = f"| relu | one_matrix | {normalisation or ''} | "
        ends = [line.split(" | ")[-1] for line in page.splitlines() if line.startswith(beginning)]
        assert f"{number(spread)} |" in ends


def test_without_the_study_it_says_what_to_run(
    sqlite_template: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EFT_DATABASE_URL", f"sqlite:///{sqlite_template}")
    with pytest.raises(SystemExit) as refused:
        main(["atlas"])
    assert refused.value.code == 2
    assert "eft run atlas" in capsys.readouterr().err
