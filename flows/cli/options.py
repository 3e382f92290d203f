"""Options that several commands of ``eft`` have."""

from __future__ import annotations

import os
from typing import Annotated

import typer

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
