"""simulate: one shard of an ensemble (docs/theory.md, section 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from eftcore.ensemble.reference import Path
from eftcore.ensemble.sample import Sample
from eftcore.errors import EnvironmentProblem, InputError
from eftcore.specs import EnsembleSpec, InputKernel, ResNet

Device = Literal["auto", "cpu", "cuda"]


def simulate(
    model: ResNet,
    kernel: InputKernel,
    *,
    width: int,
    samples: int,
    seed: int = 0,
    estimator: Literal["plain", "paired"] = "paired",
    sampler: Literal["block", "weights"] = "block",
    shard: int = 0,
    depths: Iterable[int] | None = None,
    device: str = "auto",
    dtype: Literal["float32", "float64"] = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> Sample:
    """Simulate ``samples`` networks of ``width`` neurons and return their sums and estimates.

    Args:
        model: the network.
        kernel: K^0, N x N.
        width: neurons n.
        samples: networks in this shard.
        seed: with the ensemble and ``shard`` it fixes every random number.
        estimator: "paired" subtracts a mean-field twin with known mean (eq. 7.3, 7.4); "plain" does not.
        sampler: "block" draws increments from their exact law (eq. 7.1); "weights" draws n x n weight matrices
            (eq. 7.2; slow, a check).
        shard: index of an independent stream; samples of different shards add up.
        depths: recorded layers; default about 100 including 0 and L.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        dtype: of the network's state; sums are float64 always.
        progress: called with (networks done, networks in all).

    Raises InputError for bad arguments and where a network leaves the range of ``dtype``, EnvironmentProblem where the
    device is missing.

    >>> model = ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=10)
    >>> sample = simulate(model, InputKernel.explicit([[1.0]]), width=16, samples=64, estimator="plain")
    >>> sample.mean.shape, sample.samples
    ((11, 1, 1), 64)
    """
    spec = EnsembleSpec(
        model=model,
        kernel=kernel,
        depths=None if depths is None else tuple(depths),
        width=width,
        seed=seed,
        estimator=estimator,
        sampler=sampler,
        dtype=dtype,
    )
    _check_count("samples", samples, 1)
    _check_count("shard", shard, 0)
    place = resolve_device(device)

    path = Path(spec)
    done = 0
    engine, moments = _engine(spec, path, shard=shard, device=place)
    for observed in engine.observations(samples):
        moments.add(observed)
        done = min(samples, done + observed.shape[0] * observed.shape[-1])
        if progress is not None:
            progress(done, samples)
    if not all(np.isfinite(total).all() for total in moments.sums.values()):
        raise InputError(f"simulate: a network left the range of {dtype}; reduce the depth or epsilon, or use float64")
    return Sample(spec=spec, shards=((shard, samples),), reference=path.reference, sums=moments.finished())


def _engine(spec: EnsembleSpec, path: Path, *, shard: int, device: str) -> tuple[Any, Any]:
    """What makes the observations, and what adds them up; on a graphics processor observations stay there."""
    name, _ = engine_of(spec, device)
    engine: Any
    if name == "fused":
        from eftcore.ensemble.cpu_engine import CpuEngine

        engine = CpuEngine(spec, path, shard=shard)
    elif name == "triton":
        from eftcore.ensemble.gpu_engine import GpuEngine

        engine = GpuEngine(spec, path, shard=shard, device=device)
    else:
        from eftcore.ensemble.torch_engine import TorchEngine

        engine = TorchEngine(spec, path, shard=shard, device=device, keep=device == "cuda" and _has_triton())
    if device == "cuda" and _has_triton():
        from eftcore.ensemble.gpu_moments import DeviceMoments

        return engine, DeviceMoments(spec, path.reference, device=device)
    from eftcore.ensemble.moments import Moments

    return engine, Moments(spec, path.reference)


def engine_of(spec: EnsembleSpec, device: str) -> tuple[str, str]:
    """Which engine simulates this ensemble on "cpu" or "cuda", and its kind of random stream.

    >>> model = ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=10)
    >>> spec = EnsembleSpec(model=model, kernel=InputKernel.explicit([[1.0]]), width=16)
    >>> engine_of(spec, "cpu"), engine_of(spec, "cuda")[0]
    (('fused', 'xoshiro128++'), 'triton')
    """
    if device == "cpu":
        from eftcore.ensemble.cpu_engine import covers as fused

        return ("fused", "xoshiro128++") if fused(spec) else ("torch", "mt19937")
    if _has_triton():
        from eftcore.ensemble.gpu_engine import covers as persistent

        if persistent(spec):
            return "triton", "philox4x32-10"
    return "torch", "philox4x32-10"


def _has_triton() -> bool:
    """Whether the graphics kernels can be compiled: they need Triton 3.5."""
    if find_spec("triton") is None:
        return False
    import triton

    return tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 5)


def resolve_device(device: str) -> str:
    """The torch device "cpu" or "cuda". Raises InputError for another name, EnvironmentProblem without CUDA."""
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device = {device!r}: must be 'auto', 'cpu' or 'cuda'")
    if device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise EnvironmentProblem("device = 'cuda': torch finds no CUDA device here; use device = 'auto' or 'cpu'")
    return "cpu"


def _check_count(name: str, value: int, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
        raise InputError(f"simulate: {name} = {value!r}: must be a whole number of at least {lowest}")
