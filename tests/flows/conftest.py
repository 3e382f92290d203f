"""The eft command in this process and in its own, with results in a temporary folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from flows.cli import main
from flows.orchestration import server
from flows.orchestration.server_access import AUTH_STRING
from flows.work import computations
from tests import plainly
from tests.flows import warm
from tests.servers import PrefectHome, create_database, drop_database

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


@pytest.fixture
def foreign_folder(tmp_path: Path) -> Path:
    """A working directory with folders of other projects that are named as our packages."""
    for name in ("flows", "db", "eftcore", "ui"):
        (tmp_path / "project" / name).mkdir(parents=True)
        (tmp_path / "project" / name / "__init__.py").write_text("raise ImportError('another project')")
    return tmp_path / "project"


PROXIES = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
"""Proxies that nothing answers for."""


PutDatabase = Callable[[Path], str]


@pytest.fixture
def put_database(sqlite_template: Path) -> PutDatabase:
    """Put a database without rows into a folder of results; gives its address."""

    def put(home: Path) -> str:
        home.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{shutil.copy(sqlite_template, home / 'results.db')}"

    return put


@pytest.fixture
def stored(home: Path, put_database: PutDatabase) -> Path:
    """A folder with an empty database and no results."""
    put_database(home)
    return home


@pytest.fixture
def results(prefect_api: str, stored: Path) -> Path:
    """The same, for flows that Prefect runs in this process."""
    return stored


@pytest.fixture
def without_prefect(stored: Path) -> Iterator[None]:
    """As tests/plainly.py says, with an empty database. What Prefect adds is tested in tests/flows/orchestration."""
    with plainly.without_prefect():
        yield


@pytest.fixture
def calls(stored: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the computations that really ran, in order; results and database start empty."""
    made: list[str] = []

    def noting(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            made.append(name)
            return compute(*arguments, **options)

        return noted

    for name in ("predict", "simulate", "merge", "measure", "compare"):
        monkeypatch.setattr(computations, name, noting(name, getattr(computations, name)))
    return made


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 networks each, and 128 of them to begin with."""
    monkeypatch.setattr("eftcore.ensemble.shards.SHARD_WORK", 1)
    monkeypatch.setattr("eftcore.ensemble.shards.FIRST_NETWORKS", 128)


@pytest.fixture
def postgresql(postgresql_server: sa.URL, postgresql_template: sa.URL) -> Iterator[str]:
    """Address of a PostgreSQL database at the newest revision, without rows."""
    made = create_database(postgresql_server, postgresql_template.database)
    yield made.render_as_string(hide_password=False)
    drop_database(postgresql_server, made)


@pytest.fixture
def environment(prefect_home: PrefectHome, tmp_path: Path) -> dict[str, str]:
    """Variables of a new user, with results in a temporary folder that also marks our processes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EFT_", "PREFECT_"))}
    prefect_home(tmp_path / "home" / "prefect")
    return {**kept, "EFT_HOME": str(tmp_path / "home")}


@pytest.fixture
def ready(environment: dict[str, str], put_database: PutDatabase) -> dict[str, str]:
    """The environment, with an empty database."""
    put_database(Path(environment["EFT_HOME"]))
    return environment


@pytest.fixture
def connected(ready: dict[str, str], prefect_api: str) -> dict[str, str]:
    """The environment, with an empty database, for commands that use the Prefect server of all tests."""
    return {**ready, "PREFECT_API_URL": prefect_api, AUTH_STRING: os.environ[AUTH_STRING]}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, environment: dict[str, str], put_database: PutDatabase) -> str:
    """Address of a database without rows, on each kind in turn, for processes of a new user."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql"))
    return put_database(Path(environment["EFT_HOME"]))


FREE_PORT = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
"""scheduler_kwargs of a Dask cluster; without them two that run at once both want port 8787."""

COMMAND = (sys.executable, "-P", "-m", "flows.cli")
"""As the installed ``eft``, which does not look for modules in the working directory."""


def shell(environment: dict[str, str], *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The eft command in a process of its own, in this working directory."""
    command = [*COMMAND, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def servers_of(environment: dict[str, str]) -> list[int]:
    """Processes that serve Prefect for this folder of results, those that Prefect itself may start among them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, variables = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        serves = b"flows.orchestration.server" in command or b"prefect.server" in command
        if serves and f"EFT_HOME={environment['EFT_HOME']}\0".encode() in variables:
            found.append(int(folder.name))
    return found


@pytest.fixture
def long(tiny: Path) -> Path:
    """A study that takes minutes, whose single shards take less than a second."""
    tiny.write_text(tiny.read_text().replace("samples = 4096", "samples = 400_000_000"))
    return tiny


@pytest.fixture
def warm_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers that this process starts are forked from a process with everything imported."""
    monkeypatch.setattr(server, "COMMAND", (str(warm.commands() / warm.SERVER),))


@pytest.fixture
def warm_under_way(ready: dict[str, str], long: Path) -> Iterator[subprocess.Popen[str]]:
    """`eft run` of the long study that has begun to compute, with everything imported before; its server is up."""
    with warm.start(ready, "run", str(long)) as run:
        assert run.stderr is not None
        assert any("predict" in line for line in run.stderr), "it computes nothing"
        yield run
        run.terminate()
