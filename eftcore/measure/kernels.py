"""The kernels that a check measures, as trajectories beside those of theories and simulations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eftcore.ensemble.histogram import Quantiles, bound_ranks
from eftcore.measure.checked import Check
from eftcore.pairs import to_matrix, to_pairs
from eftcore.results import KernelTrajectories
from eftcore.specs import CheckSpec

_KURTOSIS = 15.0
"""E[x^4] / E[x^2]^2 of the square x of a Gaussian number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedKernels(KernelTrajectories):
    """Kernels of a checked module at recorded layers, with standard errors; ``eft.compare`` takes it as a reference.

    Theory begins with independent Gaussian neurons, as a Gaussian embedding gives them, and with the mean kernel before
    the first block. Where that one is the same in each network, V4 begins at 0 instead. Kernels that are averages over
    positions have no covariance.

    Attributes:
        spec: what was checked.
        kernel: (M, R, N, N) of each network.
    """

    spec: CheckSpec
    kernel: np.ndarray

    def degrees_of_freedom(self, quantity: str) -> np.ndarray:
        """(R,) of the standard errors; those of V4 are of squares, whose spread is known less well."""
        networks = len(self.kernel)
        return np.full(len(self.depth), max(2 * networks / (_KURTOSIS - 1), 1.0) if quantity == "V4" else networks - 1)

    def reliable(self, quantity: str) -> np.ndarray:
        """(R,) whether the standard errors of K0 or V4 can be trusted: everywhere."""
        return np.full(len(self.depth), True)

    def group_fluctuations(self, quantity: str) -> None:
        """None: networks are not followed in groups."""

    def quantiles(self, probability: Sequence[float]) -> Quantiles:
        """Quantiles over networks of each G_aa, with 95 % bounds."""
        values = np.sort(np.diagonal(self.kernel, axis1=-2, axis2=-1), axis=0)
        p = np.asarray(probability, dtype=float)
        found = [np.quantile(values, p, axis=0)]
        for ranks in bound_ranks(len(values), p):
            there = np.isfinite(ranks)
            bound = np.full_like(found[0], np.nan)
            bound[there] = values[ranks[there].astype(int) - 1]
            found.append(bound)
        return Quantiles(p, *(np.moveaxis(each, 0, -1) for each in found))


def measured_kernels(check: Check) -> CheckedKernels:
    """What ``check`` measured, at the layers that ``check.recorded_as`` names. Raises InputError as that does."""
    spec = check.recorded_as
    depth = np.array(spec.depths)
    kernel = check.kernel[:, depth]
    networks = len(kernel)
    centred = np.moveaxis(to_pairs(kernel - kernel.mean(0)), 0, 1)
    products = np.swapaxes(centred, 1, 2) @ centred / networks
    squares = np.swapaxes(centred**2, 1, 2) @ centred**2 / networks
    error = spec.width * np.sqrt(np.maximum(squares - products**2, 0.0) / networks)
    covariance = products * networks / (networks - 1)
    variance = np.diagonal(covariance, axis1=-2, axis2=-1) / networks
    return CheckedKernels(
        spec=spec,
        depth=depth,
        time=spec.time,
        mean=check.mean[depth],
        mean_se=to_matrix(np.sqrt(variance)),
        covariance=spec.width * covariance if spec.has_covariance else None,
        covariance_se=error if spec.has_covariance else None,
        kernel=kernel,
    )
