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
    """The chosen database. Tasks read it from the environment: a URL may hold a password, and Prefect keeps inputs."""
    from db.settings import default_url

    if url is not None:
        os.environ["EFT_DATABASE_URL"] = url
    return default_url()
