"""The choice of the engine that simulates an ensemble on a device, and of the object that sums its observations."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any, Literal

from eftcore.ensemble.piecewise import NEAR, SHAPES
from eftcore.ensemble.reference import Path
from eftcore.errors import EnvironmentProblem, InputError, NumericsWarning
from eftcore.specs import EnsembleSpec

Engine = Literal["fused", "triton", "torch"]


def engine_name(spec: EnsembleSpec, device: str) -> Engine:
    """The engine for this ensemble on "cpu" or "cuda": a compiled one if it covers the case, otherwise torch.

    >>> from eftcore import InputKernel, ResNet
    >>> model = ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=10)
    >>> spec = EnsembleSpec(model=model, kernel=InputKernel.explicit([[1.0]]), width=16)
    >>> engine_name(spec, "cpu"), engine_name(spec, "cuda")
    ('fused', 'triton')
    """
    if device == "cpu":
        from eftcore.ensemble.cpu.engine import covers as fused

        return "fused" if fused(spec) else "torch"
    if has_triton():
        from eftcore.ensemble.gpu.engine import covers as persistent

        if persistent(spec):
            return "triton"
    return "torch"


def engine_and_moments(spec: EnsembleSpec, path: Path, *, shard: int, device: str) -> tuple[Any, Any]:
    """The engine that makes a shard's observations and the object that sums them; on a GPU both work on the device.

    Issues a NumericsWarning where an activation alone keeps an ensemble from the fused pass.
    """
    name = engine_name(spec, device)
    on_device = device == "cuda" and has_triton()
    engine: Any
    if device == "cpu" and name == "torch" and spec.sampler == "block" and not _has_code(spec):
        warnings.warn(
            f"activation {spec.model.activation}: no {max(SHAPES[spec.dtype])[0]} polynomials are known to hold it"
            f" up to |x| = {NEAR:g}; the general engine simulates it, which takes longer",
            NumericsWarning,
            stacklevel=2,
        )
    if name == "fused":
        from eftcore.ensemble.cpu.engine import CpuEngine

        engine = CpuEngine(spec, path, shard=shard)
    elif name == "triton":
        from eftcore.ensemble.gpu.engine import GpuEngine

        engine = GpuEngine(spec, path, shard=shard, device=device)
    elif spec.model.block == "two_matrix":
        from eftcore.ensemble.torch_chain import TorchChainEngine

        engine = TorchChainEngine(spec, path, shard=shard, device=device, keep=on_device)
    else:
        from eftcore.ensemble.torch_engine import TorchEngine

        engine = TorchEngine(spec, path, shard=shard, device=device, keep=on_device)
    if on_device:
        from eftcore.ensemble.gpu.moments import DeviceMoments

        return engine, DeviceMoments(spec, path.reference, device=device)
    from eftcore.ensemble.cpu.moments import Moments

    return engine, Moments(spec, path.reference)


def _has_code(spec: EnsembleSpec) -> bool:
    from eftcore.ensemble.cpu.engine import covers

    return covers(spec)


def has_triton() -> bool:
    """Whether the GPU kernels can be compiled: they need Triton 3.5."""
    if find_spec("triton") is None:
        return False
    import triton

    return tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 5)


def resolve_device(device: str) -> str:
    """The torch device "cpu" or "cuda". Raises InputError for another name, EnvironmentProblem without CUDA."""
    if device not in ("auto", "cpu", "cuda"):
        raise InputError("must be 'auto', 'cpu' or 'cuda'", place="device", value=device)
    if device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise EnvironmentProblem(
            "torch finds no CUDA device here", place="device", value=device, remedy="use device = 'auto' or 'cpu'"
        )
    return "cpu"
