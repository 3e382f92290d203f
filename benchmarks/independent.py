"""The exact leading order for one input, solved a second time and in another way than eftcore (no code in common).

The response u is linear in xi^S of earlier layers, so V4 and K1 need the covariances of g(phi_m) with functions of
phi_l, m <= l, g = sigma^2 (docs/theory.md, section 4). Let r_l(x) = E[u_l | phi_l = x] be the mean response of a
mean-field neuron that is at x in layer l, and rho_l = r_l times its Gaussian density. Then Cov(u_l, f(phi_l)) =
integral of f rho_l, and since a layer adds an independent Gaussian,

    rho_{l+1} = heat kernel of variance eps^2 Q_l  *  [ (1 + eps^2 chi_l) rho_l + eps^2 C_W (g - <g>) p_l ],

exact at every eps, for every sigma: no Wick series. Three ways, by sigma:

* bounded and smooth: rho on a uniform grid, the heat kernel by FFT (the trigonometric basis of theory section 10);
* linear, ReLU, leaky ReLU: two-time Gaussian integrals in closed form (arc-cosine kernels), as sums over all m < l;
* sin, cos: the same with the closed forms of a single wave;
* GELU, SiLU, softplus: the grid until K is so large that sigma is max(x, 0) to the accuracy wanted, then arc-cosine.

``exact_one_input`` solves at two resolutions; their difference is its own error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.special import ndtr

from benchmarks.one_input_sigma import Homogeneous, Sigma, Smooth, Wave, sigma_of

ROUNDING = 2e-14
"""Relative error that rounding is taken to leave in each layer's step, added up like a random walk."""

HUGE = 4e5
"""K / scale^2 from which GELU, SiLU and softplus count as max(x, 0): a relative error of order (K / scale^2)^(-3/2)."""

RELU = Homogeneous(1.0, 0.0)


@dataclass(frozen=True)
class Network:
    """One input of variance ``kernel`` and the network's parameters, as in eftcore.ResNet."""

    activation: str
    kernel: float
    weight_variance: float
    bias_variance: float
    epsilon: float
    depth: int


@dataclass(frozen=True)
class Moments:
    """(R,) K0, V4, K1 at the recorded layers, and for each the solver's own relative error (largest over depth)."""

    mean: np.ndarray
    covariance: np.ndarray
    correction: np.ndarray
    error: dict[str, float] = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        """Whether every number is one."""
        return bool(np.isfinite([self.mean, self.covariance, self.correction]).all())


@dataclass(frozen=True)
class Path:
    """(L + 1,) K0, <g>, chi, H over depth."""

    kernel: np.ndarray
    second_moment: np.ndarray
    chi: np.ndarray
    hessian: np.ndarray


def exact_one_input(network: Network, depths: Sequence[int]) -> Moments:
    """K0, V4 and K1 to leading order in 1/n, every power of epsilon kept.

    >>> linear = Network("linear", kernel=1.0, weight_variance=1.0, bias_variance=0.0, epsilon=0.5, depth=1)
    >>> exact_one_input(linear, [0, 1]).covariance.tolist()
    [2.0, 4.25]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        found = _with_error(*(_exact(network, depths, fineness) for fineness in (1.0, 2**0.5)), network)
    sigma = sigma_of(network.activation)
    if isinstance(sigma, Smooth) and sigma.rises and found.finite:
        # where K is huge both resolutions take max(x, 0) for sigma, and their difference does not see it
        as_relu = (
            max(4 * HUGE, network.kernel / sigma.scale**2) ** -1.5 if found.mean.max() > HUGE * sigma.scale**2 else 0.0
        )
        return replace(found, error={name: error + as_relu for name, error in found.error.items()})
    return found


def g_only_one_input(network: Network, depths: Sequence[int], *, exact: bool = False) -> Moments:
    """K0, V4 and K1 of the paper's G-only hierarchy, forward Euler in t or with all powers of eps (theory section 3).

    >>> linear = Network("linear", kernel=1.0, weight_variance=1.0, bias_variance=0.0, epsilon=0.5, depth=1)
    >>> g_only_one_input(linear, [0, 1]).covariance.tolist()
    [2.0, 4.0]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return _with_error(*(_g_only(network, depths, fineness, exact) for fineness in (1.0, 2**0.5)), network)


def error_scales(found: Moments) -> dict[str, np.ndarray]:
    """What relative errors are relative to: the quantity; for K1 at least 1e-3 of its largest value, 1e-4 V4 / K0."""
    k1 = np.abs(found.correction)
    floor = np.maximum(1e-3 * k1.max(), 1e-4 * np.abs(found.covariance) / found.mean)
    return {"K0": found.mean, "V4": np.abs(found.covariance), "K1": np.maximum(k1, floor)}


def relative_errors(found: Moments, reference: Moments) -> dict[str, float]:
    """Largest relative difference over depth of K0, V4 and K1; infinity where ``found`` is not finite."""
    scales = error_scales(reference)
    pairs = {
        "K0": (found.mean, reference.mean),
        "V4": (found.covariance, reference.covariance),
        "K1": (found.correction, reference.correction),
    }
    return {
        name: float(np.nan_to_num(np.abs(a - b) / scales[name], nan=np.inf).max()) for name, (a, b) in pairs.items()
    }


