"""The answer of the first page: how deep, and how wide, a network can be trusted to which theory.

It follows from the predictions of eftcore.verdicts.design alone. Every bound counts the errors that the predictions
state, so that what they do not decide is said to be unknown.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd

import eftcore as eft
from eftcore.errors import EftError, NumericsWarning
from eftcore.quantities import QUANTITIES
from eftcore.results import Theory
from eftcore.theory.mean_field import shared_paths
from eftcore.verdicts.at_width import windows_at_width
from eftcore.verdicts.design import design_specs
from eftcore.verdicts.widths import widths_of
from eftcore.words import resolved_from

LEVEL = 0.95
"""Probability of the interval of one network's kernel."""

ROUNDING = 1e-10
"""A quantity below this share of the mean kernel is 0."""

THEORY_NAMES = {
    "mean": "infinite width",
    "g_only": "G-only",
    "sigma": "sigma",
    "exact": "the exact leading order",
}
"""Theories in words, the simplest first."""

MEANING = {
    "mean": "the kernel of infinitely wide networks",
    "g_only": "the published theory, which follows the kernel G of the neurons alone",
    "sigma": "its smallest extension, which follows the kernel of the activations σ(φ) too",
    "exact": "the exact leading order in 1/n, to a requested error",
}

QUANTITY_WORDS = {
    "V4": "the spread of the kernel from network to network",
    "K0": "the mean kernel",
    "K1": "the shift of the mean kernel by finite width",
}


