"""A wrong input is told in one line, and in the same words wherever it can be entered.

Each line of WRONG is followed by the ways to it: from Python, in a study file (a replacement in TINY), on the command
line, in Prefect's form. A text beside a way is the outer place there, such as the table of a study file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.exceptions import ParameterTypeError
from pydantic import BaseModel

import eftcore
from db.session import parse_url
from db.settings import settings
from eftcore.errors import EftError, place_text
from flows import run
from flows.study.expansion import find_study, load_study
from flows.study.requests import ConfigurationRequest, Resources, TheoremRequest, TopUpRequest
from tests.flows.conftest import TINY, Eft

NET: dict[str, Any] = {"activation": "tanh", "weight_variance": 1.0, "epsilon": 0.1, "depth": 4}
MODEL, ONE = eftcore.ResNet(**NET), eftcore.InputKernel.explicit([[1.0]])
KERNEL = TINY[TINY.index("kind =") :]
ACTIVATIONS = "cos, erf, gelu, leaky_relu, linear, relu, silu, sin, softplus, swish, tanh"
CLOSURES = "'mean', 'source_only', 'g_only', 'sigma', 'wick', 'particle' or 'exact'"
STUDIES = "atlas, blocks, demo, digits-16, digits, paper-quick, paper, plane, quick"
ASYMMETRIC = [[1.0, 0.5], [0.4, 1.0]]


def net(**fields: Any) -> Callable[[], Any]:
    return lambda: eftcore.ResNet(**NET | fields)


def predict(**options: Any) -> Callable[[], Any]:
    return lambda: eftcore.predict(options.pop("model", MODEL), ONE, **options)


def simulate(**options: Any) -> Callable[[], Any]:
    return lambda: eftcore.simulate(MODEL, ONE, **{"width": 2, "samples": 4, **options})


def inputs(**fields: Any) -> Callable[[], Any]:
    return lambda: eftcore.InputKernel.equicorrelated(**{"n_inputs": 3, "variance": 1.0, "correlation": 0.0, **fields})


def kernel(*fields: str) -> tuple[str, str]:
    return KERNEL, "\n".join(fields)


WRONG: dict[str, dict[str, Any]] = {
    # the network
    f"activation = 'tahn': unknown; known: {ACTIVATIONS}": {
        "python": net(activation="tahn"),
        "study": ("model.", ('"tanh"', '"tahn"')),
        "command": "predict --activation tahn",
        "form": (ConfigurationRequest, {"activation": "tahn"}),
    },
    "activation = 'softplus(beta=-1)': its beta must be positive": {
        "python": net(activation="softplus(beta=-1)"),
        "study": ("model.", ('"tanh"', '["tanh", "softplus(beta=-1)"]')),
        "command": "predict --activation 'softplus(beta=-1)'",
        "form": (TheoremRequest, {"activation": "softplus(beta=-1)"}),
    },
    "activation = 'softplus(x=1)': unknown parameter 'x'; softplus takes: beta": {
        "python": net(activation="softplus(x=1)"),
        "study": ("model.", ('"tanh"', '"softplus(x=1)"')),
    },
    "activation = 3: must be a valid string": {
        "python": net(activation=3),
        "study": ("model.", ('"tanh"', "3")),
    },
    "weight_variance = -1.0: must be greater than 0": {
        "python": net(weight_variance=-1.0),
        "study": ("model.", ("weight_variance = 2.0", "weight_variance = [2.0, -1.0]")),
        "command": "predict --weight-variance -1",
        "form": (ConfigurationRequest, {"weight_variance": -1.0}),
    },
    "epsilon = nan: must be a finite number": {
        "study": ("model.", ("epsilon = 0.5", "epsilon = nan")),
        "form": (ConfigurationRequest, {"epsilon": float("nan")}),
    },
    "epsilon = True: is true or false; give a real number": {"python": net(epsilon=True)},
    "epsilon = 1e+200: must lie between 1e-150 and 1e+150": {
        "python": net(epsilon=1e200),
        "study": ("model.", ("epsilon = 0.5", "epsilon = 1e200")),
        "command": "predict --epsilon 1e200",
        "form": (ConfigurationRequest, {"epsilon": 1e200}),
    },
    "epsilon = 0.0: must be greater than 0": {
        "python": net(epsilon=0.0),
        "study": ("model.", ("epsilon = 0.5", "epsilon = 0.0")),
        "command": "predict --epsilon 0",
        "form": (ConfigurationRequest, {"epsilon": 0.0}),
    },
    "depth = -1: must be greater than or equal to 1": {
        "python": net(depth=-1),
        "study": ("model.", ("total_time = 1.0", "depth = -1")),
        "command": "predict --depth -1",
    },
    "depth: one of two is needed; give either depth (layers) or total_time (T = epsilon^2 depth), and not both": {
        "study": ("model.", ("total_time = 1.0", "total_time = 1.0\ndepth = 4")),
    },
    "--depth = 4: does not go with --total-time 1.0; give only one of them": {
        "command": "predict --depth 4 --total-time 1",
    },
    "total_time = 0.015: with epsilon = 0.1 it takes 1.5 layers, which must be whole; the nearest is total_time = 0.01,"
    " or give depth": {
        "command": "predict --epsilon 0.1 --total-time 0.015",
        "form": (ConfigurationRequest, {"total_time": 0.015}),
    },
    "width: unknown field; remove it or check its spelling": {
        "python": net(width=3),
        "study": ("model.", ("epsilon = 0.5", "epsilon = 0.5\nwidth = 3")),
    },
    "epsilon: required field is missing; add it": {
        "python": lambda: eftcore.ResNet(activation="tanh", weight_variance=1.0, depth=4),  # type: ignore[call-arg]
    },
    "epsilon: one of two is needed; give either epsilon or residual_scale, such as '1/sqrt(L)', and not both": {
        "study": ("model.", ("epsilon = 0.5\n", "")),
    },
    "residual_scale = '1/L^2': unknown rule; a number, or for example '1/sqrt(L)' or '1/L'": {
        "python": lambda: eftcore.ResNet(activation="tanh", weight_variance=1.0, depth=4, residual_scale="1/L^2"),
        "study": ("model.", ("epsilon = 0.5\ntotal_time = 1.0", "residual_scale = '1/L^2'\ndepth = 4")),
        "command": "predict --residual-scale 1/L^2 --depth 4",
    },
    "hidden_ratio = 4.0: belongs to block = 'two_matrix'; leave it out, or give block": {
        "python": net(hidden_ratio=4.0),
        "command": "predict --hidden-ratio 4",
        "form": (ConfigurationRequest, {"hidden_ratio": 4.0}),
    },
    "hidden_ratio: belongs to block = 'two_matrix'; leave it out, or give block": {
        "study": ("model.", ("epsilon = 0.5", "epsilon = 0.5\nhidden_ratio = 4.0")),
    },
    "model.depth = -1: must be greater than or equal to 1": {"python": predict(model=NET | {"depth": -1})},
    # the inputs
    f"matrix = {ASYMMETRIC}: is not symmetric (largest |K - K^T| is 0.1); give (K + K^T) / 2": {
        "python": lambda: eftcore.InputKernel.explicit(ASYMMETRIC),
        "study": ("kernel[0].", kernel("kind = 'explicit'", f"matrix = {ASYMMETRIC}")),
    },
    "matrix[1] = [0.4]: has 1 numbers, where a square matrix of 2 rows has 2; give N rows of N numbers": {
        "python": lambda: eftcore.InputKernel(matrix=[[1.0, 0.5], [0.4]]),  # type: ignore[arg-type]
        "study": ("kernel[0].", kernel("kind = 'explicit'", "matrix = [[1.0, 0.5], [0.4]]")),
    },
    "matrix[0][1] = nan: is NaN or infinity; remove or replace it": {
        "python": lambda: eftcore.InputKernel.explicit([[1.0, np.nan]]),
    },
    "data[0]: has values up to 1e+200, whose squares overflow in double precision; rescale the data, for example to"
    " values of order 1": {"python": lambda: eftcore.InputKernel.from_data([[1e200]])},
    "n_inputs = 0: must be a whole number from 1 to 1000": {
        "python": inputs(n_inputs=0),
        "command": "predict --inputs 0",
    },
    "n_inputs = 0: must be greater than or equal to 1": {
        "study": ("kernel[0].", ("n_inputs = 2", "n_inputs = 0")),
        "form": (ConfigurationRequest, {"n_inputs": 0}),
    },
    "correlation = -0.9: must lie between -0.5 and 1 for 3 inputs": {
        "python": inputs(correlation=-0.9),
        "study": (
            "kernel[1].",
            (KERNEL, f"{KERNEL}\n[[kernel]]\n{KERNEL.replace('0.3', '-0.9').replace('= 2', '= 3')}"),
        ),
        "command": "predict --inputs 3 --correlation -0.9",
        "form": (TheoremRequest, {"n_inputs": 3, "correlation": -0.9}),
    },
    "kernel[0].kind = 'random': unknown kind; give one of 'equicorrelated', 'explicit', 'digits', 'file'": {
        "study": ("", ('"equicorrelated"', '"random"')),
    },
    "kernel[0].classes[1] = 11: must be less than or equal to 9": {
        "study": ("", kernel("kind = 'digits'", "classes = [0, 11]")),
    },
    "no.npy: there is no such file; check the path, which in a study file starts at that file's folder": {
        "study": ("kernel[0].path: ", kernel("kind = 'file'", "path = 'no.npy'")),
        "command": ("--data: ", "predict --data no.npy"),
    },
    "gap.csv: row 2, cell 2: is empty; give a number in every cell, no comma at the end of a row, and a name for every"
    " column of a header": {
        "study": ("kernel[0].path: ", kernel("kind = 'file'", "path = 'gap.csv'")),
        "command": ("--data: ", "predict --data gap.csv"),
    },
    "na.csv: row 2, cell 1 = 'NA': is no finite number; remove or replace that row": {
        "study": ("kernel[0].path: ", kernel("kind = 'file'", "path = 'na.csv'")),
        "command": ("--data: ", "predict --data na.csv"),
    },
    # the theory
    f"closure = 'exakt': must be {CLOSURES}": {
        "python": predict(closure="exakt"),
        "command": "predict --closure exakt",
    },
    f"closures[1].name = 'exakt': must be {CLOSURES}": {"study": ("", ('"g_only"', '"exakt"'))},
    f"closures[0] = 'exakt': must be {CLOSURES}": {"form": (ConfigurationRequest, {"closures": ["exakt"]})},
    "order = 3: belongs to closure = 'wick'; leave it out for 'g_only'": {
        "python": predict(order=3),
        "study": ("closures[1].", ('"g_only"', "{ name = 'g_only', order = 3 }")),
        "command": "predict --order 3",
    },
    "order = 'x': must be a valid integer, unable to parse string as an integer, or 'auto'": {
        "python": predict(closure="wick", order="x"),
        "command": "predict --closure wick --order x",
    },
    "order = 300: must lie between 2 and 120, or be 'auto'": {
        "python": predict(closure="wick", order=300),
        "study": ("closures[1].", ('"g_only"', "{ name = 'wick', order = [8, 300] }")),
        "command": "predict --closure wick --order 300",
    },
    "step = 'exact': does not go with continuous = true; leave it out": {
        "python": predict(continuous=True, step="exact"),
        "study": ("closures[1].", ('"g_only"', "{ name = 'g_only', continuous = true, step = 'exact' }")),
        "command": "predict --continuous --step exact",
    },
    "nodes = 3: goes with quadrature = 'gauss_hermite', and only with it; for example nodes = 32": {
        "python": lambda: eftcore.Numerics(nodes=3),
        "study": ("numerics.", ("[model]", "[numerics]\nnodes = 3\n[model]")),
    },
    "rtol = 2.0: must be less than 1": {
        "python": lambda: eftcore.Numerics(rtol=2.0),
        "study": ("closures[1].numerics.", ('"g_only"', "{ name = 'g_only', numerics = { rtol = 2.0 } }")),
        "command": "predict --rtol 2",
    },
    "numerics = 'fast': must be a valid dictionary": {
        "python": predict(numerics="fast"),
        "study": ("", ("[model]", "numerics = 'fast'\n[model]")),
    },
    "depths = [0, 99]: must be whole layer numbers between 0 and depth = 4": {"python": predict(depths=[0, 99])},
    "recorded_depths = [0, 99]: must be whole layer numbers between 0 and depth = 4": {
        "study": ("", ("recorded_depths = 4", "recorded_depths = [0, 99]")),
    },
    # the simulation
    "width = 0: must be greater than or equal to 1": {
        "python": simulate(width=0),
        "form": (ConfigurationRequest, {"width": 0}),
    },
    "widths[1] = 0: must be greater than or equal to 1": {"study": ("", ("[8, 16]", "[8, 0]"))},
    "samples = 0: must be a whole number of at least 1": {"python": simulate(samples=0)},
    "samples = 1: must be greater than or equal to 2": {
        "study": ("", ("samples = 4096", "samples = 1")),
        "command": "top-up quick --samples 1",
        "form": (TopUpRequest, {"study": "quick", "samples": 1}),
    },
    "samples: one of two is needed; give either samples (networks) or precision, and not both": {
        "command": "top-up quick",
        "form": (TopUpRequest, {"study": "quick"}),
    },
    "quantity = 'V5': must be 'K0', 'V4', 'K1' or 'U1'": {
        "python": lambda: eftcore.Precision(quantity="V5", relative=0.1),  # type: ignore[arg-type]
        "study": ("precision.", ("samples = 4096", "precision = { quantity = 'V5', relative = 0.1 }")),
        "command": ("precision.", "top-up quick --precision V5=0.1"),
        "form": ("precision.", (TopUpRequest, {"study": "quick", "precision": {"quantity": "V5", "relative": 0.1}})),
    },
    "tolerances = [5]: each must lie between 0 and 1, such as 0.05": {
        "python": lambda: eftcore.compare(*[eftcore.predict(MODEL, ONE)] * 2, tolerances=[5]),
    },
    # resources, studies, addresses, archives, variables
    "workers = 0: must be greater than or equal to 1": {
        "python": lambda: Resources(workers=0),
        "command": "run quick --workers 0",
        "form": (Resources, {"workers": 0}),
    },
    "runner = 'dusk': must be 'threads', 'processes' or 'dask'": {
        "command": "run quick --runner dusk",
        "form": (Resources, {"runner": "dusk"}),
    },
    f"study = 'slow': no such file or bundled study; give a path, or one of: {STUDIES}": {
        "python": lambda: find_study("slow"),
        "command": "run slow",
        "form": (TopUpRequest, {"study": "slow", "samples": 8}),
    },
    "database url = 'mysql://host/name': 'mysql' is not supported; use sqlite or postgresql": {
        "python": lambda: parse_url("mysql://host/name"),
        "command": "runs --db mysql://host/name",
    },
    "none.zip: there is no such file; give an archive of `eft export`": {"command": "import none.zip"},
    "gap.csv: is not an archive of `eft export`, or damaged (File is not a zip file); copy it again": {
        "command": "import gap.csv",
    },
    "gap.csv: is there already; choose another name": {
        "command": "export gap.csv --view v_runs",
    },
    "study = 'odd': there is no such study in the database": {"command": "delete --study odd"},
    "--reference = 'exact': must be simulation, theory, measurement or check": {"command": "windows --reference exact"},
    "--width = 8: is what --in-width looks for; leave one out": {"command": "windows --in-width --width 8"},
    "--layer = 8: goes with --in-width; leave it out otherwise": {"command": "windows --layer 8"},
    "sql: only one SELECT or WITH ... SELECT is allowed, not: SELEC 1": {"command": "sql 'SELEC 1'"},
    "EFT_PATIENCE = 'long': must be a number of seconds, such as 300": {"variable": ("EFT_PATIENCE", "long")},
}


def _ways(room: str) -> list[Any]:
    """(line, outer place, way) of every line that this room has a way to."""
    ways = [(line, found[room]) for line, found in WRONG.items() if room in found]
    outside = [(line, way if isinstance(way, tuple) and isinstance(way[0], str) else ("", way)) for line, way in ways]
    return [pytest.param(line, *way, id=line[:60]) for line, way in outside]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with two files that are no tables."""
    (tmp_path / "gap.csv").write_text("1,2\n3,\n")
    (tmp_path / "na.csv").write_text("1,2\nNA,3\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _models(of: type[BaseModel]) -> Iterator[str]:
    yield of.__name__
    for below in of.__subclasses__():
        yield from _models(below)


def _check(error: EftError, line: str) -> None:
    """The one line is made of the parts, each of them once, and nothing in it comes from pydantic."""
    assert str(error) == line
    assert error.others == ()
    assert error.reason
    assert error.place or error.value is not ...
    assert not re.search(rf"(^|\W){re.escape(place_text(error.place))}( = |: )", error.reason)
    assert line.endswith(error.remedy)
    words = set(re.findall(r"\w+", line.replace(repr(error.value), "")))
    assert words.isdisjoint({*_models(BaseModel), "Value", "Input", "pydantic"})


@pytest.mark.parametrize(("line", "outer", "do"), _ways("python"))
def test_in_python(line: str, outer: str, do: Callable[[], Any]) -> None:
    with pytest.raises(EftError) as caught:
        do()
    _check(caught.value, f"{outer}{line}")


@pytest.mark.parametrize(("line", "outer", "change"), _ways("study"))
def test_in_a_study_file(line: str, outer: str, change: tuple[str, str], folder: Path) -> None:
    assert TINY.count(change[0]) == 1
    Path("my.toml").write_text(TINY.replace(*change))
    with pytest.raises(EftError) as caught:
        load_study(Path("my.toml"))
    _check(caught.value, f"my.toml: {outer}{line}")


@pytest.mark.parametrize(("line", "outer", "command"), _ways("command"))
def test_on_the_command_line(line: str, outer: str, command: str, folder: Path, eft: Eft) -> None:
    eft("db", "upgrade")
    refused = eft(*shlex.split(command))
    assert (refused.code, refused.out, refused.err) == (2, "", f"eft: {outer}{line}\n")


FLOWS: dict[Any, Any] = {
    ConfigurationRequest: run.run_configuration,
    TheoremRequest: run.verify_theorems,
    TopUpRequest: run.top_up,
}


@pytest.mark.parametrize(("line", "outer", "asked"), _ways("form"))
def test_in_the_form_of_a_flow(line: str, outer: str, asked: tuple[Any, dict[str, Any]]) -> None:
    model, given = asked
    if model is Resources:
        name, flow, parameters = "resources", run.run_study, {"request": {"study": "quick"}, "resources": given}
    else:
        name, flow = "request", FLOWS[model]
        parameters = {"request": given if model is TopUpRequest else {"activation": "tanh"} | given}
    with pytest.raises(ParameterTypeError) as caught:
        flow.validate_parameters(parameters)
    assert str(caught.value).splitlines()[1:] == [f" - {name}: {outer}{line}"]


@pytest.mark.parametrize(("line", "name", "value"), _ways("variable"))
def test_in_the_environment(line: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(EftError) as caught:
        settings()
    _check(caught.value, line)


def test_every_wrong_field_is_told(eft: Eft, tmp_path: Path) -> None:
    text = TINY.replace("seed = 7", "sead = 7").replace("epsilon = 0.5", 'epsilon = "small"')
    (tmp_path / "my.toml").write_text(text.replace("correlation = 0.3", "correlation = [0.3, nan]"))
    refused = eft("run", str(tmp_path / "my.toml"))
    assert refused.err.splitlines() == [
        f"eft: {tmp_path}/my.toml: {line}"
        for line in (
            "model.epsilon = 'small': must be a valid number",
            "kernel[0].correlation[1] = nan: must be a finite number",
            "sead: unknown field; remove it or check its spelling",
        )
    ]
    two = {"request": {"activation": "tanh", "width": 0, "seed": -1}}
    with pytest.raises(ParameterTypeError) as caught:
        run.run_configuration.validate_parameters(two)
    assert str(caught.value).splitlines()[1:] == [
        " - request: width = 0: must be greater than or equal to 1",
        " - request: seed = -1: must be greater than or equal to 0",
    ]
