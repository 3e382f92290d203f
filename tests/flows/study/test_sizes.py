"""What is too large is refused at once with its number and the limit; what is only long is told."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eftcore as eft
from eftcore.errors import InputError
from flows.study import sizes
from flows.study.expansion import expand_study, load_study
from flows.study.requests import ConfigurationRequest, TopUpRequest
from tests.flows.conftest import TINY, Eft

MANY = [1 + step / 1000 for step in range(1000)]
ENOUGH = 3 * 2**30
"""Bytes that a process needs to refuse; what it refuses would take a thousand times as many."""

TOO_LARGE = {
    "configurations": (
        TINY.replace("weight_variance = 2.0", f"weight_variance = {MANY}").replace(
            "variance = 1.0\ncorrelation = 0.3", f"variance = {MANY}\ncorrelation = {MANY}"
        ),
        "1000 models times 1000000 input kernels are 1.00e.9 configurations with .* more than the 1000000",
    ),
    "networks": (
        TINY.replace("samples = 4096", f"samples = {10**18}"),
        r"samples = 1000000000000000000: .* shards, more than the 1000000 tasks",
    ),
    "networks of a precision": (
        TINY.replace("samples = 4096", "").replace(
            "[model]", f"[precision]\nquantity = 'V4'\nrelative = 0.1\nmax_samples = {10**18}\n[model]"
        ),
        r"samples = 1000000000000000000: .* shards, more than the 1000000 tasks",
    ),
    "networks of a number that is none": (
        TINY.replace("samples = 4096", f"samples = 1{'0' * 5000}"),
        "is not valid TOML .*4300",
    ),
    "inputs": (TINY.replace("n_inputs = 2", f"n_inputs = {10**5}"), r"n_inputs.* = 100000: .* equal to 1000$"),
    "inputs that make too large a result": (
        TINY.replace("n_inputs = 2", "n_inputs = 200").replace("recorded_depths = 4", ""),
        "V4 of 200 inputs at 5 recorded layers takes 16.2 GB, more than the 1 GB",
    ),
    "kernels": (
        TINY.replace("n_inputs = 2", "n_inputs = 1000").replace("variance = 1.0\n", f"variance = {MANY}\n"),
        "1000 kernels of up to 1000 inputs take 8 GB, more than the 1 GB",
    ),
    "recorded layers": (
        TINY.replace("recorded_depths = 4", f"recorded_depths = {10**12}"),
        "recorded_depths = 1000000000000: .* 1 to 100000",
    ),
    "layers": (TINY.replace("epsilon = 0.5", "epsilon = 1e-100"), r"takes 1e\+200 layers, more than the 10000000"),
}


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "study.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("what", TOO_LARGE)
def test_what_is_too_large_is_refused(what: str, file: Callable[[str], Path]):
    text, said = TOO_LARGE[what]
    with pytest.raises(InputError, match=said) as refused:
        load_study(file(text))
    assert "\n" not in str(refused.value)


def test_a_refusal_takes_neither_memory_nor_time(tmp_path: Path):
    """In one process with little memory, where expanding any of these would end it."""
    for number, (text, _) in enumerate(TOO_LARGE.values()):
        (tmp_path / f"{number}.toml").write_text(text)
    ask = """
import sys
from pathlib import Path
from eftcore.errors import InputError
from flows.study.expansion import load_study
refused = 0
for path in sys.argv[1:]:
    try:
        load_study(Path(path))
    except InputError:
        refused += 1
print(refused)
"""
    done = subprocess.run(
        [sys.executable, "-c", ask, *map(str, sorted(tmp_path.glob("*.toml")))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (ENOUGH, ENOUGH)),
    )
    assert done.stdout.split() == [str(len(TOO_LARGE))]


def test_the_command_says_it_in_one_line(eft: Eft, file: Callable[[str], Path]):
    assert eft("db", "upgrade").code == 0
    for text, _ in TOO_LARGE.values():
        refused = eft("run", str(file(text)))
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda tiny: ConfigurationRequest(activation="tanh", samples=10**18), "more than the 1000000"),
        (lambda tiny: ConfigurationRequest(activation="tanh", n_inputs=10**5), "1000"),
        (lambda tiny: TopUpRequest(study=str(tiny), samples=10**18).plan(), "more than the 1000000"),
        (lambda tiny: eft.InputKernel.equicorrelated(n_inputs=10**5, variance=1.0, correlation=0.0), "1 to 1000"),
        (lambda tiny: eft.InputKernel.from_data([[1.0]] * 1001), "1001 rows: a kernel may have 1000"),
        (lambda tiny: _prediction(n_inputs=300), "V4 of 300 inputs at 5 recorded layers takes .* GB"),
        (
            lambda tiny: _prediction(n_inputs=300, depth=20_000, closure="mean"),
            "K0 of 300 inputs at 20000 layers",
        ),
    ],
)
def test_the_same_holds_without_a_study_file(made: Callable[[Path], Any], said: str, tiny: Path):
    with pytest.raises(InputError, match=said):
        made(tiny)


def _prediction(*, n_inputs: int, depth: int = 4, closure: str = "g_only") -> eft.PredictionSpec:
    model = eft.ResNet(activation="tanh", weight_variance=1.0, epsilon=0.1, depth=depth)
    kernel = eft.InputKernel.equicorrelated(n_inputs=n_inputs, variance=1.0, correlation=0.0)
    return eft.PredictionSpec(model=model, kernel=kernel, closure=closure, depths=tuple(range(5)))


def test_counts_are_those_of_the_expanded_study(file: Callable[[str], Path]):
    study = load_study(file(TINY.replace("samples = 4096", "samples = 150_000")))
    for simulation in study.simulations.values():
        assert simulation.size.shards == len(simulation.all_shards)
        assert simulation.size.networks == sum(count for _, count in simulation.all_shards)


def test_a_long_study_is_told_and_not_refused(eft: Eft, file: Callable[[str], Path], tiny: Path):
    assert sizes.warning(load_study(tiny)) is None
    deep = TINY.replace("epsilon = 0.5", "epsilon = 0.001").replace("[8, 16]", "[1000]")
    long = file(deep.replace("samples = 4096", "samples = 128_000").replace("n_inputs = 2", "n_inputs = 1"))
    told = sizes.warning(load_study(long))
    assert told is not None
    assert "with 1.28e+14 neuron updates take about 1.5 days" in told
    assert eft("db", "upgrade").code == 0
    planned = eft("run", str(long), "--dry-run")
    assert (planned.code, planned.err) == (0, f"{told}\n")


def test_a_large_grid_expands_in_time_that_grows_with_it():
    """A thousand configurations, each looked up by its digest and not by going through all."""
    content = {
        "name": "grid",
        "closures": ["mean", "g_only"],
        "reference": "sigma",
        "model": {"activation": "tanh", "weight_variance": MANY, "epsilon": 0.5, "depth": 2},
        "kernel": [{"kind": "equicorrelated", "n_inputs": 1, "variance": 1.0, "correlation": 0.0}],
    }
    study = expand_study(content)
    assert len(study.references) == 1000
    assert study.references is study.references
