"""What a check of an exact statement returns, and how means and samples become p-values (docs/theory.md, section 2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from eftcore.errors import InputError

if TYPE_CHECKING:
    from eftcore.ensemble import Sample

LEVEL = 1e-3
"""False-alarm rate at which a statistical check fails."""

ROUNDING = {"float32": 1e-6, "float64": 1e-9}
"""Relative difference that rounding may cause where nothing fluctuates, by the dtype of the networks' state."""

_COMPARED = {
    "mean": "K0",
    "second_moment": "U1",
    "covariance": "V4",
    "increment_covariance": "Sigma",
    "kappa3": "kappa3",
}
"""The attributes of a sample that ``same_law`` compares, each with the name of its quantity for ``Sample.widening``."""


@dataclass(frozen=True, kw_only=True)
class TheoremCheck:
    """The outcome of one check.

    Attributes:
        name: name of the statement that is checked.
        statement: what it says.
        statistic: what was measured.
        law: the statistic's expected law where the statement holds.
        p_value: probability of a statistic at least this large under that law; None for an identity.
        bound: largest value that rounding or the numerics' own error estimate allows; None for a statistical check.
        level: false-alarm rate.
    """

    name: str
    statement: str
    statistic: float
    law: str
    p_value: float | None = None
    bound: float | None = None
    level: float = LEVEL

    @property
    def passed(self) -> bool:
        """Whether p_value >= level or, without a p-value, statistic <= bound."""
        if self.p_value is not None:
            return self.p_value >= self.level
        return self.bound is not None and self.statistic <= self.bound


def theorem_table(checks: Iterable[TheoremCheck]) -> pd.DataFrame:
    """One row per check: name, statistic, law, p_value, bound, level, passed."""
    columns = ("name", "statistic", "law", "p_value", "bound", "level", "passed")
    return pd.DataFrame([[getattr(check, column) for column in columns] for check in checks], columns=list(columns))


def same_law(one: Sample, other: Sample, *, level: float = LEVEL) -> TheoremCheck:
    """Whether two independent samples agree in E[G], E[S], V4, Sigma and the third cumulant (eq. 2.8).

    The statistic is the largest |z| over all entries at all recorded layers, with Bonferroni's bound of its tail, which
    holds for any correlation. The z-scores are normal for many networks. For two samples of one size their skewness
    cancels, so the standard errors are used without the factor of eq. 7.14, which corrects for skewness. Raises
    InputError where the samples record different layers or numbers of inputs.

    >>> from eftcore import InputKernel, ResNet, simulate
    >>> model = ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=4)
    >>> kernel = InputKernel.explicit([[1.0]])
    >>> same_law(*(simulate(model, kernel, width=8, samples=500, shard=shard) for shard in (0, 1))).passed
    True
    """
    if (one.spec.depths, one.spec.kernel.n_inputs) != (other.spec.depths, other.spec.kernel.n_inputs):
        raise InputError("the samples record different layers or numbers of inputs", place="other")
    scores = []
    for quantity, name in _COMPARED.items():
        (a, a_error), (b, b_error) = (_distinct(x, quantity, name) for x in (one, other))
        error = np.hypot(np.hypot(a_error, b_error), ROUNDING["float32"] * np.abs(a))
        scores.append(in_errors(a - b, error))
    return largest_score("same law", "two samples have the same distribution", np.concatenate(scores), level=level)


def _distinct(sample: Sample, quantity: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Value and standard error, flattened, without entries that are equal by symmetry.

    The standard error is without the factor of eq. 7.14.
    """
    value = getattr(sample, quantity)
    error = getattr(sample, f"{quantity}_se") / sample.widening(name).factor.reshape(-1, *[1] * (value.ndim - 1))
    if value.ndim == 3:
        upper = np.triu_indices(value.shape[-1])
        value, error = value[:, upper[0], upper[1]], error[:, upper[0], upper[1]]
    return value.ravel(), error.ravel()


class MeanZero:
    """z-scores of quantities whose mean over networks is zero, from their first three power sums."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: np.ndarray | float = 0.0

    def add(self, values: np.ndarray) -> None:
        """(M, K): one row per network, each column in units of its own natural size."""
        self.count += len(values)
        self.sums = self.sums + np.stack([(values**k).sum(0) for k in (1, 2, 3)])

    def scores(self) -> np.ndarray:
        """(K,) Student statistics, their skewness removed by Hall's transformation (eq. 2.9).

        P. Hall, J. R. Statist. Soc. B 54 (1992) 221. The scores are normal up to O(1 / M). Without the transformation,
        products of Gaussian numbers would give far too many large scores.
        """
        mean, square, cube = np.asarray(self.sums) / self.count
        variance = np.maximum(square - mean**2, 0.0)
        third = cube - 3 * mean * square + 2 * mean**3
        rounding = ROUNDING["float64"] ** 2
        student = mean / np.sqrt(variance / (self.count - 1) + rounding)
        skewness = np.divide(third, variance**1.5, out=np.zeros_like(third), where=variance > rounding)
        small = skewness / self.count**0.5
        corrected: np.ndarray = student + small * (student**2 / 3 + 1 / 6) + small**2 * student**3 / 27
        return corrected


def in_errors(difference: np.ndarray, error: np.ndarray) -> np.ndarray:
    """difference / error; where there is no error, 0 if there is no difference and infinity if there is."""
    quotient: np.ndarray = np.divide(difference, error, out=np.where(difference == 0, 0.0, np.inf), where=error > 0)
    return quotient


def largest_score(
    name: str, statement: str, scores: np.ndarray, p_values: Iterable[float] = (), *, level: float
) -> TheoremCheck:
    """A check whose statistic is the largest |z|; ``p_values`` of further tests are turned into scores as well."""
    further = -ndtri(np.array(list(p_values), dtype=float) / 2)
    total = np.abs(np.concatenate([scores, further]))
    worst = float(total.max(initial=0.0))
    return TheoremCheck(
        name=name,
        statement=statement,
        statistic=worst,
        law=f"largest |z| of {len(total)} standard normal scores of any correlation",
        p_value=float(min(1.0, len(total) * 2 * ndtr(-worst))),
        level=level,
    )
