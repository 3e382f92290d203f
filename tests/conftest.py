"""For all tests: campaigns run where asked for, and are recorded; so is what each injected fault did.

Options: `--fault-log PATH` writes down what the tests that inject faults saw, `--record PATH` what each test came to.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.servers import (
    postgresql_server,
    postgresql_template,
    prefect_api,
    prefect_database,
    prefect_home,
    sqlite_template,
)

__all__ = [
    "postgresql_server",
    "postgresql_template",
    "prefect_api",
    "prefect_database",
    "prefect_home",
    "sqlite_template",
]

HEADING = """# What injected faults did

Each line is what a test injected and then found. Written by

    pytest -m "campaign or not campaign" tests/db/writing/test_faults.py tests/flows/orchestration/test_recovery.py \\
        tests/flows/orchestration/test_server_lost.py tests/flows/work/test_database_away.py \\
        tests/flows/work/test_homes.py --fault-log benchmarks/FAULTS.md

Consistent: nothing is there in part or twice. Completes: the work, or the same work again, ends with every row,
computes no finished shard again, and leaves no run running.
"""


@dataclass(frozen=True)
class Fault:
    """One fault: where it struck, whether all was consistent then, and whether the work completed when done again."""

    moment: str
    consistent: bool
    completes: bool


@dataclass
class FaultLog:
    """Faults by their kind and database."""

    faults: dict[tuple[str, str], list[Fault]] = field(default_factory=dict)

    def note(self, kind: str, database: str, moment: str, *, consistent: bool, completes: bool) -> None:
        """Keep what a fault did; call it before the assertions, so that the log also tells what failed."""
        self.faults.setdefault((kind, database), []).append(Fault(moment, consistent, completes))

    def text(self) -> str:
        """All of it as Markdown: a table of counts, then each fault on a line."""
        run = f"{datetime.now(UTC):%-d %B %Y}; {platform.system()}, Python {platform.python_version()}."
        rows = ["| fault | database | injected | consistent | completes |", "|---|---|---|---|---|"]
        lines = []
        for (kind, database), faults in sorted(self.faults.items()):
            counts = (len(faults), sum(f.consistent for f in faults), sum(f.completes for f in faults))
            rows.append(f"| {kind} | {database} | {' | '.join(map(str, counts))} |")
            lines += [f"\n## {kind}, {database}\n"]
            lines += [f"{n}. {f.moment}: {_verdict(f)}" for n, f in enumerate(faults, start=1)]
        return "\n".join([HEADING, f"{run}\n", *rows, *lines, ""])


def _verdict(fault: Fault) -> str:
    consistent = "consistent" if fault.consistent else "NOT CONSISTENT"
    return f"{consistent}, {'completes' if fault.completes else 'DOES NOT COMPLETE'}"


@pytest.fixture(autouse=True)
def own_settings() -> Iterator[None]:
    """The EFT_ variables are as before after each test: a command sets them for what its process starts."""
    before = _settings()
    yield
    for name in _settings():
        del os.environ[name]
    os.environ.update(before)


def _settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("EFT_")}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-log", type=Path, help="write what injected faults did to this file (without -n)")
    parser.addoption("--record", type=Path, help="write the outcome of each test to this file")


LONG = ("tests/ui/", "tests/flows/", "tests/test_")
"""Where files take longest, since they start servers, browsers and other processes."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave campaigns out unless ``-m`` speaks of them. Long files come first, so that workers end at the same time."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
    if "campaign" not in config.option.markexpr:
        campaigns = [item for item in items if item.get_closest_marker("campaign")]
        if campaigns:
            config.hook.pytest_deselected(items=campaigns)
            items[:] = [item for item in items if item not in campaigns]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    path = config.getoption("--record")
    if path is not None:
        path.write_text(_record(terminalreporter.stats))


RECORD = """# Campaigns

Tests with more samples than `make test` has time for, and what they came to when they last ran. Written by

    make validate
"""


def _record(stats: dict[str, list[pytest.TestReport]]) -> str:
    """Each test that ran on a line, with its outcome and seconds, by name."""
    run = f"{datetime.now(UTC):%-d %B %Y}; {platform.system()}, Python {platform.python_version()}."
    rows = [
        f"| `{report.nodeid.removeprefix('tests/')}` | {outcome} | {report.duration:.0f} |"
        for outcome in ("passed", "failed", "error", "skipped")
        for report in stats.get(outcome, ())
    ]
    return "\n".join([RECORD, f"{run}\n", "| test | outcome | seconds |", "|---|---|---|", *sorted(rows), ""])


@pytest.fixture(scope="session")
def fault_log(request: pytest.FixtureRequest) -> Iterator[FaultLog]:
    """Where tests note what the faults that they inject did; written where --fault-log says."""
    log = FaultLog()
    yield log
    path = request.config.getoption("--fault-log")
    if path is not None:
        path.write_text(log.text())
