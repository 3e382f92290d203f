"""No password is ever shown: not by a message, a representation, a command or a program that we start."""

from __future__ import annotations

import os
import stat
import traceback
from pathlib import Path

import pytest
import sqlalchemy as sa

from db.addresses import redacted, secrets_of, shown
from db.errors import DatabaseUnreachable
from db.session import Database, parse_url
from db.upkeep import maintenance, migrate
from eftcore.errors import EftError, InputError
from flows.cli import main
from flows.library import StudyResult

SECRET = "s3cr3t"

ADDRESSES = (
    f"postgresql://me:{SECRET}@127.0.0.1:1/none",
    f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/none",
    f"postgresql://me:a@{SECRET}@127.0.0.1:1/none",
    f"postgresql://me:{SECRET}@x@127.0.0.1:1/none",
    f"postgresql://me:{SECRET}%40x@127.0.0.1:1/none",
    f"postgresql://me:{SECRET}/x@127.0.0.1:1/none",
    f"postgresql://me:{SECRET}?x@127.0.0.1:1/none",
    f"postgresql://me:{SECRET}#x@127.0.0.1:1/none",
    f"postgresql://me:{SECRET}%zz@127.0.0.1:1/none",
    f"postgresql://me:{SECRET} x@127.0.0.1:1/none",
    f"postgresql://me:x:{SECRET}@127.0.0.1:1/none",
    f"postgresql://127.0.0.1:1/none?user=me&password={SECRET}",
    f"postgresql://127.0.0.1:1/none?user=me&password=a%40{SECRET}",
    f"postgresql://127.0.0.1:1/none?user=me&password=a@{SECRET}",
    f"postgresql://127.0.0.1:1/none?password={SECRET}&password={SECRET}2",
    f"postgresql://127.0.0.1:1/none?sslpassword={SECRET}&sslkey={SECRET}",
    f"postgresql://127.0.0.1:1/none?passwrd={SECRET}",
    f"postgresql://127.0.0.1:1/none?options=-c%20a.b%3D{SECRET}",
    f"postgresql://me:{SECRET}",
    f"postgresql://me:{SECRET}@",
    f"postgresql://me:{SECRET}@host:{SECRET}/none",
    f"postgresql://me:{SECRET}@h1:1,h2:2/none",
    f"postgresql:me:{SECRET}@127.0.0.1/none",
    f"postgres://me:{SECRET}@127.0.0.1:1/none",
    f"mysql://me:{SECRET}@127.0.0.1:1/none",
    f"mysql://me:a@{SECRET}@127.0.0.1:1/none?password={SECRET}",
    f"host=127.0.0.1 port=1 user=me password={SECRET}",
    f"host=127.0.0.1 port=1 user=me password='a {SECRET}'",
    f"me:{SECRET}@127.0.0.1/none",
    f"PGPASSWORD={SECRET} postgresql://127.0.0.1:1/none",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_address_shows_its_password(address: str, tmp_path: Path, monkeypatch, capsys):
    said = [shown(address)]

    def attempt(work) -> None:
        try:
            said.append(repr(work()))
        except EftError as problem:
            said.append(str(problem) + repr(problem))

    attempt(lambda: Database(address))
    attempt(lambda: migrate.require_current(address))
    attempt(lambda: migrate.upgrade(address))
    attempt(lambda: migrate.info(address))
    attempt(lambda: maintenance.check(address))
    attempt(lambda: StudyResult(study="x", database=address, summary=None))  # type: ignore[arg-type]
    monkeypatch.setenv("EFT_HOME", str(tmp_path))
    for command in (["db", "info"], ["db", "upgrade"], ["windows"], ["db", "current"], ["db", "grant-reader", "x"]):
        for given in (["--db", address], []):
            monkeypatch.setenv("EFT_DATABASE_URL", "" if given else address)
            with pytest.raises(SystemExit) as ended:
                main([*command, *given])
            assert ended.value.code in (1, 2)
    out, err = capsys.readouterr()
    assert SECRET not in "\n".join(said) + out + err
    assert "Traceback" not in err


def test_what_is_no_secret_is_shown():
    for whole in (
        "sqlite:////home/me/a@b.db",
        "sqlite:////home/me/50%25 a%3Fb%23c.db",
        "results.db",
        "postgresql://me@db.example/results?sslmode=require",
        "postgresql:///results?host=/run/postgresql",
        "http://127.0.0.1:4200/api",
    ):
        assert shown(whole) == whole
    assert shown(f"http://me:{SECRET}@127.0.0.1:4200/api") == "http://me:***@127.0.0.1:4200/api"


def test_a_password_with_an_at_sign_says_how_it_is_written():
    with pytest.raises(InputError, match="write an @ of the password as %40"):
        parse_url(f"postgresql://me:a@{SECRET}@127.0.0.1/none")
    assert parse_url("postgresql://me:a%40b@127.0.0.1/none").password == "a@b"


def test_what_a_driver_repeats_is_redacted():
    url = sa.make_url(f"postgresql://me:a%20{SECRET}@127.0.0.1:1/none?sslkey=%2Fhome%2F{SECRET}")
    assert SECRET in "".join(secrets_of(url))
    said = f'password "a {SECRET}" or a%20{SECRET} or a+{SECRET} or /home/{SECRET} is wrong'
    assert redacted(said, url) == 'password "***" or *** or *** or *** is wrong'


def test_nor_does_the_whole_chain_of_an_error_that_is_raised():
    database = Database(f"postgresql://me:{SECRET}@127.0.0.1:1/none?password={SECRET}")
    with pytest.raises(DatabaseUnreachable) as caught, database.reading() as session:
        session.execute(sa.text("SELECT 1"))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_pg_dump_is_not_told_the_password_in_public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "pg_dump"
    program.write_text(
        '#!/bin/sh\necho "$@" > arguments\necho "$PGPASSWORD" > password\necho "$@ $PGPASSWORD" >&2\nexit 1\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    for address in (f"postgresql://me:{SECRET}@h/d", f"postgresql://h/d?user=me&password={SECRET}&sslmode=require"):
        with pytest.raises(EftError) as caught:
            maintenance.backup(tmp_path / "copy", address)
        assert SECRET not in (tmp_path / "arguments").read_text() + str(caught.value)
        assert (tmp_path / "password").read_text().strip() == SECRET
