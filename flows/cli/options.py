"""Options that several commands of ``eft`` have, and the database that one of them chooses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from db.session import Database

DatabaseOption = Annotated[
    str | None,
    typer.Option("--db", metavar="URL", help="Results database; EFT_DATABASE_URL, else SQLite in ./eft-data."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def use_database(url: str | None) -> str:
    """The address of the chosen database, which is also put into the environment, where tasks read it.

    It is not an input of tasks, because it may hold a password and Prefect stores inputs.
    """
    from db.settings import default_url

    if url is not None:
        os.environ["EFT_DATABASE_URL"] = url
    return default_url()


def reading_database(url: str | None) -> Database:
    """The chosen database, to be read only. Raises EnvironmentProblem unless it is there and up to date."""
    from db.session import Database

    return Database(_current(url), read_only=True)


def writable_database(url: str | None) -> Database:
    """The chosen database, to be changed. Raises EnvironmentProblem unless it is there and up to date."""
    from db.session import Database

    return Database(_current(url))


def _current(url: str | None) -> str:
    from db.upkeep import migrate

    chosen = use_database(url)
    migrate.require_current(chosen)
    return chosen
