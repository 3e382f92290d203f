"""Histograms of each kernel entry G_aa over the networks of an ensemble, and its quantiles from them.

The bins are fixed by the ensemble, so that histograms of different shards add up. They divide
y = arsinh(sqrt(n) log(G_aa / K0_aa)) into steps of STEP: near K0 they are about a tenth of the standard deviation wide,
which is at least sqrt(2) there, and further out they are a tenth of the distance from K0, as the tails need it.
Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.stats import binom

from eftcore.compiled import compiled
from eftcore.ensemble.reference import Reference
from eftcore.ensemble.threads import in_threads
from eftcore.errors import InputError
from eftcore.pairs import pair_table
from eftcore.specs import EnsembleSpec

HISTOGRAM = "histogram"
"""Name of these counts among the sums of a sample."""

STEP = 0.1
"""Width of a bin in y."""

BINS = 160
"""Number of bins. The first and the last also hold what lies beyond them, |sqrt(n) log(G / K0)| > 1490."""


def histogram_shape(recorded: int, n_inputs: int) -> tuple[int, int, int]:
    """(R, N, BINS)."""
    return recorded, n_inputs, BINS


@dataclass(frozen=True, eq=False)
class Quantiles:
    """Quantiles of each G_aa over networks, at R recorded layers, N inputs and B probabilities.

    ``low`` and ``high`` bound each quantile with 95 % probability, whatever the distribution (order statistics); they
    are NaN where there are too few networks for such a bound.

    Attributes:
        probability: (B,).
        value: (R, N, B), of the unit of G; NaN for an input that is 0.
        low: (R, N, B).
        high: (R, N, B).
    """

    probability: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Histogram:
    """The histograms of one shard, to which observations are added.

    Attributes:
        counts: (R, N, BINS) networks in each bin.
    """

    def __init__(self, spec: EnsembleSpec, reference: Reference) -> None:
        self._pairs = np.diag(pair_table(spec.kernel.n_inputs)).copy()
        kernel = reference.kernel[:, self._pairs]
        self._inverse = np.divide(1.0, kernel, out=np.zeros_like(kernel), where=kernel > 0)
        self._root = float(np.sqrt(spec.width))
        self.counts = np.zeros(histogram_shape(*kernel.shape), dtype=np.uint32)
        self._lanes = 0

    def add(self, observed: np.ndarray) -> None:
        """Add observations (bundles, R, 2 or 4, P, LANES) of eftcore.ensemble.sums; unused lanes are zero."""
        fixed = self._pairs, self._inverse, self._root, STEP, self.counts
        in_threads(lambda begin, end: _count(observed, begin, end, *fixed), observed.shape[1])
        self._lanes += observed.shape[0] * observed.shape[-1]

    def add_networks(self, observed: Any) -> None:
        """Add a torch tensor of observations (1, R, 2 or 4, P, networks) on its device; only counts leave it."""
        import torch

        inverse = torch.tensor(self._inverse, device=observed.device)
        rows = torch.arange(len(self._pairs), device=observed.device)[:, None] * BINS
        for r in range(observed.shape[1]):
            ratio = 1 + observed[0, r, 0, self._pairs.tolist()] * inverse[r][:, None]
            y = torch.asinh(self._root * torch.log(ratio.clamp(min=0.0)))
            place = torch.floor(y / STEP).clamp(-(BINS // 2), BINS // 2 - 1).to(torch.int64) + BINS // 2
            counts = torch.bincount((place + rows).flatten(), minlength=rows.numel() * BINS)
            self.counts[r] += counts.reshape(-1, BINS).cpu().numpy().astype(np.uint32)
        self._lanes += observed.shape[-1]

    def finished(self, networks: int) -> np.ndarray:
        """The counts of this number of networks: unused lanes, which have G = K0, are taken off again."""
        counts = self.counts.copy()
        counts[..., BINS // 2] -= np.uint32(self._lanes - networks)
        return counts


@compiled(nogil=True, error_model="numpy")
def _count(
    observed: np.ndarray,
    begin: int,
    end: int,
    pairs: np.ndarray,
    inverse: np.ndarray,
    root: float,
    step: float,
    counts: np.ndarray,
) -> None:
    """Add the observations at recorded layers ``begin`` to ``end``."""
    half = counts.shape[2] // 2
    for bundle in range(observed.shape[0]):
        for r in range(begin, end):
            for a in range(len(pairs)):
                for lane in range(observed.shape[4]):
                    ratio = 1.0 + observed[bundle, r, 0, pairs[a], lane] * inverse[r, a]
                    place = 0
                    if ratio > 0.0:
                        y = np.arcsinh(root * np.log(ratio)) / step
                        place = int(min(max(np.floor(y), -half), half - 1)) + half
                    counts[r, a, place] += 1


def bound_ranks(networks: int, probability: np.ndarray) -> np.ndarray:
    """(2, B) which networks, counted from the smallest G_aa, bound these quantiles with 95 %; NaN where none does.

    >>> bound_ranks(100, np.array([0.001, 0.5]))
    array([[nan, 40.],
           [ 2., 61.]])
    """
    # the r-th smallest of M networks is at most the quantile with the probability that at least r lie below it
    rank = np.stack([binom.ppf(0.025, networks, probability), binom.ppf(0.975, networks, probability) + 1])
    found: np.ndarray = np.where((rank >= 1) & (rank <= networks), rank, np.nan)
    return found


def quantiles(counts: np.ndarray, kernel: np.ndarray, width: int, probability: Any) -> Quantiles:
    """Quantiles of G_aa at these probabilities, from counts (R, N, BINS) around K0_aa (R, N) (eq. 7.19).

    Within a bin the distribution is interpolated. Raises InputError for a probability outside (0, 1).
    """
    p = np.atleast_1d(np.asarray(probability, dtype=float))
    if p.ndim != 1 or not ((p > 0) & (p < 1)).all():
        raise InputError("must lie between 0 and 1", place="probability", value=probability)
    networks = int(counts[0, 0].sum())
    bounds = bound_ranks(networks, p) / (networks + 1)
    edges = (np.arange(BINS + 1) - BINS // 2) * STEP
    found = np.full((3, *kernel.shape, len(p)), np.nan)
    for row, column in np.argwhere(kernel > 0):
        below = np.concatenate([[0], np.cumsum(counts[row, column], dtype=float)]) / networks
        # one edge on each side of the bins that hold networks
        first, last = np.searchsorted(below, 0.0, side="right") - 1, np.searchsorted(below, 1.0)
        inside = slice(first, last + 1)
        values, places = np.unique(below[inside], return_index=True)
        y = PchipInterpolator(values, edges[inside][places])(np.stack([p, *bounds]))
        found[:, row, column] = kernel[row, column] * np.exp(np.sinh(y) / np.sqrt(width))
    return Quantiles(p, *found)
