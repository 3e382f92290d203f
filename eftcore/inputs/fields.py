"""Types of the fields of specs: real numbers, and texts that every database can store and every terminal can print."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

from eftcore.errors import InputError

LONGEST_LABEL = 1000
"""Most characters of a label; the names of tasks contain the label."""

STUDY_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
"""Pattern of a study's name, of at most 80 characters; names of files and pages are made of it."""


def _real(value: Any) -> Any:
    """The value. Raises InputError for complex numbers, whose imaginary part numpy would drop, and for booleans."""
    if isinstance(value, complex | bool | np.bool_):
        raise InputError(
            f"is {'complex' if isinstance(value, complex) else 'true or false'}", remedy="give a real number"
        )
    return value


def printable(text: str) -> str:
    """The text. Raises InputError where it contains control characters other than tabs and ends of lines."""
    for place, character in enumerate(text, start=1):
        if (character < " " and character not in "\t\n\r") or character == "\x7f":
            raise InputError(f"character {place} is the control character {character!r}", remedy="leave it out")
    return text


Finite = Annotated[float, BeforeValidator(_real), Field(allow_inf_nan=False)]
"""A finite real number."""

Whole = Annotated[int, BeforeValidator(_real)]
"""A whole number; True and False are refused."""

Label = Annotated[str, Field(max_length=LONGEST_LABEL), AfterValidator(printable)]
"""A short printable text. PostgreSQL cannot store a NUL character, and SQLite shows nothing of what follows one."""
