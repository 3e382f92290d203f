"""The independent solver of one input is right itself: closed forms, reference values, plain double integrals."""

from __future__ import annotations

import numpy as np
import pytest
from mpmath import mp

from benchmarks.independent import Homogeneous, Network, Wave, exact_one_input, g_only_one_input, two_time
from benchmarks.one_input_sigma import Smooth, sigma_of

SMOOTH = (
    "tanh",
    "erf(scale=3)",
    "erf(scale=0.3)",
    "gelu",
    "silu",
    "softplus(beta=0.3)",
    "softplus(beta=4)",
)


def network(activation: str, kernel: float, **changed: float) -> Network:
    """With C_W = 2, C_b = 0, eps = 0.1, L = 20 unless changed."""
    fields = {"weight_variance": 2.0, "bias_variance": 0.0, "epsilon": 0.1, "depth": 20, **changed}
    return Network(activation, kernel, **fields)  # type: ignore[arg-type]


def double_integral(early, late, k_early: float, k_late: float) -> float:
    """Cov(early(phi_m), late(phi_l)) by composite Gauss-Legendre sums in each of two independent normals."""
    node, weight = np.polynomial.legendre.leggauss(20)
    start = np.linspace(-9.5, 9.5, 41)[:-1]
    z = (start[:, None] + (node + 1) * 19 / 80).ravel()
    p = np.tile(weight * 19 / 80, 40) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    x = np.sqrt(k_early) * z
    y = x[:, None] + np.sqrt(k_late - k_early) * z
    first, second = early(x), late(y)
    mean_early, mean_late = p @ first, p @ second @ p
    return float(p @ ((first - mean_early)[:, None] * (second - mean_late)) @ p)


def by_double_integrals(of: Network, square, curvature) -> tuple[float, float]:
    """V4 and K1 at the last layer, the sums over earlier layers written out."""
    h, c_w = of.epsilon**2, of.weight_variance
    kernel, k1, responses, path = of.kernel, 0.0, [], []
    sigma = sigma_of(of.activation)
    for layer in range(of.depth + 1):
        path.append(kernel)
        value, first, second = sigma.mean(kernel)
        with_curvature = sum(
            w * double_integral(square, curvature, k, kernel) for w, k in zip(responses, path, strict=False)
        )
        pairs = [
            ((1 if j == k else 2) * responses[j] * responses[k], path[j], path[k])
            for k in range(layer)
            for j in range(k + 1)
        ]
        response = sum(w * double_integral(square, square, k, m) for w, k, m in pairs)
        with_kernel = sum(
            w * double_integral(square, np.square, k, kernel) for w, k in zip(responses, path, strict=False)
        )
        v4 = 2 * kernel**2 + 2 * with_kernel + response
        if layer < of.depth:
            k1 += h * c_w * (first * k1 + second * response / 2 + with_curvature)
            responses = [*(w * (1 + h * c_w * first) for w in responses), h * c_w]
            kernel += h * (of.bias_variance + c_w * value)
    return v4, k1


@pytest.mark.parametrize(("name", "kernel"), list(zip(SMOOTH, [0.02, 0.02, 40.0, 0.02, 3.0, 0.02, 40.0], strict=True)))
def test_grid_gives_the_double_integrals(name: str, kernel: float) -> None:
    of = network(name, kernel, depth=2, epsilon=0.8, bias_variance=0.3)
    sigma = sigma_of(name)
    assert isinstance(sigma, Smooth)
    found = exact_one_input(of, [2])
    v4, k1 = by_double_integrals(of, sigma.square, sigma.curvature)
    assert found.covariance[0] == pytest.approx(v4, rel=1e-11)
    assert found.correction[0] == pytest.approx(k1, rel=1e-9, abs=1e-12 * v4 / found.mean[0])


