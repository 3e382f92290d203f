"""The reference values of the theory notes, to every digit given there, at N = 1, 2 and 4 (marginal consistency)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

import eftcore as eft
from eftcore.pairs import pair_table

PAPER = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.05, depth=800)


def kernel(n_inputs: int) -> eft.InputKernel:
    return eft.InputKernel.equicorrelated(n_inputs=n_inputs, variance=2.0, correlation=0.3)


@lru_cache
def theory(closure: str, n_inputs: int = 2, **options: object) -> eft.Theory:
    return eft.predict(PAPER, kernel(n_inputs), closure, depths=(0, 400, 800), **options)


def test_g_only_of_one_input_by_a_recursion_of_numbers() -> None:
    """Nothing shared with the package: derivatives of tanh^2 on a fine grid, 800 forward steps."""
    z = np.linspace(-12.5, 12.5, 4001)
    weight = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    k0, v4, k1, h, c_w = 2.0, 8.0, 0.0, PAPER.epsilon**2, 2.0
    for _ in range(PAPER.depth):
        t = np.tanh(np.sqrt(k0) * z)
        d1 = 1 - t * t
        d2, d3, d4 = -2 * t * d1, d1 * (6 * t * t - 2), d1 * t * (16 - 24 * t * t)
        mean, second, fourth = weight @ (t * t), weight @ (2 * (d1**2 + t * d2)), weight @ (2 * t * d4 + 8 * d1 * d3)
        chi, hessian = c_w * second / 2, (fourth + weight @ (6 * d2**2)) / 4
        k0, v4, k1 = (
            k0 + h * c_w * mean,
            v4 + h * (2 * chi * v4 + 4 * k0 * c_w * mean),
            k1 + h * (chi * k1 + c_w * hessian * v4 / 2),
        )
    found = components(theory("g_only", 1), 2.0)
    np.testing.assert_allclose([found["K0_00"], found["V4_00_00"], found["K1_00"]], [k0, v4, k1], rtol=1e-9)


@pytest.mark.parametrize("closure", ["g_only", "sigma", "wick"])
def test_one_two_and_four_inputs_agree(closure: str) -> None:
    """Marginal consistency to 1e-9 in every entry of the table, at both times."""
    options = {"order": 8} if closure == "wick" else {}
    for time in (1.0, 2.0):
        one, two, four = (components(theory(closure, n, **options), time) for n in (1, 2, 4))
        for name, value in two.items():
            assert four[name] == pytest.approx(value, rel=1e-9)
            assert one.get(name, value) == pytest.approx(value, rel=1e-9)


def components(found: eft.Theory, time: float) -> dict[str, float]:
    """Entries K0_00, K0_01, V4[00,00], V4[01,01], V4[00,11], K1_00, K1_01 at t; those of one input where N = 1."""
    at = int(np.argmin(np.abs(found.time - time)))
    assert found.covariance is not None
    assert found.correction is not None
    table = pair_table(found.mean.shape[-1])
    entries = {
        "K0_00": found.mean[at, 0, 0],
        "V4_00_00": found.covariance[at, 0, 0],
        "K1_00": found.correction[at, 0, 0],
    }
    if len(table) > 1:
        entries |= {
            "K0_01": found.mean[at, 0, 1],
            "V4_01_01": found.covariance[at, table[0, 1], table[0, 1]],
            "V4_00_11": found.covariance[at, table[0, 0], table[1, 1]],
            "K1_01": found.correction[at, 0, 1],
        }
    return {name: float(value) for name, value in entries.items()}


K0_AT_2 = {"K0_00": "4.36796", "K0_01": "1.18077"}

# The sigma closure relaxes exactly over each layer (eq. 5.10). Forward Euler of its equations (5.1), which is unstable
# at large steps, has V4_00_00 48.4056 and K1_00 -0.4876; the limit epsilon -> 0 is common to both.
# Converged digits. Three differ by one in the last digit from those first written down (47.78977, 47.80811, -0.4441).
ROWS = [
    (
        "g_only",
        {},
        1.0,
        {
            "K0_00": "3.12061",
            "K0_01": "0.88691",
            "V4_00_00": "23.36608",
            "V4_01_01": "17.37645",
            "V4_00_11": "1.90478",
            "K1_00": "-0.4793",
            "K1_01": "-0.1088",
        },
    ),
    (
        "g_only",
        {},
        2.0,
        K0_AT_2
        | {
            "V4_00_00": "47.78976",
            "V4_01_01": "42.30968",
            "V4_00_11": "3.56702",
            "K1_00": "-1.0267",
            "K1_01": "-0.1980",
        },
    ),
    (
        "wick",
        {"order": 2},
        2.0,
        {"V4_00_00": "47.80810", "V4_01_01": "42.33738", "V4_00_11": "3.56817", "K1_00": "-0.1504", "K1_01": "-0.0246"},
    ),
    (
        "wick",
        {"order": 8},
        2.0,
        {"V4_00_00": "48.36155", "V4_01_01": "43.80843", "V4_00_11": "3.57053", "K1_00": "-0.3555", "K1_01": "-0.0700"},
    ),
    (
        "wick",
        {"order": 24},
        1.0,
        {"V4_00_00": "23.56163", "V4_01_01": "17.70439", "V4_00_11": "1.90604", "K1_00": "-0.1523", "K1_01": "-0.0349"},
    ),
    (
        "wick",
        {"order": 24},
        2.0,
        K0_AT_2
        | {
            "V4_00_00": "48.46649",
            "V4_01_01": "43.90606",
            "V4_00_11": "3.57053",
            "K1_00": "-0.4440",
            "K1_01": "-0.0847",
        },
    ),
    (
        "sigma",
        {},
        2.0,
        {"V4_00_00": "48.4034", "V4_01_01": "43.8226", "V4_00_11": "3.5698", "K1_00": "-0.4864", "K1_01": "-0.0904"},
    ),
    (
        "sigma",
        {"step": "exact"},
        2.0,
        {"V4_00_00": "48.4068", "V4_01_01": "43.8419", "V4_00_11": "3.5699", "K1_00": "-0.4864", "K1_01": "-0.0903"},
    ),
    ("sigma", {"continuous": True}, 2.0, {"V4_00_00": "48.418", "K1_00": "-0.4877"}),
]


@pytest.mark.parametrize(("closure", "options", "time", "printed"), ROWS)
@pytest.mark.parametrize("n_inputs", [1, 2, 4])
def test_row_of_reference_table(
    closure: str, options: dict[str, object], time: float, printed: dict[str, str], n_inputs: int
) -> None:
    found = components(theory(closure, n_inputs, **options), time)
    for name, text in printed.items():
        if name in found:
            digits = len(text.split(".")[1])
            assert f"{found[name]:.{digits}f}" == text, (name, found[name])


def test_exact_leading_order() -> None:
    found = eft.predict(PAPER, kernel(1), "wick", order="auto", truncation=1e-4, depths=(0, 800))
    at_end = components(found, 2.0)
    assert f"{at_end['V4_00_00']:.4f}" == "48.4710"
    assert f"{at_end['K1_00']:.3f}" == "-0.453"


def test_published_row_needs_the_published_quadrature() -> None:
    numerics = eft.Numerics(quadrature="gauss_hermite", nodes=32)
    found = eft.predict(PAPER, kernel(1), "g_only", numerics=numerics, depths=(0, 800))
    at_end = components(found, 2.0)
    assert f"{at_end['K0_00']:.5f}" == "4.37299"
    assert f"{at_end['V4_00_00']:.5f}" == "42.87784"
    assert f"{at_end['K1_00']:.5f}" == "-0.90105"
    assert not found.converged


@pytest.mark.parametrize(
    ("nodes", "n_inputs"),
    [(8, 1), (32, 1), (200, 1), (8, 2), (32, 2), pytest.param(200, 2, marks=pytest.mark.campaign)],
)
def test_fixed_rule_knows_its_distance_from_converged_integrals(nodes: int, n_inputs: int) -> None:
    numerics = eft.Numerics(quadrature="gauss_hermite", nodes=nodes)
    found = eft.predict(PAPER, kernel(n_inputs), "g_only", numerics=numerics, depths=(0, 400, 800))
    exact = theory("g_only", n_inputs)
    assert not found.converged
    for key, name in (("K0", "mean"), ("V4", "covariance"), ("K1", "correction")):
        one, two = getattr(found, name)[-1], getattr(exact, name)[-1]
        distance = float(np.linalg.norm(one - two) / np.linalg.norm(one))
        assert distance <= found.numerical_error[key]
        if nodes == 8:
            assert found.numerical_error[key] <= 5 * distance


def test_many_gauss_hermite_nodes_agree_with_the_converged_rule() -> None:
    numerics = eft.Numerics(quadrature="gauss_hermite", nodes=200)
    found = eft.predict(PAPER, kernel(1), "g_only", numerics=numerics, depths=(0, 800))
    converged = theory("g_only", 1)
    assert found.covariance is not None
    assert converged.covariance is not None
    np.testing.assert_allclose(found.covariance[-1], converged.covariance[-1], rtol=1e-5)


def test_published_noise_source() -> None:
    """The paper's Table 3, second row: Sigma(K0)[00,00] with its 32 nodes."""
    from eftcore.gaussian.tensor import TensorGaussHermite
    from eftcore.theory.closures.g_only import noise_source
    from eftcore.theory.mean_field import mean_path

    path = mean_path(PAPER, kernel(1).array, TensorGaussHermite(eft.get_activation("tanh"), 32))
    sigma = noise_source(path.kernel, path.increment)[[0, 200, 400, 600, 800], 0, 0]
    np.testing.assert_array_equal(sigma.round(3), [8.322, 11.429, 14.907, 18.711, 22.804])


def test_g_only_is_far_off_for_relu() -> None:
    model = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=0.05, depth=400)
    start = eft.InputKernel.explicit([[1.0]])
    g_only = eft.predict(model, start, "g_only", depths=(0, 400))
    exact = eft.predict(model, start, "wick", order="auto", truncation=1e-2, depths=(0, 400))
    assert g_only.covariance is not None
    assert exact.covariance is not None
    assert f"{g_only.covariance[-1, 0, 0]:.1f}" == "44.0"
    assert f"{exact.covariance[-1, 0, 0]:.1f}" == "62.1"
