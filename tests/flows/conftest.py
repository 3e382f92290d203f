"""The eft command in this process, with results in a temporary folder; one Prefect server for all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from db import migrate
from db.home import default_url
from flows import orchestration
from flows.cli import main
from tests.db.conftest import create_database, drop_database, postgresql_server, postgresql_template

__all__ = ["postgresql_server", "postgresql_template"]

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


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect server, as `eft run` starts it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        for name in orchestration.QUIET:
            patch.setenv(name, orchestration.QUIET[name])
        orchestration.configure(tmp_path_factory.mktemp("configured"))
        with orchestration.api() as url:
            yield url


@pytest.fixture
def results(prefect_api: str, home: Path) -> Path:
    """A folder with an empty database and no results, for flows that run in this process."""
    migrate.upgrade(default_url())
    return home


@pytest.fixture
def postgresql(postgresql_server: sa.URL, postgresql_template: sa.URL) -> Iterator[str]:
    """Address of a PostgreSQL database at the newest revision, without rows."""
    made = create_database(postgresql_server, postgresql_template.database)
    yield made.render_as_string(hide_password=False)
    drop_database(postgresql_server, made)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables of a new user, with results in a temporary folder that also marks our processes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EFT_", "PREFECT_"))}
    return {**kept, "EFT_HOME": str(tmp_path / "home")}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, environment: dict[str, str]) -> str:
    """Address of a database without rows, on each kind in turn, for processes of a new user."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql"))
    made = f"sqlite:///{environment['EFT_HOME']}/results.db"
    migrate.upgrade(made)
    return made


COMMAND = (sys.executable, "-m", "flows.cli")


def shell(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The eft command in a process of its own."""
    return subprocess.run([*COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False)
