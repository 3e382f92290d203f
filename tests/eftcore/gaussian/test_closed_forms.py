"""Closed forms over the whole range of variances and correlations, against 120 digits; and what their rounding does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import mpmath
import numpy as np
import pytest

import eftcore as eft
from eftcore.activations import get_activation
from eftcore.gaussian.closed_forms import closed_form
from eftcore.gaussian.closed_moments import ROUNDING
from eftcore.gaussian.hermite import gauss_hermite_nodes

E2 = Callable[[mpmath.mpf, mpmath.mpf, mpmath.mpf], mpmath.mpf]

ORDERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 2, 0), (0, 1, 1), (0, 0, 2))
STENCILS: dict[int, list[tuple[int, float]]] = {
    0: [(0, 1.0)],
    1: [(1, 0.5), (-1, -0.5)],
    2: [(1, 1.0), (0, -2.0), (-1, 1.0)],
}
VARIANCES = (1e-12, 1e-3, 2.0, 1e4, 1e12)
CORRELATIONS = (-1 + 1e-12, -0.5, 0.0, 0.3, 0.99, 1 - 1e-10, 1 - 1e-14)


def leaky(slope: float) -> E2:
    def e2(a: mpmath.mpf, c: mpmath.mpf, b: mpmath.mpf) -> mpmath.mpf:
        width, lam = mpmath.sqrt(a * b - c * c), mpmath.mpf(slope)
        return lam * c + (1 - lam) ** 2 * (width + c * mpmath.atan2(width, -c)) / (2 * mpmath.pi)

    return e2


def erf(scale: float) -> E2:
    def e2(a: mpmath.mpf, c: mpmath.mpf, b: mpmath.mpf) -> mpmath.mpf:
        u = 2 * mpmath.mpf(scale) ** 2
        return 2 / mpmath.pi * mpmath.atan2(u * c, mpmath.sqrt((1 + u * a) * (1 + u * b) - (u * c) ** 2))

    return e2


def gelu(a: mpmath.mpf, c: mpmath.mpf, b: mpmath.mpf) -> mpmath.mpf:
    root = mpmath.sqrt((1 + a) * (1 + b) - c * c)
    rest = a * b + c * c - c * c * (a / (1 + a) + b / (1 + b))
    return c * (0.25 + mpmath.atan2(c, root) / (2 * mpmath.pi)) + rest / (2 * mpmath.pi * root)


FORMS: dict[str, E2] = {
    "linear": lambda a, c, b: c,
    "relu": leaky(0.0),
    "leaky_relu(slope=0.2)": leaky(0.2),
    "leaky_relu(slope=-1)": leaky(-1.0),
    "erf": erf(1.0),
    "erf(scale=5)": erf(5.0),
    "gelu": gelu,
    "sin": lambda a, c, b: mpmath.exp(-(a + b) / 2) * mpmath.sinh(c),
    "cos": lambda a, c, b: mpmath.exp(-(a + b) / 2) * mpmath.cosh(c),
}


def derivatives(
    e2: Callable[..., mpmath.mpf], at: list[float], orders: tuple[tuple[int, ...], ...]
) -> list[mpmath.mpf]:
    """Central differences of relative step 1e-25, of which rounding at 120 digits leaves 50."""
    point = [mpmath.mpf(x) for x in at]
    steps = [x * mpmath.mpf(10) ** -25 for x in point]
    if len(at) == 3:
        steps[1] = mpmath.sqrt(point[0] * point[2]) * mpmath.mpf(10) ** -25
    found = []
    for order in orders:
        total = mpmath.mpf(0)
        for corner in product(*(STENCILS[k] for k in order)):
            weight = mpmath.fprod(w for _, w in corner)
            total += weight * e2(*(x + k * h for x, (k, _), h in zip(point, corner, steps, strict=True)))
        found.append(total / mpmath.fprod(h**k for h, k in zip(steps, order, strict=True)))
    return found


@pytest.mark.parametrize("name", FORMS)
def test_every_entry_is_within_its_rounding_bound_and_few_are_not_known_well(name: str) -> None:
    form = closed_form(get_activation(name))
    assert form is not None
    well_known = []
    with mpmath.workdps(120):
        for a, b, rho in product(VARIANCES, VARIANCES, CORRELATIONS):
            c = rho * np.sqrt(a) * np.sqrt(b)
            entries = form.pair(np.array(a), np.array(c), np.array(b))
            found = [entries.value, *entries.gradient(), *entries.hessian()]
            exact = derivatives(FORMS[name], [a, c, b], ORDERS)
            for order, entry, true in zip(ORDERS, found, exact, strict=True):
                # what the differences themselves leave, relative to E2 / K_q K_r, counts as 0
                noise = 1e-30 * np.sqrt(a * b) / (a ** (order[0] + order[1] / 2) * b ** (order[2] + order[1] / 2))
                error = abs(mpmath.mpf(float(entry.value)) - true)
                bound = ROUNDING * float(entry.size)
                assert error <= bound + noise + 1e-300, (a, b, rho, order)
                well_known.append(bound <= 1e-9 * abs(float(true)) + noise)
    assert np.mean(well_known) > 0.97


@pytest.mark.parametrize("name", ["erf", "erf(scale=5)", "gelu", "sin", "cos"])
@pytest.mark.parametrize("variance", [1e-12, 1e-3, 2.0, 50.0, 1e4, 1e8, 1e12])
def test_one_input_has_all_its_digits(name: str, variance: float) -> None:
    form = closed_form(get_activation(name))
    assert form is not None
    with mpmath.workdps(120):
        exact = derivatives(lambda k: FORMS[name](k, k, k), [variance], ((0,), (1,), (2,)))
    for k, (entry, true) in enumerate(zip(form.single(np.array(variance)), exact, strict=True)):
        assert float(entry.value) == pytest.approx(float(true), rel=1e-14, abs=1e-50 * variance**-k)


@pytest.mark.parametrize("variance", [1e4, 1e6, 1e8])
def test_gelu_correction_at_large_variance(variance: float) -> None:
    """G-only by the recursion in 60 digits, with the derivatives of one input in 120."""
    model = eft.ResNet(activation="gelu", weight_variance=2.0, epsilon=0.1, depth=20)
    found = eft.predict(model, eft.InputKernel.explicit([[variance]]), "g_only")
    with mpmath.workdps(120):
        h, k, k1 = mpmath.mpf(0.1) ** 2, mpmath.mpf(variance), mpmath.mpf(0)
        v4 = 2 * k * k
        for _ in range(20):
            e2, slope, curvature = derivatives(lambda x: gelu(x, x, x), [k], ((0,), (1,), (2,)))
            k1 += h * (2 * slope * k1 + curvature * v4)
            v4 += h * (4 * slope * v4 + 8 * k * e2)
            k += h * 2 * e2
    assert found.converged
    assert found.correction is not None
    assert found.covariance is not None
    assert found.correction[-1, 0, 0] == pytest.approx(float(k1), rel=1e-12)
    assert found.covariance[-1, 0, 0] == pytest.approx(float(v4), rel=1e-12)


@pytest.mark.parametrize("name", ["gelu", "erf", "sin", "relu"])
def test_equal_inputs_follow_the_single_one(name: str) -> None:
    model = eft.ResNet(activation=name, weight_variance=2.0, epsilon=0.1, depth=20)
    one = eft.predict(model, eft.InputKernel.explicit([[1e8]]), "g_only")
    two = eft.predict(model, eft.InputKernel.explicit([[1e8, 1e8], [1e8, 1e8]]), "g_only")
    for x, y in ((one.mean, two.mean), (one.correction, two.correction)):
        assert x is not None
        assert y is not None
        np.testing.assert_array_equal(np.broadcast_to(x, y.shape), y)


def test_a_prediction_that_loses_digits_says_so() -> None:
    """Two almost equal inputs at K = 1e12: K1 is what 1e-10 of a difference leaves."""
    model = eft.ResNet(activation="gelu", weight_variance=2.0, epsilon=0.1, depth=20)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1e12, correlation=1 - 1e-10)
    with pytest.warns(eft.NumericsWarning, match="K1"):
        found = eft.predict(model, kernel, "g_only")
    assert not found.converged


@pytest.mark.parametrize("count", [2, 3, 32, 371, 372, 400, 500])
def test_gauss_hermite_nodes_integrate_polynomials(count: int) -> None:
    nodes, weights = gauss_hermite_nodes(count)
    assert np.isfinite(nodes).all()
    assert np.isfinite(weights).all()
    for power in range(0, min(2 * count, 40), 2):
        assert weights @ nodes**power == pytest.approx(float(mpmath.fac2(power - 1)) if power else 1.0, rel=1e-12)


def test_gauss_hermite_nodes_agree_with_arbitrary_precision() -> None:
    nodes, weights = gauss_hermite_nodes(400)
    with mpmath.workdps(60):
        for j in (200, 300, 399):

            def polynomial(z: mpmath.mpf, count: int = 400) -> tuple[mpmath.mpf, mpmath.mpf]:
                before, here = mpmath.mpf(0), mpmath.mpf(1)
                for k in range(count):
                    before, here = here, (z * here - mpmath.sqrt(k) * before) / mpmath.sqrt(k + 1)
                return before, here

            z = mpmath.mpf(nodes[j])
            for _ in range(4):
                before, here = polynomial(z)
                z -= here / (mpmath.sqrt(400) * before)
            assert nodes[j] == pytest.approx(float(z), rel=1e-14)
            # Christoffel: 1 / (n h_{n-1}(z)^2)
            assert weights[j] == pytest.approx(float(1 / (400 * polynomial(z)[0] ** 2)), rel=1e-10, abs=1e-300)


@pytest.mark.parametrize("name", ["relu", "gelu", "erf", "sin"])
@pytest.mark.parametrize("variance", [1e-320, 1e-160, 1e200])
def test_kernels_out_of_range_are_refused(name: str, variance: float) -> None:
    model = eft.ResNet(activation=name, weight_variance=2.0, epsilon=0.1, depth=3)

    def predict() -> None:
        kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=variance, correlation=0.3)
        eft.predict(model, kernel, "g_only")

    with pytest.raises(eft.InputError, match=r"range|underflows|below 1e150"):
        predict()
