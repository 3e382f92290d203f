"""Where results are: the folder EFT_HOME, and the database that is meant where none is named."""

from __future__ import annotations

import os
from pathlib import Path

from eftcore.errors import InputError


def data_home() -> Path:
    """The folder of results: EFT_HOME, or ``eft-data`` in the working directory.

    Raises InputError where it begins with the ~ of a user that there is not.
    """
    chosen = os.environ.get("EFT_HOME") or "eft-data"
    try:
        return Path(chosen).expanduser().resolve()
    except RuntimeError:
        raise InputError(f"EFT_HOME = {chosen!r}: the ~ stands for no known user; write the folder in full") from None


def default_url() -> str:
    """EFT_DATABASE_URL, or the SQLite file results.db in EFT_HOME (default ./eft-data)."""
    if url := os.environ.get("EFT_DATABASE_URL"):
        return url
    import sqlalchemy as sa  # small commands need the folder alone

    return sa.URL.create("sqlite", database=str(data_home() / "results.db")).render_as_string()
