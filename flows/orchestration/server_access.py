"""Access to the local Prefect server: clients need its key, which is in a file that only its owner can read.

Without a key any other user of the machine, and any page in a browser on it, could start flows. Every request needs the
key, except those for the server's health; Prefect's pages ask for it once. Commands of ``eft`` read the file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from eftcore.errors import EnvironmentProblem

KEY = "key"
"""Name of the file with the key, in the folder of the server."""

AUTH_STRING = "PREFECT_API_AUTH_STRING"
"""Environment variable in which Prefect's clients find the key."""


def private_folder(folder: Path) -> Path:
    """The folder, created if needed, with permissions that let only its owner enter it.

    Raises EnvironmentProblem when it cannot be made or belongs to another user, who could change the settings in it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot be written ({error.strerror})",
            place=folder,
            remedy="choose a folder for results with EFT_HOME=PATH",
        ) from None
    _require_ours(folder)
    return folder


def own_folder(shared: Path, name: str) -> Path:
    """``shared/name``, or ``shared/name-USERID`` if the former belongs to another user; made like private_folder."""
    usual = shared / name
    with contextlib.suppress(OSError):
        if usual.stat().st_uid != os.geteuid():
            return private_folder(shared / f"{name}-{os.geteuid()}")
    return private_folder(usual)


def key(folder: Path) -> str:
    """The key of the server whose files are in this private folder; a new key is made if there is none.

    Raises EnvironmentProblem when other users can read it.
    """
    path = folder / KEY
    if not path.exists():
        _make(path)
    _require_ours(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise EnvironmentProblem(
            "others can read the key of the Prefect server", place=path, remedy="delete it to get a new one"
        )
    return path.read_text().strip()


def _make(path: Path) -> None:
    """Write a new key to a temporary file and link it, so that no process reads half a key or makes a second one."""
    part = path.with_name(f"{KEY}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"eft:{secrets.token_urlsafe(32)}\n")
    with contextlib.suppress(FileExistsError):
        os.link(part, path)
    part.unlink()


def _require_ours(path: Path) -> None:
    if path.stat().st_uid != os.geteuid():
        raise EnvironmentProblem(
            "belongs to another user, who could make Prefect run what they like",
            place=path,
            remedy="choose a folder for results with EFT_HOME=PATH",
        )


def protection(key: str, port: int) -> dict[str, str]:
    """Settings of a server that requires this key, and that refuses requests of other web pages in a browser."""
    own_pages = ",".join(f"http://{host}:{port}" for host in ("127.0.0.1", "localhost"))
    return {"PREFECT_SERVER_API_AUTH_STRING": key, "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": own_pages}
