"""The next order through one layer with adapted functions.

The leading order of all functions is known (``densities``), so that only T, D and b are followed. The third cumulants
are those of independent neurons, Theta(K0), and the rest T_i, which neurons have in common:

    T_i' = E E E T_i + sum_3 (h m1)_i Y_jk + sum_3 (F C J^T)_i [A1 + 2 B(C J^T)]_jk + sum_3 (C J^T - C_0 E)_i noise_jk,

with Y from T's contractions with F, and C_0 the covariance of independent neurons, whose part in the last sum cancels
against what the noise adds to Theta (eq. 10.3). Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eftcore.pairs import pair_indices
from eftcore.theory.next_order.adapted import AdaptedFunctions
from eftcore.theory.next_order.densities import LeadingOrder, Response
from eftcore.theory.next_order.drift import Drift, Joint


@dataclass(frozen=True, eq=False)
class Following:
    """The next order of the M functions: D (M, M), b (M,), and T (M, M, M) without that of independent neurons."""

    D: np.ndarray
    b: np.ndarray
    T: np.ndarray

    @classmethod
    def none(cls, size: int) -> Following:
        """At a layer of independent Gaussian neurons."""
        return cls(np.zeros((size, size)), np.zeros(size), np.zeros((size, size, size)))


def through(functions: AdaptedFunctions, path: np.ndarray, h: float, layers: np.ndarray) -> dict[str, np.ndarray]:
    """V4, D, K2 and T of the kernel at some layers, in increasing order, for a mean path (L + 1, N, N)."""
    g, pairs = functions.kernel, len(functions.kernel)
    ranks = {"V4": 2, "D": 2, "K2": 1, "T": 3}
    found = {name: np.zeros((len(layers), *[pairs] * rank)) for name, rank in ranks.items()}
    rows = {int(layer): row for row, layer in enumerate(layers)}
    for number, layer, x in along(functions, path[: layers[-1] + 1], h):
        if number in rows:
            row = rows[number]
            found["V4"][row], found["D"][row], found["K2"][row] = g @ layer.C @ g.T, g @ x.D @ g.T, g @ x.b
            common = np.einsum("pi,qj,rk,ijk->pqr", g, g, g, x.T, optimize=True)
            found["T"][row] = common + _third_of_kernel(path[number])
    return found


def along(functions: AdaptedFunctions, path: np.ndarray, h: float) -> Iterator[tuple[int, Layer, Following]]:
    """Number, leading and next order of each layer of a mean path (L + 1, N, N).

    While K0 is 0 nothing fluctuates, and the first layer at which it is not has independent Gaussian neurons.
    """
    first = int(np.argmax(path.any(axis=(1, 2))))
    layer, x = Layer(functions, path[first]), Following.none(functions.size)
    yield first, layer, x
    for number in range(first, len(path) - 1):
        smoothing = functions.grid.smoothing(path[number + 1] - path[number])
        noise = layer.leading.noise(h, smoothing)
        before, layer = layer, Layer(functions, path[number + 1], layer.leading.following(h, smoothing))
        x = advance(functions, before, layer, noise, path[number : number + 2], h, x)
        yield number + 1, layer, x


def _third_of_kernel(kernel: np.ndarray) -> np.ndarray:
    """(P, P, P) third cumulants of phi_a phi_b under N(0, kernel): all ways to connect three pairs in a ring."""
    first, second = pair_indices(len(kernel))
    ends = np.stack([first, second])
    found = np.zeros([len(first)] * 3)
    for s, t, u in itertools.product((0, 1), repeat=3):
        found += (
            kernel[ends[s][:, None, None], ends[t][:, None]]
            * kernel[ends[1 - t][:, None], ends[u]]
            * kernel[ends[1 - u], ends[1 - s][:, None, None]]
        )
    return found


class Layer:
    """The functions at one layer: their means, and integrals of products of two of them over densities.

    Attributes:
        leading: the leading order there.
        gaussian: (M + 1, M + 1) over N(0, K0); slopes, zeta, products: (P, M + 1, M + 1) over the densities of those
            names; shift: (M + 1, M + 1) over that of a.
        with_increment: (P, M + 1, M + 1) over the densities of C(., F_q).
        C: (M, M) covariances at leading order.
    """

    def __init__(self, functions: AdaptedFunctions, kernel: np.ndarray, response: Response | None = None) -> None:
        self.leading = leading = LeadingOrder(functions.grid, functions.increment, kernel, response)
        m, pairs = functions.size, len(leading.mean)
        densities = [leading.gaussian, leading.shift, *leading.slopes, *leading.zeta, *leading.products]
        squared = functions.squared(np.stack(densities))
        self.gaussian, self.shift = squared[:2]
        self.slopes, self.zeta, self.products = squared[2:].reshape(3, pairs, m + 1, m + 1)
        self.with_increment = (
            self.products
            - leading.mean[:, None, None] * self.gaussian
            + np.tensordot(leading.forward.T, self.slopes, 1)
            + np.tensordot(leading.chi, self.zeta, 1)
        )
        slope, zeta = self.slopes[:, :m, m], self.zeta[:, :m, m]
        self.own = self.gaussian[:m, :m] - np.outer(self.gaussian[:m, m], self.gaussian[:m, m])
        self.C = self.own + slope.T @ zeta + zeta.T @ slope + slope.T @ leading.response.U @ slope

    def independent_third(self) -> np.ndarray:
        """(P, M, M) third cumulants of F_q with two functions for independent neurons."""
        m, mean = len(self.C), self.leading.mean
        single = self.gaussian[:m, m]
        covariance = self.products[:, :m, m] - mean[:, None] * single
        found: np.ndarray = self.products[:, :m, :m] - mean[:, None, None] * self.gaussian[:m, :m]
        found -= covariance[:, :, None] * single + single[:, None] * covariance[:, None, :]
        return found


def advance(
    functions: AdaptedFunctions,
    before: Layer,
    after: Layer,
    noise: np.ndarray,
    kernels: np.ndarray,
    h: float,
    x: Following,
) -> Following:
    """The next order one layer deeper (eq. 10.3).

    Args:
        before, after: this layer and the next.
        noise: (points,) the density ``LeadingOrder.noise``.
        kernels: (2, N, N) K0 at both.
        h: epsilon^2.
        x: the next order at this layer.
    """
    m, low, leading = functions.size, functions.lowering, before.leading
    step = functions.averaging(kernels[1] - kernels[0])
    means = functions.derivative_means(kernels[1])
    slope = means[0]
    drift = Drift(functions.lowered, means, h, _joint(functions, before, step[:m], x))

    def averaged(squared: np.ndarray) -> np.ndarray:
        """Of products of two functions, each averaged over the increment."""
        found: np.ndarray = step @ squared @ step.T
        return found

    def symmetric(matrix: np.ndarray) -> np.ndarray:
        found: np.ndarray = matrix + matrix.swapaxes(-1, -2)
        return found

    gaussian, moved = averaged(before.gaussian), averaged(before.with_increment)
    linear = h * (after.slopes - symmetric(low @ gaussian))
    S = leading.covariance
    quadratic = symmetric((low @ moved).sum(0))
    both = np.einsum("qp,qij->pij", S, low)
    twice = (both @ gaussian @ low.swapaxes(1, 2)).sum(0) + 0.5 * symmetric((both @ low).sum(0) @ gaussian)
    A = functions.squared(noise[None])[0] - averaged(before.shift) - h * quadratic - h * h * twice
    second = drift.second + A[:m, :m] + np.einsum("q,qij->ij", leading.change, linear[:, :m, :m])

    rest, pairs = drift.paired
    # what earlier fluctuations of Q add to the covariance of two functions, as sums of functions times densities
    with_slopes = before.zeta[:, :m, m] @ step[:m, :m].T + leading.response.U @ slope
    noise_slopes = after.slopes - averaged(before.slopes)
    noise_zeta = after.zeta + h * np.tensordot(leading.forward.T, after.slopes, 1)
    noise_zeta -= averaged(before.zeta) + h * moved
    singles = np.concatenate([h * slope, drift.response, slope, with_slopes])
    matrices = np.concatenate([rest, linear[:, :m, :m] + pairs, noise_zeta[:, :m, :m], noise_slopes[:, :m, :m]])
    products = np.tensordot(singles, matrices, (0, 0))
    third = x.T
    for _ in range(3):
        third = np.tensordot(third, step[:m, :m], (0, 1))
    third = third + products + products.transpose(1, 0, 2) + products.transpose(1, 2, 0)
    return Following(second, drift.correction, third)


def _joint(functions: AdaptedFunctions, layer: Layer, step: np.ndarray, x: Following) -> Joint:
    """The moments of the functions averaged over the increment, and of F x together."""
    m, F = functions.size, functions.response
    R = step[:, :m]
    FT = np.tensordot(F, x.T, 1) + layer.independent_third()
    FFT = np.tensordot(F, FT, (1, 1))
    FD = F @ x.D
    return Joint(
        a=R @ layer.shift[:m, m],
        fa=layer.leading.change,
        C=R @ layer.C @ R.T,
        FC=layer.with_increment[:, :m, m] @ R.T,
        FCF=layer.leading.covariance,
        FT=R @ FT @ R.T,
        FFT=FFT @ R.T,
        FFFT=FFT @ F.T,
        D=R @ x.D @ R.T,
        FD=FD @ R.T,
        FDF=FD @ F.T,
        b=R @ x.b,
        fb=F @ x.b,
    )
