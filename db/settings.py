"""Settings from the environment variables EFT_* (the folder of results, the database, and others), and our files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from eftcore.errors import EnvironmentProblem, InputError, together


class Settings(BaseSettings):
    """Settings; the environment variable of a field is EFT_ and its name. An empty variable counts as not set."""

    model_config = SettingsConfigDict(env_prefix="EFT_", env_ignore_empty=True, frozen=True)

    home: Annotated[Path, Field(validate_default=True, description="the folder of results")] = Path("eft-data")
    database_url: Annotated[str | None, Field(description="the results database; without it, SQLite in the folder")] = (
        None
    )
    store: Annotated[
        str | None, Field(description="the address of stored results; without it, ``arrays`` in the folder")
    ] = None
    patience: Annotated[
        float,
        Field(
            ge=0, allow_inf_nan=False, description="seconds that a run waits for a database or server that went away"
        ),
    ] = 300.0
    read_only: Annotated[bool, Field(description="the explorer starts nothing and changes nothing")] = False
    explorer_url: Annotated[str, Field(description="where people open the explorer")] = "http://127.0.0.1:8501"

    @field_validator("home")
    @classmethod
    def _in_full(cls, home: Path) -> Path:
        try:
            return home.expanduser().resolve()
        except RuntimeError as error:
            raise ValueError from error


_MUST = {
    "home": "must be a folder written in full, since the ~ stands for no known user",
    "patience": "must be a number of seconds, such as 300",
}


def settings() -> Settings:
    """The settings by the present environment. Raises InputError for an invalid value."""
    try:
        return Settings()
    except ValidationError as error:
        raise together(*map(_wrong, error.errors(include_url=False))) from None


def _wrong(item: ErrorDetails) -> InputError:
    name = str(item["loc"][0])
    return InputError(_MUST.get(name, item["msg"]), place=f"EFT_{name.upper()}", value=str(item["input"]))


def data_home() -> Path:
    """The folder of results: EFT_HOME, or ``eft-data`` in the working directory. Raises InputError as settings()."""
    return settings().home


def default_url() -> str:
    """EFT_DATABASE_URL, or the SQLite file results.db in the folder of results. Raises InputError as settings()."""
    found = settings()
    if found.database_url is not None:
        return found.database_url
    import sqlalchemy as sa  # imported here, since small commands only need the folder

    return sa.URL.create("sqlite", database=str(found.home / "results.db")).render_as_string()


def store_address() -> str:
    """EFT_STORE, or ``arrays`` in the folder of results. Raises InputError as settings()."""
    found = settings()
    return found.store if found.store is not None else str(found.home / "arrays")


def require_changes() -> None:
    """Raises EnvironmentProblem in an explorer that only reads (EFT_READ_ONLY)."""
    if settings().read_only:
        raise EnvironmentProblem(
            "this one only reads", place="explorer", remedy="start one of your own, without --read-only"
        )


def bundled_studies() -> dict[str, Path]:
    """The study files that come with the project, by name: in ``studies``, which a wheel holds within ``flows``."""
    root = Path(__file__).parents[1]
    inside_wheel = root / "flows" / "_studies"
    folder = inside_wheel if inside_wheel.is_dir() else root / "studies"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}
