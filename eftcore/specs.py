"""What to compute: validated, frozen descriptions, and the digest that is a result's identity.

A result's identity is the sha256 of the canonical JSON of its spec (architecture: "Identity, caching,
resume"). Time is ``t = epsilon**2 * layer`` throughout. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import hashlib
import json
import math
import numbers
from collections.abc import Iterable
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from eftcore.activations import get_activation
from eftcore.errors import InputError, input_error, within
from eftcore.inputs.fields import Finite, Label, Whole
from eftcore.inputs.sizes import DEEPEST, MOST_INPUTS, check_epsilon, check_inputs, check_result
from eftcore.inputs.tables import real_table

ALGORITHM_VERSION = {"prediction": 3, "simulation": 3}
"""Bumped by hand whenever the same spec would give different numbers."""

CLOSURES = ("mean", "source_only", "g_only", "sigma", "wick", "particle", "exact")
Closure = Literal["mean", "source_only", "g_only", "sigma", "wick", "particle", "exact"]

_LARGEST = 1e150
"""Largest entry of a kernel: V4 and its sums hold squares of entries, and float64 ends near 1e308."""

_SMALLEST_SQUARE = 1e-300

STUDY_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
"""Pattern of a study's name, of at most 80 characters; names of files and pages are made of it."""

SYMMETRY_RTOL = 1e-10
PSD_RTOL = 1e-10


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, shortest round-trip floats, no spaces, no NaN.

    >>> canonical_json({"b": 1.0, "a": [0.1, -0.0]})
    '{"a":[0.1,0.0],"b":1.0}'
    """
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, float):
        return value + 0.0
    return value


def digest_of(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class Spec(BaseModel):
    """Frozen, keyword-only, unknown fields refused. Raises InputError instead of pydantic's error."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise input_error(error, fields) from None

    def identity(self) -> dict[str, Any]:
        """The fields that decide the numbers, JSON-able."""
        return self.model_dump(mode="json")


class ResNet(Spec):
    """A pre-activation ResNet at initialisation.

    phi^{l+1} = phi^l + epsilon (W sigma(phi^l) + b),  W_ij ~ N(0, weight_variance / n),
    b_i ~ N(0, bias_variance); layers l = 0 .. depth (eq. 1.1).

    >>> ResNet(activation="tanh", weight_variance=2.0, epsilon=0.05, depth=800).total_time
    2.0
    """

    activation: str = Field(description="activation by name, with parameters as in 'softplus(beta=2)'")
    weight_variance: Finite = Field(gt=0, description="C_W, variance of the weights times the width")
    bias_variance: Finite = Field(default=0.0, ge=0, description="C_b, variance of the biases")
    epsilon: Finite = Field(gt=0, description="size of the residual branch")
    depth: Whole = Field(ge=1, le=DEEPEST, description="number of layers L")

    @field_validator("activation")
    @classmethod
    def _known_activation(cls, name: str) -> str:
        return get_activation(name).name

    @field_validator("epsilon")
    @classmethod
    def _square_is_a_number(cls, epsilon: float) -> float:
        return check_epsilon(epsilon)

    @property
    def total_time(self) -> float:
        """T = epsilon^2 L (eq. 1.2; rounded to 12 digits, so that 0.05^2 * 800 reads 2.0)."""
        return round(self.epsilon**2 * self.depth, 12)

    def identity(self) -> dict[str, Any]:
        return {**self.model_dump(mode="json"), "activation": get_activation(self.activation).identity()}


