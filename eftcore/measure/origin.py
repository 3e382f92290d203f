"""Where a checked module comes from: its class, the function that makes it, and digests of both and of the inputs."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from eftcore.identity import digest_of


def provenance_of(module: torch.nn.Module, make_model: Callable[[], Any], inputs: torch.Tensor) -> dict[str, str]:
    """What ``Check.provenance`` holds; without the function that makes the module where it has no file.

    >>> found = provenance_of(torch.nn.Linear(2, 2), list, torch.zeros(1, 2))
    >>> found["module"], "factory" in found
    ('Linear', False)
    """
    values = inputs.detach().cpu().contiguous()
    described = digest_of([list(values.shape), str(values.dtype)])
    return {
        "torch": str(torch.__version__),
        "module": type(module).__name__,
        "module_digest": digest_of(repr(module)),
        "inputs_digest": hashlib.sha256(described.encode() + values.numpy().tobytes()).hexdigest(),
        **_factory(make_model),
    }


def _factory(make_model: Callable[[], Any]) -> dict[str, str]:
    """Name of the factory with its file, and the digest of that file."""
    try:
        source = inspect.getsourcefile(make_model)
        content = Path(source or "").read_bytes()
    except (TypeError, OSError):  # a builtin, an object that is called, or code that was typed in
        return {}
    name = getattr(make_model, "__qualname__", type(make_model).__name__)
    return {"factory": f"{Path(source or '').name}:{name}", "factory_digest": hashlib.sha256(content).hexdigest()}
