"""Where the G-only covariance equation fails on a reference, and why (docs/theory.md, section 8.1).

The reference is a simulated Sample or a better Theory. Its own V4 goes into the equation; what is left over is split
into source and transport error. The source of K1 is in eftcore.verdicts.sources, Wick orders are in
eftcore.verdicts.wick_orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from eftcore.errors import InputError
from eftcore.pairs import inputs_of, pair_names
from eftcore.results import Theory
from eftcore.specs import Numerics, PredictionSpec, only_of_the_paper
from eftcore.theory.closures.base import Ingredients
from eftcore.theory.closures.g_only import GOnly
from eftcore.theory.mean_field import choose_engine, mean_path
from eftcore.theory.together import alone

if TYPE_CHECKING:
    from eftcore.ensemble import Sample

PARTS = ("residual", "step", "source", "transport")
"""The residual and its three parts, residual = step + source + transport."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EquationResidual:
    """Residual of the G-only covariance equation on a reference, interval by interval (eq. 8.1, 8.5).

    I = R - 1 intervals between recorded layers, or fewer between chosen ones; every array but the first three is
    (I, P, P), per unit t.

    Attributes:
        depth: (I,) first layer of each interval.
        layers: (I,) number of layers in it.
        time: (I,) mean t of those layers; t of the first layer where recorded layers are consecutive.
        change: [V4(end) - V4(start)] / (t_end - t_start), from the reference.
        residual: change minus the paper's right-hand side chi V4 + V4 chi^T + Sigma(K0) on the reference's own V4.
        step: part that the paper's forward Euler step leaves out, epsilon^2 (chi V4 chi^T + Wishart(Q)).
        source: Sigma of the reference minus Sigma(K0), which is O(1/n); 0 for a Theory.
        transport: the rest of the residual, present because E[S | G] is not E2(G) (eq. 8.4).
        interpolation: (I,) estimated error (Frobenius) of the right-hand side's mean over the interval, which is taken
            to be linear between recorded layers; 0 where those are consecutive.
        standard_error: for each of "residual", "source", "transport", (I, P, P); empty for a deterministic theory.
    """

    depth: np.ndarray
    layers: np.ndarray
    time: np.ndarray
    change: np.ndarray
    residual: np.ndarray
    step: np.ndarray
    source: np.ndarray
    transport: np.ndarray
    interpolation: np.ndarray
    standard_error: dict[str, np.ndarray]

    def frame(self) -> pd.DataFrame:
        """One row per interval and component p <= q, written "00,01".

        Columns are change, residual, its parts and the standard errors.
        """
        pairs = self.change.shape[-1]
        names = pair_names(inputs_of(pairs))
        row, column = np.triu_indices(pairs)
        intervals = len(self.depth)
        columns: dict[str, object] = {
            name: np.repeat(getattr(self, name), len(row)) for name in ("depth", "layers", "time")
        }
        columns["component"] = [f"{names[p]},{names[q]}" for p, q in zip(row, column, strict=True)] * intervals
        for name in ("change", *PARTS):
            columns[name] = getattr(self, name)[:, row, column].ravel()
        for name in ("residual", "source", "transport"):
            noise = self.standard_error.get(name)
            blank = np.zeros(intervals * len(row))
            columns[f"{name}_se"] = blank if noise is None else noise[:, row, column].ravel()
        return pd.DataFrame(columns)

    def norms(self) -> pd.DataFrame:
        """One row per interval: Frobenius norms of change, residual, its parts, their noise ``_se``, and interpolation.

        ``relative`` is |residual| / |change|. The norm of a noisy matrix is biased upwards by its noise.
        """

        def size(values: np.ndarray) -> np.ndarray:
            norms: np.ndarray = np.sqrt((values**2).sum((1, 2)))
            return norms

        columns: dict[str, object] = {name: getattr(self, name) for name in ("depth", "layers", "time")}
        columns |= {name: size(getattr(self, name)) for name in ("change", *PARTS)}
        columns |= {f"{name}_se": size(noise) for name, noise in self.standard_error.items()}
        frame = pd.DataFrame({**columns, "interpolation": self.interpolation})
        frame["relative"] = frame["residual"] / frame["change"]
        return frame


