"""Sums over groups of an ensemble's networks, from which the joint distribution of errors over depth is estimated.

Network i of a shard belongs to group (i // LANES) modulo GROUPS, on any machine and for any batch size. Sums of group g
are added over shards, so a merged sample has the same number of groups, each of them an independent part of the
ensemble.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from eftcore.compiled import compiled
from eftcore.ensemble.sums import GROUPS, LANES, group_shapes
from eftcore.ensemble.threads import in_threads

FEWEST = 8
"""Smallest number of groups from which the joint distribution over depth is estimated."""


def group_counts(shards: Iterable[tuple[int, int]]) -> np.ndarray:
    """(GROUPS,) number of networks in each group, for shards given as (index, networks).

    >>> group_counts([(0, 40), (1, 16)])[:4].tolist()
    [32, 16, 8, 0]
    """
    counts = np.zeros(GROUPS, dtype=np.int64)
    for _, networks in shards:
        bundles, rest = divmod(networks, LANES)
        counts += LANES * (bundles // GROUPS + (np.arange(GROUPS) < bundles % GROUPS))
        counts[bundles % GROUPS] += rest
    return counts


class GroupSums:
    """Sums of one shard by group, fed with observations in the order of the networks.

    Attributes:
        sums: see eftcore.ensemble.sums.group_shapes.
    """

    def __init__(self, recorded: int, n_inputs: int, *, paired: bool) -> None:
        self.sums = {name: np.zeros(shape) for name, shape in group_shapes(recorded, n_inputs, paired=paired).items()}
        self._done = 0

    def add(self, observed: np.ndarray) -> None:
        """Add observations (bundles, R, 2 or 4, P, LANES); unused lanes are zero."""
        arrays = list(self.sums.values())
        arrays += arrays[: 4 - len(arrays)]  # the plain estimator has two arrays; the copies are not written to
        first, paired = self._done % GROUPS, observed.shape[2] == 4
        in_threads(lambda begin, end: _add(observed, begin, end, first, paired, *arrays), observed.shape[1])
        self._done += len(observed)

    def add_networks(self, observed: Any) -> None:
        """Add a torch tensor of observations (1, R, 2 or 4, P, networks) on its device; only sums leave the device."""
        import torch

        networks = observed.shape[-1]
        index = torch.arange(self._done, self._done + networks, device=observed.device) // LANES % GROUPS
        deviation = observed[0, :, 0]
        terms = [deviation, deviation**2]
        if observed.shape[2] == 4:
            residual = observed[0, :, 2]
            terms += [residual, 2 * deviation * residual - residual**2]
        for total, term in zip(self.sums.values(), terms, strict=True):
            found = torch.zeros((*term.shape[:-1], GROUPS), dtype=torch.float64, device=observed.device)
            total += np.moveaxis(found.index_add_(-1, index, term.double()).cpu().numpy(), -1, 0)
        self._done += networks


@compiled(nogil=True, error_model="numpy")
def _add(
    observed: np.ndarray,
    begin: int,
    end: int,
    first: int,
    paired: bool,
    deviation: np.ndarray,
    square: np.ndarray,
    residual: np.ndarray,
    change: np.ndarray,
) -> None:
    """Add the observations at recorded layers ``begin`` to ``end``; bundle 0 belongs to group ``first``."""
    for bundle in range(observed.shape[0]):
        group = (first + bundle) % deviation.shape[0]
        for r in range(begin, end):
            for p in range(observed.shape[3]):
                d_1, d_2, x_1, z_1 = 0.0, 0.0, 0.0, 0.0
                for lane in range(observed.shape[4]):
                    d = observed[bundle, r, 0, p, lane]
                    d_1 += d
                    d_2 += d * d
                    if paired:
                        x = observed[bundle, r, 2, p, lane]
                        x_1 += x
                        z_1 += 2.0 * d * x - x * x
                deviation[group, r, p] += d_1
                square[group, r, p] += d_2
                if paired:
                    residual[group, r, p] += x_1
                    change[group, r, p] += z_1