def _with_error(coarse: Moments, fine: Moments, network: Network) -> Moments:
    if not fine.finite:
        return fine
    rounding = ROUNDING * math.sqrt(network.depth + 1)
    error = {name: 2 * change + rounding for name, change in relative_errors(coarse, fine).items()}
    return Moments(fine.mean, fine.covariance, fine.correction, error)


def _path(network: Network, sigma: Sigma, fineness: float) -> Path:
    h, rows = network.epsilon**2, np.empty((4, network.depth + 1))
    kernel = network.kernel
    for layer in range(network.depth + 1):
        if not 0 < kernel < 1e153:
            rows[:, layer:] = np.nan
            break
        value, first, second = sigma.mean(kernel, fineness) if isinstance(sigma, Smooth) else sigma.mean(kernel)
        c_w = network.weight_variance
        rows[:, layer] = kernel, value, c_w * first, second
        kernel = kernel + h * (network.bias_variance + c_w * value)
    return Path(*rows)


def _g_only(network: Network, depths: Sequence[int], fineness: float, exact: bool) -> Moments:
    path, h, c_w = _path(network, sigma_of(network.activation), fineness), network.epsilon**2, network.weight_variance
    v4, k1 = 2 * path.kernel[0] ** 2, 0.0
    rows = np.empty((2, network.depth + 1))
    for layer, (kernel, second_moment, chi, hessian) in enumerate(
        zip(path.kernel, path.second_moment, path.chi, path.hessian, strict=True)
    ):
        rows[:, layer] = v4, k1
        increment = network.bias_variance + c_w * second_moment
        k1 = k1 + h * (chi * k1 + 0.5 * c_w * hessian * v4)
        v4 = v4 + h * (2 * chi * v4 + 4 * kernel * increment) + exact * h * h * (chi**2 * v4 + 2 * increment**2)
    chosen = list(depths)
    return Moments(path.kernel[chosen], rows[0, chosen], rows[1, chosen])


def _exact(network: Network, depths: Sequence[int], fineness: float) -> Moments:
    sigma = sigma_of(network.activation)
    path, h, c_w = _path(network, sigma, fineness), network.epsilon**2, network.weight_variance
    if not np.isfinite(path.kernel).all():
        return Moments(*np.full((3, len(list(depths))), np.nan))
    if isinstance(sigma, Smooth):
        with_square, with_curvature, with_kernel, own = _Neuron(network, sigma, path, fineness).covariances()
    else:
        with_square, with_curvature, with_kernel, own = _two_time_sums(network, sigma, path)
    response, k1 = 0.0, 0.0
    rows = np.empty((2, network.depth + 1))
    for layer in range(network.depth + 1):
        gain, kernel = 1 + h * path.chi[layer], path.kernel[layer]
        rows[:, layer] = 2 * kernel**2 + 2 * with_kernel[layer] + response, k1
        k1 = gain * k1 + h * c_w * (0.5 * path.hessian[layer] * response + with_curvature[layer])
        response = gain**2 * response + 2 * gain * h * c_w * with_square[layer] + (h * c_w) ** 2 * own[layer]
    chosen = list(depths)
    return Moments(path.kernel[chosen], rows[0, chosen], rows[1, chosen])


