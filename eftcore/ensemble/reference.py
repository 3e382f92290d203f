"""The infinite-width reference of an ensemble: the values that observables are measured from, and the twin's path.

The mean-field twin of a network is the control variate of the paired estimator (docs/theory.md, section 7.2): it has
the same random numbers, but the deterministic Q of infinite width.
Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from eftcore.activations import Activation, get_activation
from eftcore.gaussian.branch import BranchExpectations, hidden_kernel
from eftcore.gaussian.normalised_series import NormalisedSeries
from eftcore.gaussian.roots import lower_root, symmetric_root
from eftcore.gaussian.wick_series import components
from eftcore.inputs.kernel import InputKernel
from eftcore.pairs import pair_indices, pair_table, to_pairs
from eftcore.specs import EnsembleSpec, ResNet
from eftcore.theory.mean_field import MeanField, mean_field

TERMS = 512
"""Least number of Mehler terms of what the twin responds with: its covariance is compared with theory."""

ROWS = 64
"""Layers that are expanded at once."""


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
        start: (N, N) root of K^0.
        root: (L, N, N) root of C_b + C_W E2(K0), symmetric, or lower triangular for blocks with two matrices.
        hidden_root: (L+1, N, N) lower triangular root of A(K0), for blocks with two matrices.
        kernel: (L+1, P) K0.
        second_moment: (L+1, P) E2(K0).
        response: (L+1, P, 3) chi; the columns belong to the pairs ``neighbours``.
        direct: (L+1, P, 3) the part of chi by the kernel that a normalisation divides one matrix's input by.
        slopes: (L+1, P, 2) C_W <d f_p> by phi_a and phi_b, from which layer normalisation subtracts the means.
        neighbours: (P, 3) pairs aa, ab, bb of the pair p = (a, b).
    """

    start: np.ndarray
    root: np.ndarray
    hidden_root: np.ndarray
    kernel: np.ndarray
    second_moment: np.ndarray
    response: np.ndarray
    direct: np.ndarray
    slopes: np.ndarray
    neighbours: np.ndarray


@lru_cache(maxsize=8)
def _mean_field(model: ResNet, kernel: InputKernel, activation: Activation) -> MeanField:
    # the activation, since one of the same name may be registered anew
    return mean_field(model, kernel)


class Path:
    """Mean-field theory of one ensemble: the reference at recorded layers and the twin's path at all layers."""

    def __init__(self, spec: EnsembleSpec) -> None:
        self.spec = spec
        self._theory = _mean_field(spec.model, spec.kernel, get_activation(spec.model.activation))

    @cached_property
    def reference(self) -> Reference:
        """The infinite-width theory at the recorded layers."""
        assert self.spec.depths is not None
        recorded = list(self.spec.depths)
        return Reference(
            kernel=to_pairs(self._theory.kernel[recorded]),
            second_moment=to_pairs(self._theory.second_moment[recorded]),
        )

    @cached_property
    def twin(self) -> TwinPath:
        """What the mean-field twin needs at every layer."""
        n_inputs = self.spec.kernel.n_inputs
        first, second = pair_indices(n_inputs)
        table = pair_table(n_inputs)
        direct, slopes = self._of_the_normalisation()
        return TwinPath(
            start=self.start,
            root=self._root(self._theory.increment[:-1]),
            hidden_root=lower_root(hidden_kernel(self.spec.model, self._theory.kernel)),
            kernel=to_pairs(self._theory.kernel),
            second_moment=to_pairs(self._theory.second_moment),
            response=self._theory.susceptibility,
            direct=direct,
            slopes=slopes,
            neighbours=np.stack([table[first, first], table[first, second], table[second, second]], axis=1),
        )

    def _of_the_normalisation(self) -> tuple[np.ndarray, np.ndarray]:
        """``TwinPath.direct`` and ``slopes``; 0 but for blocks of one matrix behind a normalisation."""
        model, kernel = self.spec.model, self._theory.kernel
        pairs = len(pair_indices(kernel.shape[-1])[0])
        direct, slopes = np.zeros((len(kernel), pairs, 3)), np.zeros((len(kernel), pairs, 2))
        if model.block == "two_matrix" or model.of_the_paper:
            return direct, slopes
        engine = self._theory.engine
        assert isinstance(engine, BranchExpectations)
        series = replace(engine, inner=replace(engine.series, terms=max(engine.series.terms, TERMS)))
        basis = components(2, even_only=False)
        for begin in range(0, len(kernel), ROWS):
            rows = slice(begin, begin + ROWS)
            found = NormalisedSeries(series, kernel[rows], basis)
            direct[rows] = model.weight_variance * found.direct()
            slopes[rows] = model.weight_variance * found.slopes()
        return direct, slopes

    @property
    def start(self) -> np.ndarray:
        """(N, N) root of K^0, of the kind of ``TwinPath.root``."""
        return self._root(self.spec.kernel.array)

    def _root(self, matrix: np.ndarray) -> np.ndarray:
        return lower_root(matrix) if self.spec.model.block == "two_matrix" else symmetric_root(matrix)
