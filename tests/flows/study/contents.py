"""The content of a study file, and changes of it, for tests."""

from __future__ import annotations

import copy
from typing import Any

BASE: dict[str, Any] = {
    "name": "tiny",
    "widths": [8, 16],
    "samples": 64,
    "closures": ["mean", "g_only"],
    "model": {"activation": ["tanh", "relu"], "weight_variance": 2.0, "epsilon": [0.5, 0.25], "total_time": 1.0},
    "kernel": [{"kind": "equicorrelated", "n_inputs": 2, "variance": 1.0, "correlation": [0.0, 0.5]}],
}


def changed(**changes: Any) -> dict[str, Any]:
    """BASE with changes; a dotted name reaches into a table (model__epsilon)."""
    content = copy.deepcopy(BASE)
    for name, value in changes.items():
        table, _, field = name.rpartition("__")
        target = content[table] if table else content
        target[field or name] = value
    return content


EXACT = {"name": "wick", "order": "auto"}


def without_samples(**changes: Any) -> dict[str, Any]:
    content = changed(**changes)
    return {name: value for name, value in content.items() if name != "samples"}
