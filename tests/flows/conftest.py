"""The eft command in this process, with results in a temporary folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.cli import main

TINY = """
name = "tiny"
widths = [8, 16]
samples = 4096
seed = 7
estimator = "plain"
closures = ["mean", "g_only"]
tolerances = [0.05, 0.2]
recorded_depths = 4

[model]
activation = "tanh"
weight_variance = 2.0
epsilon = 0.5
total_time = 1.0

[[kernel]]
kind = "equicorrelated"
n_inputs = 2
variance = 1.0
correlation = 0.3
"""


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str


Eft = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of results."""
    folder = tmp_path / "home"
    monkeypatch.setenv("EFT_HOME", str(folder))
    monkeypatch.setenv("EFT_DATABASE_URL", "")
    monkeypatch.setenv("COLUMNS", "200")
    assert "PREFECT_API_URL" not in os.environ
    return folder


@pytest.fixture
def eft(home: Path, capsys: pytest.CaptureFixture[str]) -> Eft:
    """Run the command: eft("db", "upgrade") -> Result."""

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        said = capsys.readouterr()
        return Result(int(stopped.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A study that takes a second."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path
