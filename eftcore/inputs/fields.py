"""Types of the fields of specs: numbers that are numbers, and texts that every database and terminal can hold."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

LONGEST_LABEL = 1000
"""Characters of a label, which is part of the name of every task that it concerns."""


def _real(value: Any) -> Any:
    """Complex numbers, which numpy would strip of their imaginary part, and True and False are no real numbers."""
    if isinstance(value, complex | bool | np.bool_):
        raise ValueError(f"is {'complex' if isinstance(value, complex) else 'true or false'}; give a real number")
    return value


def printable(text: str) -> str:
    """The text, where it has no control characters but tabs and ends of lines. Raises ValueError."""
    for place, character in enumerate(text, start=1):
        if (character < " " and character not in "\t\n\r") or character == "\x7f":
            raise ValueError(f"character {place} is the control character {character!r}; leave it out")
    return text


Finite = Annotated[float, BeforeValidator(_real), Field(allow_inf_nan=False)]
"""A finite real number."""

Whole = Annotated[int, BeforeValidator(_real)]
"""A whole number; True and False are none."""

Label = Annotated[str, Field(max_length=LONGEST_LABEL), AfterValidator(printable)]
"""A short text for people; PostgreSQL cannot hold a NUL, and SQLite shows nothing of what follows it."""