def design_predictions(model: eft.ResNet, kernel: eft.InputKernel) -> Iterator[tuple[str, Theory | EftError]]:
    """The predictions of design_specs by name, each as soon as it is there, or the error that says why there is none.

    Where there is no next order in 1/n, the exact leading order follows without it, as "leading".
    """
    with shared_paths(), warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericsWarning)  # the errors themselves are counted
        for name, spec in design_specs(model, kernel).items():
            try:
                yield name, eft.predict_spec(spec)
            except EftError as error:
                yield name, error
                if spec.next_order:
                    yield "leading", eft.predict_spec(spec.model_copy(update={"next_order": False}))


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is known of one theory of the quantity, for one network and tolerance.

    Attributes:
        theory: a key of THEORY_NAMES.
        first, certain: recorded layers between which the error surely stays within the tolerance; None where nowhere.
        refuted: the first recorded layer where it surely does not; None where there is none.
        finite_width: whether what finite width adds is counted; else first, certain and refuted are those of n → ∞.
        least, most: width from which on the theory holds at every layer: surely not below ``least``, surely from
            ``most`` on. Infinite where no width does; NaN where it is not known.
    """

    theory: str
    first: int | None
    certain: int | None
    refuted: int | None
    finite_width: bool
    least: float
    most: float

    @property
    def name(self) -> str:
        return THEORY_NAMES[self.theory]


@dataclass(frozen=True, eq=False)
class Answer:
    """Everything that the page says about one network.

    Attributes:
        theories: predictions by name, among them "exact", or "leading" where there is no next order.
        width, tolerance, quantity: what was asked; tolerance is relative, quantity is "K0", "V4" or "K1".
    """

    theories: Mapping[str, Theory]
    width: int
    tolerance: float
    quantity: str

    @property
    def model(self) -> eft.ResNet:
        return self.reference.spec.model

    @cached_property
    def reference(self) -> Theory:
        """The exact leading order, with its next order if there is one."""
        return self.theories["exact"] if "exact" in self.theories else self.theories["leading"]

    @property
    def has_next(self) -> bool:
        """Whether the next order in 1/n is there."""
        return "exact" in self.theories

    @cached_property
    def candidates(self) -> dict[str, Theory]:
        """Theories of the quantity by their key of THEORY_NAMES, the simplest first."""
        if self.quantity == "K0":
            return {"mean": self.reference}
        named = {name: theory for name, theory in self.theories.items() if name not in ("exact", "leading")}
        return {**named, "exact": self.reference}

    @cached_property
    def judged(self) -> tuple[Judged, ...]:
        """What is known of each theory, the simplest first."""
        return tuple(self._judge(name, theory) for name, theory in self.candidates.items())

    @cached_property
    def best(self) -> Judged | None:
        """The simplest theory among those that surely hold deepest at this width; None where none surely does."""
        sure = [each for each in self.judged if each.certain is not None and each.finite_width]
        return max(sure, key=lambda each: each.certain or 0, default=None)

    @property
    def next_error(self) -> float | None:
        """Relative error of the coefficient of 1/n of the quantity; None where it is not known."""
        name = QUANTITIES[self.quantity].next_order
        return self.reference.relative_error(name) if name and (self.has_next or self.quantity == "K0") else None

    @property
    def error(self) -> float:
        """Relative error of the quantity in the exact leading order: numerics, and what its series leaves out."""
        return _error(self.reference, self.quantity)

    @property
    def partial(self) -> bool:
        """Whether the coefficient of 1/n is known for some entries only, those of few enough inputs."""
        values = QUANTITIES[self.quantity].next_of(self.reference)
        return values is not None and bool(np.isnan(values[-1]).any() and not np.isnan(values[-1]).all())

    @property
    def vanishes(self) -> bool:
        """Whether the quantity is 0 but for rounding, as K1 is where every layer adds the same to the kernel."""
        values = QUANTITIES[self.quantity].of(self.reference)
        assert values is not None
        return float(np.abs(values).max()) <= ROUNDING * float(np.abs(self.reference.mean).max())

    def layer_at(self, time: float) -> int:
        """The recorded layer at this time."""
        return int(self.reference.depth[np.abs(self.reference.time - time).argmin()])

    def _judge(self, name: str, theory: Theory) -> Judged:
        windows = windows_at_width(theory, self.reference, self.width, [self.tolerance])
        window = windows[windows["quantity"] == self.quantity].iloc[0]
        known = {end: not np.isnan(window[end]) for end in ("certified_until", "refuted_from")}
        start = resolved_from({**window, "total_time": self.model.total_time})
        least, most = self._needed(theory)
        return Judged(
            theory=name,
            first=self.layer_at(start) if known["certified_until"] else None,
            certain=self.layer_at(window["certified_until"]) if known["certified_until"] else None,
            refuted=self.layer_at(window["refuted_from"]) if known["refuted_from"] else None,
            finite_width=bool(window["finite_width"]),
            least=least,
            most=most,
        )

    def _needed(self, theory: Theory) -> tuple[float, float]:
        """Bounds of the width from which on a theory holds at every layer."""
        if not self.has_next:
            return np.nan, np.nan
        widths = self.widths(theory)
        widths = widths[widths["depth"] > 0]
        least, most = widths["width_low"].max(skipna=False), widths["width_high"].max(skipna=False)
        return float(least), float(most)

    def widths(self, theory: Theory) -> pd.DataFrame:
        """The rows of width_bounds of a theory, for the quantity and the tolerance."""
        return width_bounds(theory, self.reference, self.quantity, self.tolerance)

    @cached_property
    def interval(self) -> tuple[float, float, bool] | None:
        """Where the first input's kernel of one network lies at the last layer with probability LEVEL.

        With whether the law was measured for networks like this one; None where it is not known.
        """
        if not self.has_next:
            return None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", eft.LawWarning)
            try:
                low, high = eft.kernel_law(self.reference, self.width).entry(0).interval(LEVEL)
            except EftError:
                return None
        return low, high, not caught


@lru_cache(maxsize=64)
def width_bounds(theory: Theory, reference: Theory, quantity: str, tolerance: float) -> pd.DataFrame:
    """A row per recorded layer: depth, time, and width_low and width_high, the bounds of n* there. Not to be changed.

    They are infinite where no width is enough, and NaN where it is not known. What the errors of the two theories may
    hide counts against the tolerance in one, and for it in the other. ``reference`` has the next order.
    """
    doubt = sum(_error(each, quantity) for each in {theory, reference})
    strict, lax = tolerance - doubt, min(tolerance + doubt, 0.999)
    if not strict > 0:
        rows = _of(widths_of(theory, reference, [lax]), quantity)
        return rows[["depth", "time"]].assign(width_low=np.nan, width_high=np.nan)
    rows = widths_of(theory, reference, [strict, lax])
    surely, perhaps = (_of(rows[rows["tolerance"] == value], quantity) for value in (strict, lax))
    low = np.where(perhaps["status"] == "never", np.inf, perhaps["width_low"])
    high = np.where(perhaps["status"] == "never", np.inf, surely["width_high"])
    return surely[["depth", "time"]].assign(
        width_low=np.where(surely["status"] == "unknown", np.nan, low),
        width_high=np.where(surely["status"] == "never", np.where(np.isinf(low), np.inf, np.nan), high),
    )


def _error(theory: Theory, quantity: str) -> float:
    """Relative error that a theory states of a quantity; infinite where it states none."""
    found = theory.relative_error(quantity)
    return np.inf if found is None else found


def _of(rows: pd.DataFrame, quantity: str) -> pd.DataFrame:
    return rows[rows["quantity"] == quantity].reset_index(drop=True)


def plane_frame(answer: Answer) -> pd.DataFrame:
    """n* over depth of each theory of the quantity: columns theory, name, layer, time, low, high; empty if unknown."""
    if not answer.has_next:
        return pd.DataFrame(columns=["theory", "name", "layer", "time", "low", "high"])
    frames = [
        answer.widths(theory)
        .rename(columns={"depth": "layer", "width_low": "low", "width_high": "high"})
        .assign(theory=name, name=THEORY_NAMES[name])
        for name, theory in answer.candidates.items()
    ]
    return pd.concat(frames, ignore_index=True)
