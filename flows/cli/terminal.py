"""How a command speaks to people, whatever their terminal."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Any

from eftcore.errors import NumericsWarning


def print_anything() -> None:
    """What the terminal's encoding lacks, as with LC_ALL=C, is printed as an escape and ends no command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def warn_in_a_line() -> None:
    """Warnings of the theory are for the user, who has no use for the line of our source that they come from."""
    usual = warnings.formatwarning

    def one_line(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> str:
        ours = issubclass(category, NumericsWarning)
        return f"eft: {message}\n" if ours else usual(message, category, *where, **more)

    warnings.formatwarning = one_line
