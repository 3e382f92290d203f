"""The wheel's own files suffice: installed in a clean environment, away from the source tree, it does the main job."""

from __future__ import annotations

import ast
import os
import re
import socket
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.flows.conftest import TINY
from tests.servers import PrefectHome

ROOT = Path(__file__).parents[1]
PACKAGES = ("eftcore", "db", "flows", "ui")

pytestmark = pytest.mark.wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from this tree."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of an environment that holds the wheel; its dependencies are borrowed from the environment of the tests.

    A path in a .pth file lends packages but does not read the .pth files there, so the source tree, which is installed
    through one, stays out of reach.
    """
    env = tmp_path_factory.mktemp("env")
    _run(sys.executable, "-m", "venv", "--without-pip", str(env))
    site = Path(sysconfig.get_path("purelib", vars={"base": str(env)}))
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = env / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    _run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(wheel))
    return env / "bin"


def test_the_wheel_holds_migrations_studies_and_pages(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"flows/_studies/{path.name}" for path in (ROOT / "studies").glob("*.toml")}
    wanted |= {f"db/_migrations/versions/{path.name}" for path in (ROOT / "alembic" / "versions").glob("*.py")}
    wanted |= {f"ui/views/{path.name}" for path in (ROOT / "ui" / "views").glob("*.py")}
    wanted |= {
        "ui/.streamlit/config.toml",
        "db/_migrations/env.py",
        "flows/cli/CITATION.cff",
        "db/_docs/data-dictionary.md",
    }
    assert wanted <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "alembic/"))]


def test_the_wheel_brings_four_names_each_with_its_types(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)


def test_every_imported_distribution_is_declared():
    """By the project itself, or by one of its extras; not by a dependency that may drop it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    declared = {_normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}
    providers = packages_distributions()
    undeclared = {
        f"{module} in {path.relative_to(ROOT)}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for module in _imported(path) - set(PACKAGES) - sys.stdlib_module_names
        if not declared & {_normal(name) for name in providers.get(module, ())}
    }
    assert undeclared == set()


def _imported(path: Path) -> set[str]:
    """Top-level names of every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return {name.split(".")[0] for name in found}


def _normal(name: str) -> str:
    """The name of a distribution as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture
def tool(installed: Path, tmp_path: Path) -> Path:
    """`eft` as pipx and uv tool leave it: a link to the command of an environment that holds nothing else of ours."""
    link = tmp_path / "bin" / "eft"
    link.parent.mkdir()
    link.symlink_to(installed / "eft")
    return link


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without results, in an environment without our variables.

    It is that of another project, with packages of our names.
    """
    for name in [name for name in os.environ if name.startswith(("EFT_", "PREFECT_", "PYTHONPATH"))]:
        monkeypatch.delenv(name)
    project = tmp_path / "project"
    for package in PACKAGES:
        (project / package).mkdir(parents=True)
        (project / package / "__init__.py").write_text("raise ImportError('of another project')")
    monkeypatch.chdir(project)
    return project


def test_the_wheel_is_what_runs(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    where = _run(str(installed / "python"), "-c", "import db, eftcore, flows, ui; print(flows.__file__)")
    assert where.startswith(str(installed.parent))


def test_the_main_job_as_a_tool_among_packages_of_its_names(tool: Path, folder: Path, prefect_home: PrefectHome):
    """None of which is imported, by the commands, the server or the explorer."""
    prefect_home(folder / "eft-data" / "prefect")
    eft = str(tool)
    assert "arXiv:2604.15742" in _run(eft, "--cite")
    assert "created" in _run(eft, "db", "upgrade")
    (folder / "tiny.toml").write_text(TINY)
    assert "0 tasks cached" in _run(eft, "run", "tiny.toml")
    assert "g_only" in _run(eft, "windows")
    assert _run(eft, "sql", "SELECT DISTINCT activation AS a FROM v_trajectories").split()[-1] == "tanh"
    assert (folder / "eft-data" / "results.db").is_file()
    assert "windows: " in _run(eft, "release", "released")
    unknown = subprocess.run([eft, "run", "nothing"], capture_output=True, text=True, check=False)
    assert "digits, paper-quick, paper, plane, quick" in unknown.stderr
    with _explorer(tool.parent, _free_port()) as address, urlopen(f"{address}/_stcore/health", timeout=30) as answer:
        assert answer.read() == b"ok"


def test_the_readme_asks_for_an_environment_of_its_own():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "`pipx install .`" in readme
    assert "`uv tool install .`" in readme
    assert all(f"`{package}`" in readme.split("## Installed for every folder")[1] for package in PACKAGES)


class _explorer:
    """`eft ui` while the block runs; yields its address once it serves."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.command = [str(folder / "eft"), "ui", "--port", str(port)]

    def __enter__(self) -> str:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if f":{self.port}" in line:
                return f"http://127.0.0.1:{self.port}"
        raise AssertionError("eft ui ended:\n" + "".join(said))

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