def two_time(sigma: Homogeneous | Wave, early: np.ndarray, late: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cov of g(phi_m) with g(phi_l), (g'' / 2)(phi_l) and phi_l^2, for K_m = ``early`` <= K_l = ``late``."""
    if isinstance(sigma, Wave):
        same = 0.5 * sigma.amplitude**2 * np.exp(-2 * (late - early)) * np.expm1(-4 * early) ** 2
        bell = np.exp(-2 * early)
        return same, -2 * same, -4 * sigma.amplitude * early**2 * bell
    cosine = np.sqrt(early / late)
    sine = np.sqrt(np.maximum(late - early, 0) / late)
    angle = np.arctan2(cosine, sine)
    even, odd = sigma.right + sigma.left, (sigma.right - sigma.left) ** 2 / (2 * math.pi)
    square = early * late * (even**2 * cosine**2 / 2 + odd * (3 * sine * cosine + angle * (1 + 2 * cosine**2)))
    return square, odd * early * (angle + sine * cosine), even * early**2


def _two_time_sums(network: Network, sigma: Homogeneous | Wave, path: Path) -> np.ndarray:
    """(4, L + 1) Cov of u with g, g'' / 2 and phi^2, and Var(g), at every layer."""
    found, h = np.zeros((4, network.depth + 1)), network.epsilon**2
    weight = np.empty(0)
    for layer, kernel in enumerate(path.kernel):
        parts = two_time(sigma, path.kernel[: layer + 1], kernel)
        for row, part in enumerate(parts):
            found[row, layer] = weight @ part[:layer]
        found[3, layer] = parts[0][layer]
        weight = np.append(weight * (1 + h * path.chi[layer]), h * network.weight_variance)
    return found


class _Neuron:
    """rho on a uniform grid that widens and coarsens with K."""

    def __init__(self, network: Network, sigma: Smooth, path: Path, fineness: float) -> None:
        self.network, self.sigma, self.path = network, sigma, path
        self.per_deviation, self.tail = 4.0 * fineness, 9.5 + 0.7 * (fineness - 1)
        self.spacing = sigma.spacing / fineness
        self.huge = sigma.scale**2 * HUGE * fineness**4 if sigma.rises else math.inf

    def covariances(self) -> np.ndarray:
        """(4, L + 1) Cov of u with g, g'' / 2 and phi^2, and Var(g), at every layer."""
        path, h, c_w = self.path, self.network.epsilon**2, self.network.weight_variance
        found = np.zeros((4, self.network.depth + 1))
        origin = float(self.sigma.curvature(np.zeros(1))[0]) if path.kernel[0] < self.sigma.scale**2 else 0.0
        turn = int(np.searchsorted(path.kernel, self.huge))
        step = self._step_at(path.kernel[0])
        rho = np.zeros(self._points(path.kernel[0], step) if turn > 0 else 2)
        for layer in range(min(turn, self.network.depth + 1)):
            kernel = path.kernel[layer]
            x = step * (np.arange(len(rho)) - len(rho) // 2)
            density = np.exp(-x * x / (2 * kernel)) / math.sqrt(2 * math.pi * kernel)
            excess = self.sigma.square(x) - path.second_moment[layer]
            weighted = excess * density
            found[0, layer] = step * (excess @ rho)
            found[1, layer] = step * ((self.sigma.curvature(x) - origin) @ rho)
            found[2, layer] = step * ((x * x - kernel) @ rho)
            found[3, layer] = step * (excess @ weighted)
            rho = (1 + h * path.chi[layer]) * rho + h * c_w * weighted
            if layer < self.network.depth:
                rho, step = self._spread(rho, step, kernel, path.kernel[layer + 1])
        if turn <= self.network.depth:
            self._continue_as_relu(found, turn, rho, step)
        return found

    def _step_at(self, kernel: float) -> float:
        """Grid spacing: a power of 1/2 times the widest that resolves sigma."""
        widest = math.sqrt(kernel) / self.per_deviation
        return self.spacing * 2.0 ** min(0, math.floor(math.log2(widest / self.spacing)))

    def _points(self, kernel: float, step: float) -> int:
        return 2 * next_fast_len(math.ceil(self.tail * math.sqrt(kernel) / step), real=True)

    def _spread(self, rho: np.ndarray, step: float, kernel: float, target: float) -> tuple[np.ndarray, float]:
        """rho after adding an independent Gaussian of variance target - kernel; a large one in several pieces."""
        while True:
            after = min(target, 4 * kernel)
            count = max(self._points(after, step), len(rho))
            missing = (count - len(rho)) // 2
            rho = np.pad(rho, (missing, missing))
            wave = 2 * math.pi * rfftfreq(len(rho), step)
            spectrum = rfft(rho) * np.exp(-(wave**2) * (after - kernel) / 2)
            spectrum[0] = 0.0  # E[u] = 0
            rho = irfft(spectrum, len(rho))
            while 2 * step <= self._step_at(after):
                middle = len(rho) // 2
                rho = rho[middle % 2 :: 2]
                if len(rho) % 2:
                    rho = np.insert(rho, 0, 0.0)  # x = 0 stays at index len // 2
                step *= 2
            if after >= target:
                return rho, step
            kernel = after

    def _continue_as_relu(self, found: np.ndarray, turn: int, rho: np.ndarray, step: float) -> None:
        """Layers from ``turn`` on with sigma = max(x, 0): earlier ones through rho there, later ones pair by pair."""
        path, h = self.path, self.network.epsilon**2
        x = step * (np.arange(len(rho)) - len(rho) // 2)
        weight, carried, martingale = np.empty(0), 1.0, step * ((x * x) @ rho)
        for layer in range(turn, self.network.depth + 1):
            kernel = path.kernel[layer]
            parts = two_time(RELU, path.kernel[turn : layer + 1], kernel)
            width = math.sqrt(max(kernel - path.kernel[turn], 0.0))
            square, half = _smeared(x, width)
            found[0, layer] = carried * step * (square @ rho) + weight @ parts[0][:-1]
            found[1, layer] = carried * step * (half @ rho) + weight @ parts[1][:-1]
            found[2, layer] = carried * martingale + weight @ np.broadcast_to(parts[2], parts[0].shape)[:-1]
            found[3, layer] = parts[0][-1]
            gain = 1 + h * path.chi[layer]
            weight, carried = np.append(weight * gain, h * self.network.weight_variance), carried * gain


def _smeared(x: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Means of max(y, 0)^2 and of the step 1(y > 0) over y ~ N(x, width^2)."""
    if width == 0:
        return np.maximum(x, 0) ** 2, np.heaviside(x, 0.5)
    z = x / width
    bell = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return (x * x + width * width) * ndtr(z) + x * width * bell, ndtr(z)
