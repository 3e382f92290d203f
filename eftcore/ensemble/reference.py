"""The infinite-width reference of an ensemble: where observables are measured from, and the mean-field twin's path.

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from eftcore.pairs import pair_indices, pair_table, to_pairs
from eftcore.specs import EnsembleSpec, InputKernel, ResNet
from eftcore.theory.mean_field import MeanField, mean_field


@dataclass(frozen=True, eq=False)
class Reference:
    """Theory at the R recorded layers; arrays in pair space.

    Attributes:
        kernel: (R, P) K0.
        second_moment: (R, P) E2(K0).
    """

    kernel: np.ndarray
    second_moment: np.ndarray


@dataclass(frozen=True, eq=False)
class TwinPath:
    """What the mean-field twin needs at every layer (eq. 7.3).

    Attributes:
        start: (N, N) symmetric root of K^0.
        root: (L, N, N) symmetric root of C_b + C_W E2(K0).
        second_moment: (L+1, P) E2(K0).
        response: (L+1, P, 3) chi, columns at the pairs ``neighbours``.
        neighbours: (P, 3) pairs aa, ab, bb of the pair p = (a, b).
    """

    start: np.ndarray
    root: np.ndarray
    second_moment: np.ndarray
    response: np.ndarray
    neighbours: np.ndarray


def symmetric_root(matrix: np.ndarray) -> np.ndarray:
    """(..., N, N) symmetric positive semi-definite to its symmetric root (eq. 7.1); negative eigenvalues count as 0.

    >>> symmetric_root(np.array([[4.0, 4.0], [4.0, 4.0]])).round(12).tolist()
    [[1.414213562373, 1.414213562373], [1.414213562373, 1.414213562373]]
    """
    values, vectors = np.linalg.eigh(matrix)
    root: np.ndarray = (vectors * np.sqrt(np.clip(values, 0.0, None))[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return root


@lru_cache(maxsize=8)
def _mean_field(model: ResNet, kernel: InputKernel) -> MeanField:
    return mean_field(model, kernel)


class Path:
    """Mean-field theory of one ensemble: its reference at recorded layers and its twin's path at all layers."""

    def __init__(self, spec: EnsembleSpec) -> None:
        self.spec = spec
        self._theory = _mean_field(spec.model, spec.kernel)

    @cached_property
    def reference(self) -> Reference:
        """Theory at the recorded layers."""
        assert self.spec.depths is not None
        recorded = list(self.spec.depths)
        return Reference(
            kernel=to_pairs(self._theory.kernel[recorded]),
            second_moment=to_pairs(self._theory.second_moment[recorded]),
        )

    @cached_property
    def twin(self) -> TwinPath:
        """The mean-field twin's path."""
        n_inputs = self.spec.kernel.n_inputs
        first, second = pair_indices(n_inputs)
        table = pair_table(n_inputs)
        return TwinPath(
            start=self.start,
            root=symmetric_root(self._theory.increment[:-1]),
            second_moment=to_pairs(self._theory.second_moment),
            response=self._theory.susceptibility,
            neighbours=np.stack([table[first, first], table[first, second], table[second, second]], axis=1),
        )

    @property
    def start(self) -> np.ndarray:
        """(N, N) symmetric root of K^0."""
        return symmetric_root(self.spec.kernel.array)
