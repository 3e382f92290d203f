"""simulate: one shard of an ensemble, or as many as a target precision needs (docs/theory.md, section 7)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np

from eftcore.ensemble.engines import engine_and_moments, resolve_device
from eftcore.ensemble.memory import explained
from eftcore.ensemble.reference import Path
from eftcore.ensemble.sample import Sample, Shards
from eftcore.ensemble.shards import attained, first_round, next_round
from eftcore.errors import InputError, NumericsWarning
from eftcore.inputs.kernel import InputKernel
from eftcore.precision import Precision
from eftcore.specs import EnsembleSpec, ResNet

Device = Literal["auto", "cpu", "cuda"]


def simulate(
    model: ResNet,
    kernel: InputKernel,
    *,
    width: int,
    samples: int | None = None,
    precision: Precision | None = None,
    seed: int = 0,
    estimator: Literal["plain", "paired"] = "paired",
    sampler: Literal["block", "weights"] = "block",
    shard: int = 0,
    depths: Iterable[int] | None = None,
    device: str = "auto",
    dtype: Literal["float32", "float64"] = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> Sample:
    """Simulate networks of ``width`` neurons; returns their sums and estimates as a Sample.

    The number of networks is ``samples``, or as many as ``precision`` requires.

    Args:
        model: the network.
        kernel: K^0, N x N.
        width: neurons n.
        samples: networks in this shard; leave it out where ``precision`` is given.
        precision: simulate shards 0, 1, ... until the standard error of a quantity is small enough or a cap is reached;
            how many is decided on whole rounds of shards and is the same on any machine.
        seed: with the ensemble and ``shard`` it fixes every random number.
        estimator: "paired" subtracts a mean-field twin with known mean (eq. 7.3, 7.4); "plain" does not.
        sampler: "block" draws increments from their exact law (eq. 7.1); "weights" draws n x n weight matrices
            (eq. 7.2; slow, a check).
        shard: index of an independent stream; samples of different shards add up.
        depths: recorded layers; default about 100 including 0 and L.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        dtype: number type of the network's state; sums are always float64.
        progress: called with (networks done, networks in all).

    Raises InputError for bad arguments and where a network leaves the range of ``dtype``, EnvironmentProblem where the
    device is missing, OutOfMemory where not even the fewest networks at a time fit into its memory. Issues a
    NumericsWarning where the cap is reached first.

    >>> model = ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=10)
    >>> sample = simulate(model, InputKernel.explicit([[1.0]]), width=16, samples=64, estimator="plain")
    >>> sample.mean.shape, sample.samples
    ((11, 1, 1), 64)
    >>> target = Precision(quantity="K1", absolute=0.02, max_samples=100_000)
    >>> sample = simulate(model, InputKernel.explicit([[1.0]]), width=16, precision=target)
    >>> bool(sample.correction_se.max() <= 0.02)
    True
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
    _check_count("shard", shard, 0)
    place = resolve_device(device)
    report = progress or _no_report
    if precision is None:
        _check_count("samples", samples, 1)
        assert samples is not None
        return _simulate_shard(spec, shard, samples, place, report)
    if samples is not None or shard != 0:
        name, value = ("shard", shard) if samples is None else ("samples", samples)
        raise InputError(
            "does not go with precision, which chooses it",
            place=name,
            value=value,
            remedy="leave it out (precision.max_samples is the cap)",
        )
    return _simulate_to(spec, precision, place, report)


def _simulate_to(spec: EnsembleSpec, target: Precision, device: str, report: Callable[[int, int], None]) -> Sample:
    total = _add(None, spec, first_round(spec, target), device, report)
    while shards := next_round(total, target):
        total = _add(total, spec, shards, device, report)
    now = attained(total, target)
    if not now.met:
        warnings.warn(
            f"precision: {now} after max_samples = {target.max_samples} networks; raise max_samples to go on",
            NumericsWarning,
            stacklevel=3,
        )
    return total


def _add(
    total: Sample | None, spec: EnsembleSpec, shards: Shards, device: str, report: Callable[[int, int], None]
) -> Sample:
    """``total`` with those of ``shards`` added that it lacks."""
    networks = sum(count for _, count in shards)
    for index, count in shards[len(total.shards) if total else 0 :]:
        before = total.samples if total else 0

        def tell(done: int, _: int, before: int = before) -> None:
            report(before + done, networks)

        part = _simulate_shard(spec, index, count, device, tell)
        total = total + part if total else part
    assert total is not None
    return total


def _simulate_shard(
    spec: EnsembleSpec, shard: int, samples: int, device: str, report: Callable[[int, int], None]
) -> Sample:
    return explained(device, lambda: _add_up(spec, shard, samples, device, report))


def _add_up(spec: EnsembleSpec, shard: int, samples: int, device: str, report: Callable[[int, int], None]) -> Sample:
    path = Path(spec)
    done = 0
    engine, moments = engine_and_moments(spec, path, shard=shard, device=device)
    for observed in engine.observations(samples):
        moments.add(observed)
        done = min(samples, done + observed.shape[0] * observed.shape[-1])
        report(done, samples)
    if not all(np.isfinite(total).all() for total in moments.sums.values()):
        raise InputError(
            f"a network left the range of {spec.dtype}",
            place="model",
            remedy="reduce the depth or epsilon, or use float64",
        )
    return Sample(
        spec=spec,
        shards=((shard, samples),),
        reference=path.reference,
        sums=moments.finished(samples),
        streams=(engine.stream,),
    )


def _no_report(done: int, total: int) -> None:
    pass


def _check_count(name: str, value: int | None, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
        raise InputError(f"must be a whole number of at least {lowest}", place=name, value=value)
