"""Standard errors are calibrated: z-scores over 400 or 1000 independent small ensembles are N(0, 1).

A linear network has exact values at finite width: E[G] = (1 + e)^l K with e = epsilon^2 C_W, so K1 = U1 = 0, and the
second moments M_{ab,cd} = E[G_ab G_cd] obey M' = (1 + e)^2 M + ((2 e + e^2) / n) (M_{ac,bd} + M_{ad,bc}). For one input
G is a product of independent factors, G^0 and (e / n) times noncentral chi-squares chi^2_n(n / e), so that all its
cumulants are known.

Each set of scores goes through two tests, Kolmogorov-Smirnov and a chi-square test of the sum of squares, which alone
sees an error wrong by 15 % (400 ensembles) or 10 % (1000). A set of p-values fails where Holm's method rejects one at
level ALPHA; over fresh seeds the module would fail with probability 4e-2 at most. The seed is fixed.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from scipy import stats

import eftcore as eft
from eftcore.pairs import pair_indices

ALPHA = 1e-2
ENSEMBLES = (200, pytest.param(1000, marks=pytest.mark.campaign))
NETWORKS = 3000
SEED = 1
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
def estimator(request):
    return request.param


@pytest.fixture(scope="module", params=ENSEMBLES)
def scores(request, estimator):
    """z-scores (number of ensembles,) by name."""
    e, c_w = MODEL.epsilon**2 * MODEL.weight_variance, MODEL.weight_variance
    mean = (1 + e) ** MODEL.depth * KERNEL.array
    second = exact_covariance() / WIDTH + np.outer(mean[[0, 0, 1], [0, 1, 1]], mean[[0, 0, 1], [0, 1, 1]])
    truths = {
        "mean": mean,
        "correction": np.zeros((2, 2)),
        "source": np.zeros((2, 2)),
        "covariance": exact_covariance(),
        # S = G, so that the four products of G_ab and Q_cd are C_W times those of G with itself
        "increment_covariance": c_w * np.array([[4 * second[0, 0], 4 * second[0, 1]], [np.nan, np.nan]]),
    }
    entries = {"increment_covariance": [(0, 0), (0, 1)], "covariance": [(0, 0), (1, 1), (0, 2), (0, 1), (2, 2)]}
    out: dict[str, list[float]] = {}
    for shard in range(request.param):
        sample = eft.simulate(
            MODEL,
            KERNEL,
            width=WIDTH,
            samples=NETWORKS,
            estimator=estimator,
            seed=SEED,
            shard=shard,
            depths=(3,),
            device="cpu",
        )
        for name, truth in truths.items():
            value, error = getattr(sample, name)[0], getattr(sample, name + "_se")[0]
            for entry in entries.get(name, [(0, 0), (0, 1)]):
                z = (value[entry] - truth[entry]) / error[entry]
                out.setdefault(f"{name} {entry}", []).append(z)
    return {name: np.array(z) for name, z in out.items()}


def p_values(scores: np.ndarray) -> list[float]:
    """That scores are N(0, 1): by their distribution, and by their size alone."""
    size = stats.chi2.cdf((np.asarray(scores) ** 2).sum(), len(scores))
    return [float(stats.kstest(scores, "norm").pvalue), float(2 * min(size, 1 - size))]


def test_scores_are_standard_normal(scores):
    p = {name: p_values(z) for name, z in scores.items()}
    assert len(p) == 13
    assert min(min(pair) for pair in p.values()) * 2 * len(p) > ALPHA, p


def exact_cumulants(width: int, variance: float) -> tuple[float, float]:
    """n^2 times the third and n^3 times the fourth cumulant of G at the last layer, for one input."""
    e = MODEL.epsilon**2 * MODEL.weight_variance

    def moments(noncentrality: float, scale: float) -> np.ndarray:
        return scale ** np.arange(1, 5) * np.array([stats.ncx2.moment(k, width, noncentrality) for k in (1, 2, 3, 4)])

    m1, m2, m3, m4 = moments(0.0, variance / width) * moments(width / e, e / width) ** MODEL.depth
    third = m3 - 3 * m2 * m1 + 2 * m1**3
    return width**2 * third, width**3 * (m4 - 4 * m3 * m1 - 3 * m2**2 + 12 * m2 * m1**2 - 6 * m1**4)


@pytest.mark.parametrize("ensembles", ENSEMBLES)
def test_cumulants(ensembles):
    """The third's scores are normal for 10 000 networks; the fourth's need more, so that one large sample is tested."""
    third, fourth = exact_cumulants(64, 1.5)
    kernel = eft.InputKernel.explicit([[1.5]])
    shards = [
        eft.simulate(MODEL, kernel, width=64, samples=10_000, estimator="plain", shard=k, depths=(3,), device="cpu")
        for k in range(ensembles)
    ]
    z = [(part.kappa3[0, 0] - third) / part.kappa3_se[0, 0] for part in shards]
    assert min(p_values(z)) * 2 > ALPHA
    total = reduce(lambda a, b: a + b, shards)
    z = (total.kappa4[0, 0] - fourth) / total.kappa4_se[0, 0]
    assert 2 * stats.norm.sf(abs(z)) > ALPHA
    assert total.kappa4_se[0, 0] < 0.02 * fourth * (1000 / ensembles) ** 0.5
