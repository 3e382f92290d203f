"""The eft command: output, exit codes, and one clear message for each kind of bad input."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.cli.app import app
from tests.flows.conftest import TINY, Eft

COMMANDS = [
    "",
    "run",
    "predict",
    "design",
    "check",
    "runs",
    "windows",
    "sql",
    "export",
    "import",
    "delete",
    "gc",
    "ui",
    "db",
]
COMMANDS += ["top-up", "serve", "server", "server start", "server stop", "server status"]
COMMANDS += [f"db {name}" for name in ("upgrade", "downgrade", "current", "check", "info", "backup")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(eft: Eft, command: str):
    result = eft(*command.split(), "--help")
    assert result.code == 0
    assert "Usage:" in result.out


def _commands(path: tuple[str, ...], command: Any) -> Iterator[tuple[str, Any]]:
    """The command with its whole name, and all those below it."""
    yield " ".join(path), command
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands((*path, name), below)


ALL_COMMANDS = dict(_commands(("eft",), typer.main.get_command(app)))


def _refusal(line: str) -> str | None:
    """What `eft` says against a command line, its options and their types; nothing is carried out."""
    command, words = ALL_COMMANDS["eft"], shlex.split(line)[1:]
    while below := getattr(command, "commands", {}):
        if words[0] not in below:
            return f"No such command {words[0]!r}"
        command = below[words.pop(0)]
    try:
        command.make_context("eft", words)
    except Exception as error:  # UsageError of click, or of the copy that typer brings
        return str(error)
    return None


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_command_has_an_example_that_it_takes(name: str, eft: Eft):
    example = (ALL_COMMANDS[name].epilog or "").removeprefix("Example: ")
    assert f"{example} ".startswith(f"{name} ")
    assert _refusal(example) is None
    shown = " ".join(eft(*name.split()[1:], "--help").out.split())
    assert f"Example: {example}" in shown


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("eft runs --nothing 1", "No such option"),
        ("eft windows --tolerance much", "valid"),
        ("eft sql", "Missing"),
        ("eft db nothing", "No such command 'nothing'"),
    ],
)
def test_an_example_that_eft_does_not_take_would_be_found(line: str, complaint: str):
    assert complaint in (_refusal(line) or "")


def test_cite_prints_both_works_in_words_and_as_bibtex(eft: Eft):
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = eft("--cite")
    assert cited.code == 0
    assert f"{project['authors'][0]['name']}. resnet-eft: " in cited.out
    assert f"Version {project['version']}.\n" in cited.out
    assert "Hidetoshi Kawase and Toshihiro Ota. Collective Kernel EFT" in cited.out
    assert project["urls"]["Paper"].removeprefix("https://arxiv.org/abs/") in cited.out
    software, paper = re.findall(r"^@misc\{[\w-]+,\n(?:  \w+ = \{.*\},\n)+\}$", cited.out, flags=re.MULTILINE)
    assert f"author = {{{{{project['authors'][0]['name']}}}}}" in software
    assert "author = {Kawase, Hidetoshi and Ota, Toshihiro}" in paper
    assert "eprint = {2604.15742}" in paper


def test_small_commands_import_no_heavy_library():
    script = (
        "import sys; from flows.cli import main\n"
        "assert not {'numpy', 'scipy', 'pydantic'} & set(sys.modules), 'for a command that needs no physics'\n"
        "try: main(['predict', '--depth', '4'])\n"
        "except SystemExit as stopped: assert not stopped.code\n"
        "print(sorted({'torch', 'prefect', 'streamlit', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [["predict", "--widht", "3"], ["run"], ["dance"], ["windows", "--width", "x"]])
def test_bad_usage_is_2(eft: Eft, arguments: list[str]):
    result = eft(*arguments)
    assert result.code == 2
    assert "Traceback" not in result.err


BAD_STUDIES = {
    "does not parse": ("name = [", ["broken.toml", "TOML"]),
    "unknown field": (TINY.replace("seed", "sead"), ["broken.toml", "sead", "unknown field"]),
    "width 0": (TINY.replace("[8, 16]", "[8, 0]"), ["broken.toml", "width", "0", "greater"]),
    "negative variance": (
        TINY.replace("variance = 2.0", "variance = -2.0"),
        ["broken.toml", "weight_variance", "-2.0"],
    ),
    "NaN": (TINY.replace("epsilon = 0.5", "epsilon = nan"), ["broken.toml", "epsilon", "nan", "finite"]),
}


@pytest.mark.parametrize(("text", "parts"), BAD_STUDIES.values(), ids=BAD_STUDIES.keys())
def test_bad_studies_stop_before_anything_is_written(eft: Eft, home: Path, tmp_path: Path, text: str, parts: list[str]):
    path = tmp_path / "broken.toml"
    path.write_text(text)
    result = eft("run", str(path))
    assert result.code == 2
    assert [part for part in parts if part not in result.err] == [], result.err
    assert not home.exists()


BAD_INPUTS: dict[str, tuple[bytes, str, list[str]]] = {
    "a gap in the first row": (b"\xef\xbb\xbf,1\n1,-1\n", "", ["data.csv", "row 1, cell 1", "empty"]),
    "NA in the first row": (b"NA,1\n1,-1\n", "", ["data.csv", "row 1, cell 1 = 'NA'", "remove"]),
    "squares that overflow": (b"1e200,1\n1,-1\n", "variance = 1.0", ["[0]: ", "1e+200", "squares overflow", "rescale"]),
    "squares that vanish": (
        b"1e-200,0\n0,1e-200\n",
        "variance = 1.0",
        ["[0]: ", "1e-200", "squares vanish", "rescale"],
    ),
}


@pytest.mark.parametrize(("content", "scaled", "parts"), BAD_INPUTS.values(), ids=BAD_INPUTS.keys())
def test_bad_inputs_stop_before_anything_is_written(
    eft: Eft, home: Path, tmp_path: Path, content: bytes, scaled: str, parts: list[str]
):
    (tmp_path / "data.csv").write_bytes(content)
    study = TINY.partition("[[kernel]]")[0] + f"[[kernel]]\nkind = 'file'\npath = 'data.csv'\n{scaled}\n"
    (tmp_path / "inputs.toml").write_text(study)
    for command in (["run", str(tmp_path / "inputs.toml")], ["predict", "--data", str(tmp_path / "data.csv")]):
        result = eft(*command)
        assert result.code == 2
        assert [part for part in parts if part not in result.err] == [], result.err
        assert "Traceback" not in result.err
        assert not home.exists()


def test_an_unknown_study_is_2(eft: Eft):
    result = eft("run", "slow")
    assert result.code == 2
    assert "quick" in result.err
