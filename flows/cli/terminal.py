"""Output and warnings of commands, on any terminal."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Any

from eftcore.errors import NumericsWarning


def print_anything() -> None:
    """Print characters that the terminal's encoding lacks, as with LC_ALL=C, as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def warn_in_a_line() -> None:
    """Print warnings of the theory in one line, without the source line that issues them."""
    usual = warnings.formatwarning

    def one_line(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> str:
        ours = issubclass(category, NumericsWarning)
        return f"eft: {message}\n" if ours else usual(message, category, *where, **more)

    warnings.formatwarning = one_line
