"""Addresses that cannot be used: the message says whether it is the address, the driver or a right."""

from __future__ import annotations

import sys

import pytest
import sqlalchemy as sa

from db.upkeep import migrate
from flows.cli import main
from tests.servers import create_database, drop_database


def on_server(url: sa.URL, statement: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://me@db.example:abc/results", "its port is no number; write it as host:5432"),
        ("postgresql://me@db.example:99999/results", "port 99999 is none; ports are 1 to 65535"),
        ("postgresql+nosuch://me@db.example/results", "the driver 'nosuch' is not used here; write postgresql://"),
        ("postgresql+psycopg2://me@db.example/results", "the driver 'psycopg2' is not used here"),
        ("sqlite+aiosqlite:///results.db", "the driver 'aiosqlite' is not used here; write sqlite:// alone"),
    ],
)
def test_ports_and_drivers_that_are_none_are_told(address: str, said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["db", "info", "--db", address])
    err = capsys.readouterr().err
    assert (ended.value.code, err.count("\n"), said in err) == (2, 1, True), err


@pytest.mark.parametrize("problem", ["No module named 'psycopg'", "no pq wrapper available.\nAttempts made:"])
def test_a_missing_driver_is_told_with_what_installs_it(
    problem: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """As python -P would find it: no package, or one without the library that it needs."""

    class Missing:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "psycopg":
                raise ImportError(problem)

    for name in [name for name in sys.modules if name.split(".")[0] == "psycopg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        main(["db", "info", "--db", "postgresql://me@db.example/results"])
    err = capsys.readouterr().err
    assert (ended.value.code, err.count("\n")) == (1, 1), err
    assert f"needs the Python package psycopg ({problem.splitlines()[0]}); pip install 'resnet-eft[postgres]'" in err


def test_a_missing_right_is_told_as_that(postgresql_server: sa.URL, capsys: pytest.CaptureFixture[str]):
    """An account that may connect and not create tables; one that may not read them."""
    made = create_database(postgresql_server)
    role = f"stranger_{made.database}"[:60]
    on_server(postgresql_server, f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    stranger = made.set(username=role, password="x").render_as_string(hide_password=False)
    try:
        for prepare, command in (
            (lambda: on_server(made, "REVOKE CREATE ON SCHEMA public FROM PUBLIC"), "upgrade"),
            (lambda: migrate.upgrade(made), "info"),
        ):
            prepare()
            with pytest.raises(SystemExit) as ended:
                main(["db", command, "--db", stranger])
            err = capsys.readouterr().err
            assert (ended.value.code, err.count("\n")) == (1, 1), err
            assert "this account lacks a right (permission denied for " in err
            assert "GRANT CREATE ON SCHEMA public" in err
    finally:
        drop_database(postgresql_server, made)
        on_server(postgresql_server, f"DROP ROLE {role}")