@pytest.mark.parametrize("sigma", [Homogeneous(1.0, 0.0), Homogeneous(1.0, 0.09), Wave(-0.5), Wave(0.5)])
def test_two_time_closed_forms_give_the_double_integrals(sigma: Homogeneous | Wave) -> None:
    def square(x: np.ndarray) -> np.ndarray:
        if isinstance(sigma, Wave):
            return 0.5 + sigma.amplitude * np.cos(2 * x)
        return np.where(x > 0, sigma.right, sigma.left) * x * x

    early, late = 0.7, 1.9
    found = [float(part[0]) for part in two_time(sigma, np.array([early]), late)]
    # a kink's own direction is integrated to the panels' width only
    tolerance = 1e-10 if isinstance(sigma, Wave) else 2e-4
    assert found[0] == pytest.approx(double_integral(square, square, early, late), rel=tolerance)
    assert found[2] == pytest.approx(double_integral(square, np.square, early, late), rel=1e-10)
    if isinstance(sigma, Wave):
        bent = double_integral(square, lambda y: -2 * sigma.amplitude * np.cos(2 * y), early, late)
    else:
        bent = double_integral(square, lambda y: np.where(y > 0, sigma.right, sigma.left), early, late)
    assert found[1] == pytest.approx(bent, rel=max(tolerance, 1e-10), abs=1e-3 * (tolerance > 1e-5))


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("kernel", [1e-6, 30.0])
def test_means_and_their_derivatives(name: str, kernel: float) -> None:
    found = sigma_of(name).mean(kernel)
    parameter = mp.mpf(name.partition("=")[2].rstrip(")") or 1)

    def sigma(x):
        return {
            "tanh": lambda: mp.tanh(x),
            "erf": lambda: mp.erf(parameter * x),
            "gelu": lambda: x * mp.ncdf(x),
            "silu": lambda: x / (1 + mp.exp(-x)),
            "softplus": lambda: mp.log1p(mp.exp(parameter * x)) / parameter,
        }[name.partition("(")[0]]()

    def mean(weight) -> float:
        """<sigma^2 weight(z)> over z = x / sqrt(K), to 28 digits."""
        with mp.workdps(28):
            k = mp.mpf(kernel)
            cuts = (-14, -9, -6, -4, -2, -1, -0.4, 0, 0.4, 1, 2, 4, 6, 9, 14)
            whole = mp.quad(
                lambda z: sigma(mp.sqrt(k) * z) ** 2 * weight(z, k) * mp.exp(-z * z / 2), cuts, method="gauss-legendre"
            )
            return float(whole / mp.sqrt(2 * mp.pi))

    assert found[0] == pytest.approx(mean(lambda z, k: 1), rel=1e-12)
    assert found[1] == pytest.approx(mean(lambda z, k: (z * z - 1) / (2 * k)), rel=2e-11)
    second = mean(lambda z, k: (z**4 - 6 * z * z + 3) / (4 * k * k))
    # the last digit of g'' / 2 over K is the rounding of the second derivative
    assert found[2] == pytest.approx(second, rel=2e-11, abs=1e-13 + 1e-17 / kernel)


def test_linear_is_the_closed_form() -> None:
    """V4 = K^2 times the growth of E[G_l^2] - E[G_l]^2: with no bias both are powers (theory section 2)."""
    of = network("linear", 1.7, epsilon=0.3, depth=30)
    found = exact_one_input(of, [0, 7, 30])
    h = 0.09 * 2.0
    layers = np.array([0, 7, 30])
    growth = 1.7**2 * (1 + h) ** (2 * layers)
    # n Cov(dG | phi) = 4 h' G Q + 2 h'^2 Q^2 with Q = C_W G, h = eps^2 C_W
    assert found.covariance == pytest.approx(growth * (2 + layers * (4 * h + 2 * h * h) / (1 + h) ** 2), rel=1e-12)
    assert found.correction == pytest.approx(np.zeros(3), abs=1e-15)


def test_reference_values() -> None:
    of = network("tanh", 2.0, epsilon=0.05, depth=800)
    found = exact_one_input(of, [0, 400, 800])
    assert found.mean[1:] == pytest.approx([3.12061, 4.36796], abs=6e-6)
    assert found.covariance[2] == pytest.approx(48.4710, abs=6e-5)
    assert found.correction[2] == pytest.approx(-0.4530, abs=6e-5)
    published = g_only_one_input(of, [400, 800])
    assert published.covariance == pytest.approx([23.36608, 47.78976], abs=6e-6)
    assert published.correction == pytest.approx([-0.4793, -1.0267], abs=6e-5)
    assert exact_one_input(network("sin", 20.0, weight_variance=5.0, epsilon=0.7), [20]).correction == pytest.approx(
        [-2.679], abs=6e-4
    )
    assert exact_one_input(network("tanh", 1000.0), [20]).correction == pytest.approx([-4.32e-4], abs=6e-7)


@pytest.mark.parametrize(
    ("activation", "kernel", "time", "v4", "k1"),
    [
        ("tanh", 2.0, 1.0, 23.5675, -0.1552),
        ("tanh", 2.0, 2.0, 48.4820, -0.4542),
        ("relu", 1.0, 1.0, 62.48, 1.26),
        ("relu", 1.0, 2.0, 999.2, 12.2),
    ],
)
def test_the_limit_of_small_epsilon(activation: str, kernel: float, time: float, v4: float, k1: float) -> None:
    layers = np.array([100, 200, 400])
    rows = []
    for count in layers.tolist():
        found = exact_one_input(network(activation, kernel, epsilon=(time / count) ** 0.5, depth=count), [count])
        rows.append((found.covariance[0], found.correction[0]))
    coarse, middle, fine = np.array(rows)
    # Richardson: errors h and h^2
    limit = (8 * fine - 6 * middle + coarse) / 3
    last_digit = 5e-5 if activation == "tanh" else 0.05
    assert limit[0] == pytest.approx(v4, abs=max(last_digit, 0.005) if activation == "relu" else 1.5e-4)
    assert limit[1] == pytest.approx(k1, abs=last_digit)


def test_grid_and_arc_cosine_meet() -> None:
    """GELU beyond the switch to max(x, 0), against ReLU: they differ by K^(-3/2)."""
    for kernel in (1e5, 2e6):
        smooth, kinked = (exact_one_input(network(name, kernel, epsilon=0.5), [20]) for name in ("gelu", "relu"))
        allowed = 5 * kernel**-1.5 + smooth.error["V4"]
        assert smooth.covariance / kinked.covariance == pytest.approx(1.0, abs=allowed)
        assert smooth.correction / kinked.correction == pytest.approx(1.0, abs=3 * allowed)
