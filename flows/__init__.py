"""Studies as cached, retryable Prefect tasks; the ``eft`` command; from Python, ``flows.run_study("quick")``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.library import StudyResult, run_study

__all__ = ["StudyResult", "run_study"]


def __getattr__(name: str) -> Any:
    """Import the modules of the public names, and with them Prefect, only when a name is used."""
    if name in __all__:
        from flows import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
