"""Standard errors are calibrated: z-scores over 1000 independent small ensembles are N(0, 1).

A linear network has exact values at finite width: E[G] = (1 + e)^l K with e = epsilon^2 C_W, so K1 = U1 = 0, and the
second moments M_{ab,cd} = E[G_ab G_cd] obey M' = (1 + e)^2 M + ((2 e + e^2) / n) (M_{ac,bd} + M_{ad,bc}).

Fourteen Kolmogorov-Smirnov tests at level ALPHA each: over fresh seeds the module would fail with probability 1.4e-2
at most; the seed is fixed.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import eftcore as eft
from eftcore.pairs import pair_indices

ALPHA = 1e-3
ENSEMBLES = 1000
NETWORKS = 3000
WIDTH = 24
MODEL = eft.ResNet(activation="linear", weight_variance=1.0, epsilon=0.4, depth=3)
KERNEL = eft.InputKernel.explicit([[1.0, 0.4], [0.4, 1.5]])


def exact_covariance() -> np.ndarray:
    """(P, P) V4 at the last layer."""
    k, n = KERNEL.array, WIDTH
    growth = MODEL.epsilon**2 * MODEL.weight_variance
    square = np.einsum("ab,cd->abcd", k, k)
    moment = square + (square.transpose(0, 2, 1, 3) + square.transpose(0, 2, 3, 1)) / n
    for _ in range(MODEL.depth):
        crossed = moment.transpose(0, 2, 1, 3) + moment.transpose(0, 2, 3, 1)
        moment = (1 + growth) ** 2 * moment + (2 * growth + growth**2) / n * crossed
    first, second = pair_indices(2)
    covariance = n * (moment - (1 + growth) ** (2 * MODEL.depth) * square)
    return covariance[first[:, None], second[:, None], first[None, :], second[None, :]]


@pytest.fixture(scope="module", params=["paired", "plain"])
def scores(request):
    """z-scores (ENSEMBLES,) by name."""
    truth = exact_covariance()
    out: dict[str, list[float]] = {}
    for shard in range(ENSEMBLES):
        sample = eft.simulate(
            MODEL,
            KERNEL,
            width=WIDTH,
            samples=NETWORKS,
            estimator=request.param,
            shard=shard,
            depths=(3,),
            device="cpu",
        )
        for a, b in ((0, 0), (0, 1)):
            for name in ("correction", "source"):
                value, error = getattr(sample, name)[0, a, b], getattr(sample, name + "_se")[0, a, b]
                out.setdefault(f"{name} {a}{b}", []).append(value / error)
        for p, q in ((0, 0), (1, 1), (0, 2)):
            z = (sample.covariance[0, p, q] - truth[p, q]) / sample.covariance_se[0, p, q]
            out.setdefault(f"covariance {p},{q}", []).append(z)
    return {name: np.array(z) for name, z in out.items()}


def test_scores_are_standard_normal(scores):
    p = {name: stats.kstest(z, "norm").pvalue for name, z in scores.items()}
    assert len(p) == 7
    assert min(p.values()) > ALPHA, p