def equation_residual(
    reference: Theory | Sample | Sequence[Sample],
    *,
    numerics: Numerics | None = None,
    between: Sequence[int] | None = None,
) -> EquationResidual:
    """Put a reference's V4 into the G-only equation and split what is left (eq. 8.1-8.6).

    Args:
        reference: a Theory with V4, a Sample, or several shards of one ensemble. With shards, standard errors come from
            the differences between shards. With one Sample they are upper bounds that hold whatever the correlation
            between layers, far above the true errors where recorded layers are close; prefer shards then.
        numerics: how chi, Sigma(K0) and Q are computed; the published rule reproduces the published residual.
        between: ascending recorded layers. The result then has means over the intervals between these layers instead of
            every recorded interval. The noise of the layers within an interval drops out of its change, and out of the
            bound on the error of the change.

    Raises InputError where the reference has no V4, has fewer than two recorded layers, or leaves gaps with fewer than
    three; and where the shards belong to different ensembles.

    >>> from eftcore import InputKernel, ResNet, predict
    >>> model = ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=20)
    >>> kernel = InputKernel.explicit([[1.0]])
    >>> own = equation_residual(predict(model, kernel, "g_only", depths=range(21)))
    >>> better = equation_residual(predict(model, kernel, "wick", order=12, depths=range(21)))
    >>> bool(abs(own.residual).max() < 1e-9), bool(abs(better.transport[-1]).max() > 1e-3)
    (True, True)
    """
    shards = list(reference) if isinstance(reference, Sequence) else [reference]
    first = shards[0]
    only_of_the_paper(first.spec.model)
    if any(shard.covariance is None for shard in shards):
        raise InputError("has no covariance V4", place="reference", remedy="use another closure")
    if any(shard.spec.digest != first.spec.digest for shard in shards):
        raise InputError(
            "its shards belong to different ensembles", place="reference", remedy="give shards of one ensemble"
        )
    equation = _Equation(first, numerics, between)
    parts = [equation.parts(shard) for shard in shards]
    weights = np.array([getattr(shard, "samples", 1) for shard in shards], dtype=float)
    weights /= weights.sum()
    value = {name: _average(weights, [part[name] for part in parts]) for name in parts[0]}
    covariance = _average(weights, [cast(np.ndarray, shard.covariance) for shard in shards])
    noise: dict[str, np.ndarray] = {}
    if len(shards) > 1:
        for name in ("residual", "source", "transport"):
            spread = _average(weights, [(part[name] - value[name]) ** 2 for part in parts])
            noise[name] = np.sqrt(spread / (len(shards) - 1))
    elif (error := first.covariance_se) is not None:
        own = first.increment_covariance_se
        noise = equation.noise_bound(error, np.zeros_like(error) if own is None else own)
    return EquationResidual(
        depth=equation.first_layers,
        layers=equation.lengths,
        time=equation.h * (equation.first_layers + (equation.lengths - 1) / 2),
        **value,
        interpolation=equation.interpolation(covariance),
        standard_error=noise,
    )


def _average(weights: np.ndarray, values: list[np.ndarray]) -> np.ndarray:
    return np.tensordot(weights, np.stack(values), axes=1)


