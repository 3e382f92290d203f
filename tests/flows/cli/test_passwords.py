"""The password of a database is in nothing that a study prints, stores or tells Prefect."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import sqlalchemy as sa

from tests.flows import warm
from tests.flows.conftest import TINY

SECRET = "pw7391/@%"
SPELLINGS = ("pw7391",)


def _holding(folder: Path) -> list[str]:
    """Files of a folder, and parts of archives, that hold the password in any spelling."""
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        parts = [path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(io.BytesIO(parts[0])) as archive:
                parts = [archive.read(name) for name in archive.namelist()]
        if any(spelling.encode() in part for part in parts for spelling in SPELLINGS):
            found.append(str(path))
    return found


def test_a_study_leaves_its_database_s_password_nowhere(environment: dict[str, str], postgresql: str, tmp_path: Path):
    """The server of the tests lets any password in, so that this one is as good as the right one."""
    with_password = sa.make_url(postgresql).set(password=SECRET)
    environment["EFT_DATABASE_URL"] = with_password.render_as_string(hide_password=False)
    study, folder = tmp_path / "tiny.toml", tmp_path / "left"
    folder.mkdir()
    study.write_text(TINY.replace('closures = ["mean", "g_only"]', 'closures = ["mean"]').replace("[8, 16]", "[8]"))
    failing = tmp_path / "failing.toml"
    failing.write_text(study.read_text().replace("weight_variance = 2.0", "weight_variance = 1e300"))
    said = ""
    for arguments in (
        ("server", "start"),
        ("run", str(study)),
        ("run", str(failing)),
        ("runs",),
        ("export", str(folder / "all.zip")),
        ("db", "check"),
        ("server", "stop"),
    ):
        done = warm.run(environment, *arguments)
        said += done.stdout + done.stderr
    assert not [spelling for spelling in SPELLINGS if spelling in said]
    home = Path(environment["EFT_HOME"])
    assert (home / "prefect" / "prefect.db").is_file()
    assert (folder / "all.zip").is_file()
    assert _holding(home) == _holding(folder) == []
    engine = sa.create_engine(with_password)
    with engine.connect() as connection:
        names = connection.scalars(sa.text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        assert len(names) > 5
        for name in names:
            rows = connection.scalars(sa.text(f'SELECT t::text FROM "{name}" t')).all()
            assert not [row for row in rows for spelling in SPELLINGS if spelling in row], name
    engine.dispose()
