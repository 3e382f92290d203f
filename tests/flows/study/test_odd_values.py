"""Values and files that are odd, or that were meant in another way: one sentence says so, and the exit code is 2."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pytest

import eftcore as eft_
from db.reading import queries
from db.reading.user_sql import LARGEST_ANSWER
from db.session import Database
from db.upkeep import migrate
from eftcore.errors import InputError
from eftcore.inputs.files import parse_table
from flows.study.requests import ConfigurationRequest, Resources
from tests.flows.conftest import COMMAND, TINY, Eft

HEAD = TINY[: TINY.index("[[kernel]]")]
STUDIES = {
    "tiny epsilon": (TINY.replace("epsilon = 0.5", "epsilon = 1e-300"), "epsilon = 1e-300: must lie between"),
    "huge epsilon": (TINY.replace("epsilon = 0.5", "epsilon = 1e200"), "epsilon = 1e+200: must lie between"),
    "huge epsilon with layers": (
        TINY.replace("epsilon = 0.5\ntotal_time = 1.0", "epsilon = 1e200\ndepth = 4"),
        "epsilon = 1e+200: must lie between",
    ),
    "too many digits": (
        HEAD + f"[[kernel]]\nkind = 'digits'\nclasses = {[0] * 200}\n",
        "classes: 0 stands there 200 times, and there are 178 images of it",
    ),
    "deeply nested": (f"x = {'[' * 100_000}{']' * 100_000}", "is not valid TOML (nested too deeply)"),
    "long label": (
        TINY[: TINY.index("[[kernel]]")]
        + f"[[kernel]]\nkind = 'explicit'\nmatrix = [[1.0]]\nlabel = '{'x' * 10**6}'\n",
        "label = 'xxx",
    ),
    "NUL in a label": (
        HEAD + '[[kernel]]\nkind = "explicit"\nmatrix = [[1.0]]\nlabel = "a\\u0000b"\n',
        "label = 'a\\x00b': character 2 is the control character",
    ),
    "NUL in a description": (f'description = "a\\u0000b"\n{TINY}', "character 2 is the control character"),
    "one bracket": (
        TINY.replace("[[kernel]]", "[kernel]"),
        "write [[kernel]], with two brackets, in place of [kernel]",
    ),
    "no layers": (TINY.replace("recorded_depths = 4", "recorded_depths = []"), "a list of them, such as [0, 100]"),
    "true for a number": (TINY.replace("total_time = 1.0", "depth = true"), "model.depth = True"),
    "true for layers": (
        TINY.replace("recorded_depths = 4", "recorded_depths = true"),
        "recorded_depths = True: names no layers; give about",
    ),
    "a long file": ("#" * 10_000_001, "is larger than 10 MB"),
}


@pytest.mark.parametrize("what", STUDIES)
def test_a_study_file_is_told_what_is_odd(what: str, eft: Eft, tmp_path: Path):
    text, said = STUDIES[what]
    path = tmp_path / "odd.toml"
    path.write_text(text)
    refused = eft("run", str(path))
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1), refused.err[:500]
    assert said in refused.err


def test_a_byte_order_mark_is_read_over(eft: Eft, tiny: Path):
    assert eft("db", "upgrade").code == 0
    tiny.write_bytes(b"\xef\xbb\xbf" + tiny.read_bytes())
    assert eft("run", str(tiny), "--dry-run").code == 0
    tiny.write_text(TINY, encoding="utf-16")
    refused = eft("run", str(tiny))
    assert (refused.code, "is not UTF-8 text" in refused.err) == (2, True)


MODEL: dict[str, Any] = {"activation": "tanh", "weight_variance": 1.0, "epsilon": 0.1, "depth": 4}


def _prediction(**fields: Any) -> eft_.PredictionSpec:
    return eft_.PredictionSpec(model=eft_.ResNet(**MODEL), kernel=eft_.InputKernel.explicit([[1.0]]), **fields)


@pytest.mark.parametrize(
    "made",
    [
        lambda: eft_.ResNet(**MODEL | {"depth": True}),
        lambda: eft_.ResNet(**MODEL | {"epsilon": True}),
        lambda: _prediction(closure="wick", order=True),
        lambda: _prediction(depths=(False, True)),
        lambda: eft_.EnsembleSpec(model=eft_.ResNet(**MODEL), kernel=eft_.InputKernel.explicit([[1.0]]), width=True),
        lambda: eft_.Precision(quantity="V4", relative=0.1, max_samples=True),
        lambda: eft_.Numerics(quadrature="gauss_hermite", nodes=True),
        lambda: Resources(workers=True),
        lambda: ConfigurationRequest(activation="tanh", samples=True),
        lambda: ConfigurationRequest(activation="tanh", bias_variance=True),
    ],
)
def test_true_and_false_are_no_numbers(made: Callable[[], Any]):
    with pytest.raises(InputError, match=r"is true or false; give a real number|must be a valid (int|num)"):
        made()


@pytest.mark.parametrize("shape", [(10**12, 10**6), (-2, -4), (0, 10**30), (2**64, 1), (4, 2**62)])
def test_a_header_that_lies_about_the_shape(shape: tuple[int, int]):
    header = str({"descr": "<f8", "fortran_order": False, "shape": shape}).encode()
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
    with pytest.raises(InputError, match=r"lies\.npy: (is cut short|has shape)"):
        parse_table(content, PurePath("lies.npy"))


@pytest.mark.parametrize("server", ["sqlite", "postgresql"])
def test_large_values_of_an_answer(server: str, request: pytest.FixtureRequest, home: Path):
    address, large = f"sqlite:///{home}/results.db", "hex(zeroblob({} / 2))"
    if server == "postgresql":
        address, large = request.getfixturevalue("postgresql"), "repeat('x', {})"
    migrate.upgrade(address)
    database = Database(address, read_only=True)
    with pytest.raises(InputError, match="a value has more than 64 MB"):
        queries.select(database, f"SELECT {large.format(400_000_000 if server == 'sqlite' else 70_000_000)} AS x")
    several = " UNION ALL ".join([f"SELECT {large.format(60_000_000)} AS x"] * 6)
    with pytest.raises(InputError, match=f"more than {LARGEST_ANSWER // 10**6} MB; select fewer"):
        queries.select(database, several)
    assert len(queries.select(database, f"SELECT {large.format(10)} AS x")) == 1
    database.dispose()


def test_a_view_that_is_not_named(eft: Eft, tmp_path: Path):
    assert eft("db", "upgrade").code == 0
    refused = eft("export", str(tmp_path / "x.csv"))
    assert (refused.code, "say which view with --view, one of" in refused.err) == (2, True)
    assert not (tmp_path / "x.csv").exists()


def test_a_downgrade_says_what_it_drops_and_offers_a_copy(eft: Eft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert eft("db", "upgrade").code == 0
    copy = tmp_path / "copy.db"
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    asked = eft("db", "downgrade", "base")
    assert (asked.code, "drops table runs with 0 rows" in asked.out, "--backup FILE" in asked.err) == (1, True, True)
    assert eft("db", "check").out == "the database is sound\n", "looking at what is lost loses nothing"
    column = eft("db", "downgrade", "0003_theory_references", "--yes", "--backup", str(copy))
    assert (column.code, "drops " in column.out) == (0, True)
    assert eft("db", "check", "--db", f"sqlite:///{copy}").out == "the database is sound\n"
    offered = eft("db", "downgrade", "base", "--yes")
    assert (offered.code, "--backup FILE" in offered.err) == (0, True)


def test_the_version(eft: Eft):
    said = eft("--version")
    assert (said.code, said.out.split()[0]) == (0, "resnet-eft")


def test_a_terminal_without_the_characters(environment: dict[str, str]):
    """LC_ALL=C where Python does not take UTF-8 instead, as where PYTHONUTF8=0 is set."""
    poor = {**environment, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ask = "from db.upkeep import migrate; from db.settings import default_url; migrate.upgrade(default_url())"
    subprocess.run([sys.executable, "-c", ask], env=poor, check=True)
    for text, code, said in (("SELECT char(949) AS x", 0, r"\u03b5"), ("SELECT 'ε' AS x", 2, "set LC_ALL=C.UTF-8")):
        done = subprocess.run([*COMMAND, "sql", text], env=poor, capture_output=True, text=True, check=False)
        assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr


def test_a_package_that_cannot_be_written_and_no_home(tmp_path: Path):
    """numba keeps its code nowhere then; root is not held back by modes until it has no rights over others."""
    package = tmp_path / "eftcore"
    shutil.copytree(Path(eft_.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder, _, _ in os.walk(package):
        Path(folder).chmod(0o555)
    plain = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    if plain and shutil.which("setpriv") is None:
        pytest.skip("root without rights over others takes setpriv")
    ask = "import eftcore, eftcore.ensemble.cpu.vector_math as v, eftcore.ensemble.cpu.kernel; print(eftcore.__file__)"
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [*plain, sys.executable, "-c", ask],
        env={**kept, "HOME": "/proc/nowhere", "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    for folder, _, _ in os.walk(package):
        Path(folder).chmod(0o755)
    assert done.stdout.split() == [str(package / "__init__.py")], done.stderr


def test_a_user_without_a_home(environment: dict[str, str]):
    """Prefect asks for one as it is imported."""
    homeless = {name: value for name, value in environment.items() if name != "HOME"}
    ask = """
import os, pwd
from pathlib import Path
pwd.getpwuid = lambda number: {}[number]  # a number without a name, as in a container
from db.settings import data_home
from flows.orchestration import surroundings
surroundings.configure(data_home())
import prefect.settings
"""
    subprocess.run([sys.executable, "-c", ask], env=homeless, check=True)
