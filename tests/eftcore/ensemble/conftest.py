"""Shared by the ensemble's tests: z-scores over many components, and engines by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from eftcore.ensemble.cpu.engine import CpuEngine
from eftcore.ensemble.reference import Path
from eftcore.ensemble.torch_chain import TorchChainEngine
from eftcore.ensemble.torch_engine import TorchEngine
from eftcore.specs import EnsembleSpec


def _lowest_p(difference: np.ndarray, error: np.ndarray) -> float:
    known = error > 0
    assert np.abs(difference[~known]).max(initial=0.0) < 1e-9
    p = 2 * stats.norm.sf(np.abs(difference[known] / error[known]))
    return float(p.min() * p.size) if p.size else 1.0


@pytest.fixture(scope="session")
def lowest_p() -> Callable[[np.ndarray, np.ndarray], float]:
    """Smallest p-value that zero means get, times how many there are: Holm's method rejects one where it is < alpha.

    Where the error is zero the difference must be too.
    """
    return _lowest_p


def _observe(spec: EnsembleSpec, samples: int, engine: str = "cpu", shard: int = 0) -> np.ndarray:
    path = Path(spec)
    by_torch = TorchChainEngine if spec.model.block == "two_matrix" else TorchEngine
    run = CpuEngine(spec, path, shard=shard) if engine == "cpu" else by_torch(spec, path, shard=shard, device="cpu")
    return np.concatenate([np.moveaxis(x, -1, 1).reshape(-1, *x.shape[1:-1]) for x in run.observations(samples)])[
        :samples
    ]


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The general engine simulates every ensemble."""
    monkeypatch.setattr("eftcore.ensemble.engines.engine_name", lambda spec, device: "torch")


@pytest.fixture(scope="session")
def observe() -> Callable[..., np.ndarray]:
    """(spec, samples, engine, shard) to the observations (networks, R, 2 or 4, P) of each network."""
    return _observe
