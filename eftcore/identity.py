"""The identity of a result: the digest of the description of what was asked for.

The digest is the sha256 of the canonical JSON of the description, so that equal requests have equal digests on every
machine. What takes part in it: the network, the input kernel, and everything else that decides the numbers; never where
or by how many workers they were computed.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from eftcore.errors import input_error


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, shortest round-trip floats, no spaces, no NaN.

    >>> canonical_json({"b": 1.0, "a": [0.1, -0.0]})
    '{"a":[0.1,0.0],"b":1.0}'
    """
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


_AS_THEY_ARE = {int, str, bool, type(None)}
"""Types of values that have one text."""


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if set(map(type, value)) <= _AS_THEY_ARE:  # such as many recorded layers
            return list(value)
        return [_canonical(item) for item in value]
    if isinstance(value, float):
        return value + 0.0
    return value


def digest_of(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of ``value``."""
    return digest_of_json(canonical_json(value))


def digest_of_json(text: str) -> str:
    """sha256 (hex) of a text that is canonical JSON already."""
    return hashlib.sha256(text.encode()).hexdigest()


class Spec(BaseModel):
    """A description of something to compute: frozen, keyword-only, unknown fields refused.

    Raises InputError instead of pydantic's error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise input_error(error, fields) from None

    def identity(self) -> dict[str, Any]:
        """The fields that decide the numbers, JSON-able."""
        return self.model_dump(mode="json")
