"""The recorded database of ``eft demo``: results of studies/demo.toml, which come with the program as an archive."""

from __future__ import annotations

import os
from pathlib import Path

from db.session import Database
from db.settings import bundled_studies
from db.upkeep import migrate
from db.upkeep.importing import import_archive


def demo_database(folder: Path) -> str:
    """The address of the recorded database in this folder, which is made where it is not there.

    The folder is the EFT_HOME of this process from then on, so that what the explorer starts lies there too. Raises
    EnvironmentProblem where the folder cannot be written.
    """
    home = folder.absolute()
    os.environ["EFT_HOME"] = str(home)
    url = f"sqlite:///{home / 'results.db'}"
    migrate.upgrade(url)
    database = Database(url)
    import_archive(database, bundled_studies()["demo"].with_suffix(".zip"))
    database.dispose()
    return url