class InputKernel(Spec):
    """The kernel K^0 of the N inputs at layer 0: symmetric positive semi-definite, N x N.

    Singular kernels (duplicated inputs, a zero input, rank below N) are legal.
    """

    matrix: tuple[tuple[Finite, ...], ...]
    label: Label = Field(default="", description="shown to people; not part of the identity")

    @field_validator("matrix")
    @classmethod
    def _symmetric_psd(cls, rows: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        if not rows:
            raise InputError("has no rows", remedy="give N rows of N numbers")
        for number, row in enumerate(rows):
            if len(row) != len(rows):
                raise InputError(
                    f"has {len(row)} numbers, where a square matrix of {len(rows)} rows has {len(rows)}",
                    place=number,
                    value=list(row),
                    remedy="give N rows of N numbers",
                )
        check_inputs(len(rows))
        k = np.array(rows)
        scale = float(np.abs(k).max())
        if scale > _LARGEST:
            raise InputError(
                f"has entries up to {scale:.3g}", remedy="rescale the inputs so that they stay below 1e150"
            )
        skew = float(np.abs(k - k.T).max())
        if skew > SYMMETRY_RTOL * scale:
            raise InputError(f"is not symmetric (largest |K - K^T| is {skew:.3g})", remedy="give (K + K^T) / 2")
        lowest = float(np.linalg.eigvalsh((k + k.T) / 2)[0])
        if lowest < -PSD_RTOL * scale * len(rows):
            raise InputError(
                f"is not positive semi-definite (lowest eigenvalue {lowest:.6g})",
                remedy="take X X^T of some data X",
            )
        return tuple(tuple(row) for row in ((k + k.T) / 2).tolist())

    @classmethod
    def equicorrelated(cls, *, n_inputs: int, variance: float, correlation: float) -> InputKernel:
        """variance [(1 - correlation) I + correlation 1 1^T].

        >>> InputKernel.equicorrelated(n_inputs=2, variance=2.0, correlation=0.3).matrix
        ((2.0, 0.6), (0.6, 2.0))
        """
        if not _is_real(n_inputs) or not 1 <= n_inputs <= MOST_INPUTS or int(n_inputs) != n_inputs:
            raise InputError(f"must be a whole number from 1 to {MOST_INPUTS}", place="n_inputs", value=n_inputs)
        n_inputs = int(n_inputs)
        if not (_is_real(variance) and variance >= 0):
            raise InputError("must be a finite number >= 0", place="variance", value=variance)
        lowest = -1.0 / (n_inputs - 1) if n_inputs > 1 else -1.0
        if not (_is_real(correlation) and lowest - 1e-12 <= correlation <= 1.0):
            raise InputError(
                f"must lie between {lowest:.6g} and 1 for {n_inputs} inputs", place="correlation", value=correlation
            )
        k = variance * ((1 - correlation) * np.eye(n_inputs) + correlation * np.ones((n_inputs, n_inputs)))
        np.fill_diagonal(k, variance)
        return cls(matrix=k.tolist(), label=f"equicorrelated(N={n_inputs}, K={variance:g}, rho={correlation:g})")

    @classmethod
    def explicit(cls, matrix: Any, *, label: str = "explicit") -> InputKernel:
        """Any symmetric positive semi-definite N x N matrix."""
        with within("matrix"):
            table = real_table(matrix)
        return cls(matrix=table.tolist(), label=label)

    @classmethod
    def from_data(cls, data: Any, *, label: str = "data") -> InputKernel:
        """X X^T / features of real inputs, one row each.

        Raises InputError where ``data`` is not a table of real numbers (eftcore.inputs.tables), and where the mean
        square of an input leaves the range of double precision, so that its kernel would be infinite or zero.

        >>> InputKernel.from_data([[1.0, 1.0], [1.0, -1.0]]).matrix
        ((1.0, 0.0), (0.0, 1.0))
        """
        with within("data"):
            x = real_table(data)
            if len(x) > MOST_INPUTS:
                raise InputError(
                    f"has {len(x)} rows: a kernel may have {MOST_INPUTS} inputs", remedy="choose fewer rows"
                )
            check_squares(x)
        return cls(matrix=(x @ x.T / x.shape[1]).tolist(), label=label)

    @property
    def array(self) -> np.ndarray:
        """(N, N) float64 copy of the matrix."""
        return np.array(self.matrix)

    @property
    def n_inputs(self) -> int:
        """N, the number of inputs."""
        return len(self.matrix)

    @property
    def variance(self) -> float:
        """Mean diagonal entry."""
        return float(np.mean(np.diag(self.array)))

    @property
    def correlation(self) -> float | None:
        """Mean off-diagonal correlation; None for one input or where a variance is zero."""
        k = self.array
        d = np.diag(k)
        if len(k) < 2 or (d <= 0).any():
            return None
        upper = np.triu_indices(len(k), 1)
        return float(np.mean((k / np.sqrt(np.outer(d, d)))[upper]))

    def identity(self) -> dict[str, Any]:
        return {"matrix": self.model_dump(mode="json")["matrix"]}


def _is_real(value: Any) -> bool:
    """Whether this is one finite real number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def check_squares(x: np.ndarray) -> None:
    """Raises InputError unless the mean square of every row of x (N, features) is zero, or within 1e-300 .. 1e150.

    A kernel made of squares that overflow or underflow would be infinite or zero, and scaling it would hide that.
    """
    largest = np.abs(x).max(axis=1)
    with np.errstate(over="ignore", under="ignore"):
        squares = np.mean(x * x, axis=1)
    wrong = np.flatnonzero((largest > 0) & ~((squares >= _SMALLEST_SQUARE) & (squares <= _LARGEST)))
    if wrong.size:
        row = int(wrong[0])
        what = "overflow" if largest[row] > 1 else "vanish"
        raise InputError(
            f"has values up to {largest[row]:.3g}, whose squares {what} in double precision",
            place=row,
            remedy="rescale the data, for example to values of order 1",
        )


class Numerics(Spec):
    """How the Gaussian integrals are done.

    "auto" uses closed forms where they exist and otherwise a rule that refines itself to ``rtol``.
    "gauss_hermite" with ``nodes`` is the fixed tensor rule of the published figures (32 nodes), kept to reproduce them.
    """

    quadrature: Literal["auto", "gauss_hermite"] = "auto"
    nodes: Whole | None = Field(default=None, ge=2, le=500, description="nodes per dimension, for gauss_hermite")
    rtol: Finite = Field(default=1e-9, gt=1e-15, lt=1, description="requested relative error")

    @model_validator(mode="after")
    def _nodes_go_with_gauss_hermite(self) -> Numerics:
        if (self.quadrature == "gauss_hermite") != (self.nodes is not None):
            raise InputError(
                "goes with quadrature = 'gauss_hermite', and only with it",
                place="nodes",
                value=self.nodes,
                remedy="for example nodes = 32",
            )
        return self


def default_depths(depth: int, count: int = 100) -> tuple[int, ...]:
    """About ``count`` recorded layers, evenly spaced, including 0 and ``depth``.

    >>> default_depths(800)[:3], len(default_depths(800)), default_depths(3)
    ((0, 8, 16), 101, (0, 1, 2, 3))
    """
    return tuple(int(layer) for layer in np.unique(np.round(np.linspace(0, depth, min(count, depth) + 1))))


def check_depths(depths: Iterable[int] | None, depth: int) -> tuple[int, ...]:
    """Recorded layers, sorted and unique; default_depths when None. Raises InputError for one outside 0 .. depth.

    The error has no place: the caller knows how the layers are called.
    """
    if depths is None:
        return default_depths(depth)
    chosen = sorted(set(depths))
    if not chosen or any(isinstance(x, bool) or int(x) != x or not 0 <= x <= depth for x in chosen):
        raise InputError(f"must be whole layer numbers between 0 and depth = {depth}", value=list(depths))
    return tuple(int(layer) for layer in chosen)


class _Recorded(Spec):
    algorithm: ClassVar[str]

    model: ResNet
    kernel: InputKernel
    depths: tuple[Whole, ...] | None = None
    version: Whole = Field(
        default=0, validate_default=True, ge=0, description="version of the algorithm; 0 stands for the present one"
    )

    @field_validator("version")
    @classmethod
    def _known_version(cls, version: int) -> int:
        newest = ALGORITHM_VERSION[cls.algorithm]
        if version > newest:
            raise InputError(f"this program knows 1 to {newest}", remedy="update the program")
        return version or newest

    @model_validator(mode="after")
    def _depths_within(self) -> _Recorded:
        with within("depths"):
            depths = check_depths(self.depths, self.model.depth)
        shape = {"depth": self.model.depth, "recorded": len(depths), "n_inputs": self.kernel.n_inputs}
        check_result(**shape, covariance=self.has_covariance)
        object.__setattr__(self, "depths", depths)
        return self

    @property
    def has_covariance(self) -> bool:
        """Whether V4 is part of the result."""
        return True

    @property
    def time(self) -> np.ndarray:
        """(R,) t = epsilon^2 * recorded layer."""
        assert self.depths is not None
        return self.model.epsilon**2 * np.array(self.depths, dtype=float)

    def identity(self) -> dict[str, Any]:
        own = self.model_dump(mode="json", exclude={"model", "kernel", "version"})
        return {**own, "model": self.model.identity(), "kernel": self.kernel.identity()}

    @property
    def superseded(self) -> bool:
        """Whether this describes a result of an older version of the algorithm, which this program cannot compute."""
        return self.version < ALGORITHM_VERSION[self.algorithm]

    def of_version(self, version: int) -> Self:
        """This spec for another version of the algorithm, whose result has another digest.

        >>> spec = PredictionSpec(model=ResNet(activation="tanh", weight_variance=1.0, epsilon=0.1, depth=1),
        ...                       kernel=InputKernel.explicit([[1.0]]))
        >>> older = spec.of_version(1)
        >>> older.superseded, older.digest == spec.digest, older.of_version(spec.version).digest == spec.digest
        (True, False, True)
        """
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | {"version": version})


def usual_step(closure: str) -> Literal["euler", "exact"]:
    """The step by which a closure goes from layer to layer unless the caller chooses one."""
    return "exact" if closure in ("wick", "particle", "exact") else "euler"


class PredictionSpec(_Recorded):
    """One theory prediction.

    ``order`` belongs to the wick closure alone: the highest Wick order, or "auto" to raise it until V4 and K1 change by
    less than ``truncation`` (relative), which the exact closure has too. ``step`` is "euler", forward Euler in t as in
    the paper, or "exact", every power of epsilon; default: "exact" for wick and exact, else "euler". ``continuous``
    takes the limit epsilon -> 0 at fixed t instead of stepping layer by layer.
    """

    algorithm: ClassVar[str] = "prediction"

    closure: Closure = "g_only"
    order: Whole | Literal["auto"] | None = None
    truncation: Finite | None = Field(default=None, gt=0, lt=1)
    step: Literal["euler", "exact"] | None = None
    continuous: bool = False
    numerics: Numerics = Numerics()

    @model_validator(mode="after")
    def _order_goes_with_wick(self) -> PredictionSpec:
        if self.closure == "wick" and self.order is None:
            object.__setattr__(self, "order", 24)
        if self.closure != "wick" and self.order is not None:
            raise InputError(
                "belongs to closure = 'wick'",
                place="order",
                value=self.order,
                remedy=f"leave it out for {self.closure!r}",
            )
        if isinstance(self.order, int) and not 2 <= self.order <= 120:
            raise InputError("must lie between 2 and 120, or be 'auto'", place="order", value=self.order)
        truncated = self.order == "auto" or self.closure == "exact"
        if self.truncation is not None and not truncated:
            raise InputError(
                "goes with order = 'auto' and closure = 'exact'",
                place="truncation",
                value=self.truncation,
                remedy="leave it out otherwise",
            )
        if truncated and self.truncation is None:
            object.__setattr__(self, "truncation", 1e-3)
        if self.closure == "exact" and self.step == "euler":
            raise InputError(
                "leaves out powers of epsilon",
                place="step",
                value=self.step,
                remedy="leave it out for closure = 'exact'",
            )
        if self.closure == "exact" and self.numerics.quadrature == "gauss_hermite":
            raise InputError(
                "is not exact with a fixed rule",
                place="closure",
                value=self.closure,
                remedy="leave out numerics.quadrature",
            )
        if self.closure == "particle" and (self.continuous or self.step == "euler"):
            raise InputError(
                "follows the network layer by layer",
                place="closure",
                value=self.closure,
                remedy="leave out continuous and step",
            )
        if self.continuous and self.step is not None:
            raise InputError("does not go with continuous = true", place="step", value=self.step, remedy="leave it out")
        if not self.continuous and self.step is None:
            object.__setattr__(self, "step", usual_step(self.closure))
        return self

    @property
    def has_covariance(self) -> bool:
        return self.closure != "mean"

    @cached_property
    def digest(self) -> str:
        """Identity of the prediction."""
        return digest_of({"prediction": self.identity(), "version": self.version})


class EnsembleSpec(_Recorded):
    """One ensemble of networks of one width. The number of networks is not part of it: shards are added up."""

    algorithm: ClassVar[str] = "simulation"

    width: Whole = Field(ge=1, le=1_000_000, description="neurons n")
    seed: Whole = Field(default=0, ge=0, lt=2**63)
    estimator: Literal["plain", "paired"] = "paired"
    sampler: Literal["block", "weights"] = "block"
    dtype: Literal["float32", "float64"] = "float32"

    @cached_property
    def digest(self) -> str:
        """Identity of the ensemble; with a shard index it fixes the random stream."""
        return digest_of({"ensemble": self.identity(), "version": self.version})


class Precision(Spec):
    """How precise a simulation shall be: a bound on the standard error of one quantity, in place of a sample count.

    The error at one depth is sqrt(sum se^2) over pair space, as in eftcore.compare; the largest error over recorded
    depths has to meet the bound. ``absolute`` bounds the error itself; ``relative`` bounds the error divided by the
    Frobenius norm of the quantity at that depth, or, for K1 and U1, which start at 0, by the largest such norm over
    depth. No more than ``max_samples`` networks are simulated, whether or not the bound is met.

    >>> str(Precision(quantity="V4", relative=0.01))
    'V4 to 1 % (at most 1000000 networks)'
    """

    quantity: Literal["K0", "V4", "K1", "U1"]
    relative: Finite | None = Field(default=None, gt=0, lt=1)
    absolute: Finite | None = Field(default=None, gt=0)
    max_samples: Whole = Field(default=1_000_000, ge=2, description="networks after which to stop in any case")

    @model_validator(mode="after")
    def _one_bound(self) -> Precision:
        if (self.relative is None) == (self.absolute is None):
            raise InputError(
                "one of two is needed",
                place="relative",
                remedy="give either relative (such as 0.01) or absolute, and not both",
            )
        return self

    @property
    def bound(self) -> float:
        """The largest standard error allowed."""
        bound = self.relative if self.absolute is None else self.absolute
        assert bound is not None
        return bound

    def shown(self, error: float) -> str:
        """A standard error as text, in the units of the bound: a number or a percentage."""
        return f"{error:.3g}" if self.relative is None else f"{100 * error:.3g} %"

    def __str__(self) -> str:
        return f"{self.quantity} to {self.shown(self.bound)} (at most {self.max_samples} networks)"