class _Equation:
    """The G-only covariance equation along K0 at the recorded layers of a reference.

    Its I intervals lie between neighbouring recorded layers; the J intervals of the result join some of them.
    """

    def __init__(
        self, reference: Theory | Sample, numerics: Numerics | None, between: Sequence[int] | None = None
    ) -> None:
        self.depth = np.asarray(reference.depth)
        self.layers = np.diff(self.depth)
        gaps = bool((self.layers > 1).any())
        if len(self.depth) < 2 or (gaps and len(self.depth) < 3):
            raise InputError(
                "has too few recorded layers",
                place="reference",
                remedy="record at least two consecutive layers, or three, such as depths = range(0, 81, 8)",
            )
        self.ends = _positions(self.depth, between)
        self.first_layers = self.depth[self.ends[:-1]]
        self.lengths = np.diff(self.depth[self.ends])
        spec = reference.spec
        self.h = spec.model.epsilon**2
        self.closure, self.at, _ = equations_along(reference, numerics)
        self.continuous = isinstance(spec, PredictionSpec) and spec.continuous
        self.stepped = isinstance(spec, PredictionSpec) and spec.step == "euler"

    def parts(self, reference: Theory | Sample) -> dict[str, np.ndarray]:
        """change, residual and its parts, (J, P, P) each."""
        assert reference.covariance is not None
        v4 = reference.covariance
        change = np.diff(v4, axis=0) / (self.h * self.layers)[:, None, None]
        residual = change - self.average(self.transported(v4) + self.noise)
        second = np.stack([self.closure.second_order(at, {"V4": v})["V4"] for at, v in zip(self.rows, v4, strict=True)])
        step = np.zeros_like(change) if self.continuous or self.stepped else self.h * self.average(second)
        # the increment covariance of a Theory is Sigma(K0) up to its numerical error
        increment = None if isinstance(reference, Theory) else getattr(reference, "increment_covariance", None)
        source = np.zeros_like(change) if increment is None else self.average(increment - self.noise)
        found = {"change": change, "residual": residual, "step": step, "source": source}
        found["transport"] = residual - step - source
        return {name: self.gathered(values) for name, values in found.items()}

    def gathered(self, values: np.ndarray) -> np.ndarray:
        """(J, ...) means over the layers of each interval of the result, from the means (I, ...) of its parts."""
        weighted = values * self.layers.reshape(-1, *(1,) * (values.ndim - 1))
        sums = np.add.reduceat(weighted[: self.ends[-1]], self.ends[:-1], axis=0)
        means: np.ndarray = sums / self.lengths.reshape(-1, *(1,) * (values.ndim - 1))
        return means

    def transported(self, v4: np.ndarray, chi: np.ndarray | None = None) -> np.ndarray:
        """(R, P, P) chi V4 + V4 chi^T."""
        chi = self.at["chi"] if chi is None else chi
        return np.stack([self.closure.respond_both(g, v) for g, v in zip(chi, v4, strict=True)])

    @cached_property
    def noise(self) -> np.ndarray:
        """(R, P, P) Sigma(K0), the source of V4."""
        return np.stack([self.closure.noise(at) for at in self.rows])

    @cached_property
    def rows(self) -> list[Ingredients]:
        """The ingredients of the closure at each recorded layer."""
        return [{name: value[row] for name, value in self.at.items()} for row in range(len(self.depth))]

    def average(self, values: np.ndarray) -> np.ndarray:
        """(I, ...) means over each interval's layers of values (R, ...), taken as linear between them (eq. 8.2)."""
        weight = np.full(len(self.layers), 0.5) if self.continuous else (self.layers - 1) / (2 * self.layers)
        weight = weight.reshape(-1, *(1,) * (values.ndim - 1))
        averages: np.ndarray = (1 - weight) * values[:-1] + weight * values[1:]
        return averages

    def interpolation(self, v4: np.ndarray) -> np.ndarray:
        """(J,) size of the second-order term neglected by taking the right-hand side as linear (eq. 8.3)."""
        if not self.continuous and (self.layers == 1).all():
            return np.zeros(len(self.lengths))
        length = self.h * self.layers
        time = self.h * self.depth
        side = self.transported(v4) + self.noise
        slope = np.diff(side, axis=0) / np.diff(time)[:, None, None]
        bend = 2 * np.diff(slope, axis=0) / (time[2:] - time[:-2])[:, None, None]
        size = np.pad(np.sqrt((bend**2).sum((1, 2))), 1, mode="edge")
        shrink = 1.0 if self.continuous else 1 - 1 / self.layers**2
        return self.gathered(length**2 / 12 * shrink * np.maximum(size[:-1], size[1:]))

    def noise_bound(self, error: np.ndarray, source_error: np.ndarray) -> dict[str, np.ndarray]:
        """Upper bounds of the standard errors: absolute errors add up, whatever the correlations are (eq. 8.6)."""
        ends = (error[self.ends[:-1]] + error[self.ends[1:]]) / (self.h * self.lengths)[:, None, None]
        residual = ends + self.gathered(self.average(self.transported(error, np.abs(self.at["chi"]))))
        source = self.gathered(self.average(source_error))
        return {"residual": residual, "source": source, "transport": residual + source}


def _positions(depth: np.ndarray, between: Sequence[int] | None) -> np.ndarray:
    """Positions of the layers ``between`` among the recorded layers; all positions when None."""
    if between is None:
        return np.arange(len(depth))
    found = np.searchsorted(depth, between)
    if len(between) < 2 or (np.diff(between) <= 0).any() or not np.isin(between, depth).all():
        raise InputError("must be two or more recorded layers, ascending", place="between", value=list(between))
    return found


def equations_along(reference: Theory | Sample, numerics: Numerics | None) -> tuple[GOnly, Ingredients, np.ndarray]:
    """The G-only closure, its ingredients at the recorded layers (leading axis R), and K0 there, (R, N, N)."""
    spec = reference.spec
    start = spec.kernel.array
    engine = alone(choose_engine(spec.model, start, numerics or Numerics(), order=2))
    engine = engine.refined(nodes=True, terms=True) or engine
    if isinstance(spec, PredictionSpec) and spec.continuous:
        kernel = reference.mean
    else:
        kernel = mean_path(spec.model, start, engine).kernel[np.asarray(reference.depth)]
    closure = GOnly(spec.model, start, kernel[-1])
    return closure, closure.ingredients(kernel, engine), kernel
