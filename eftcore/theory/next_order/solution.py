"""D, K2 and the third cumulant of the kernel over depth: the next order in 1/n (docs/theory.md, section 10).

What belongs to some of the inputs does not depend on the others, so that every entry is solved for its own one to four
inputs. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from scipy.interpolate import make_interp_spline

from eftcore.activations import get_activation
from eftcore.errors import InputError
from eftcore.gaussian.branch import hidden_kernel
from eftcore.gaussian.fourier import is_bounded
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.gaussian.normalised_series import inner_engine
from eftcore.gaussian.pair_moments import Expectations
from eftcore.inputs.kernel import InputKernel
from eftcore.pairs import pair_indices, pair_table, to_pairs
from eftcore.specs import Numerics, PredictionSpec, ResNet
from eftcore.theory.mean_field import choose_engine, mean_path
from eftcore.theory.next_order import adapted_expansion, expansion, markov
from eftcore.theory.next_order.adapted import adapted_functions
from eftcore.theory.next_order.curvature import SHIFTS
from eftcore.theory.next_order.wick_powers import WickPowers, followed_powers, only_even
from eftcore.theory.solving import solve
from eftcore.theory.together import alone

MOST_INPUTS = 8
"""Most inputs of a prediction of the next order."""

COMPLETE = 4
"""Up to this many inputs all entries are found; with more, those that belong to at most two inputs."""

MOST_FUNCTIONS = 90
"""Largest number of Wick powers that is tried: third cumulants of M functions are M^3 numbers in each layer."""

MOST_ADAPTED = 2
"""Most inputs for which adapted functions are used: grids of three and more dimensions have too many points."""

SETS = ((17, 1e-2), (20, 3e-3), (24, 1e-3), (28, 3e-4), (34, 1e-4), (40, 3e-5), (48, 1e-5), (56, 3e-6))
"""Longest waves, in units of pi / L, and tolerances of the sets of adapted functions that are tried in turn."""

COARSENESS = {"D": 0.1, "K2": 2.0, "T": 0.01}
"""Relative errors of the three quantities per relative size of the largest combination that is left out, as measured:
two sets of adapted functions in a row may lack the same one."""

PROBES = 6
"""Number of depths whose kernels say what functions are needed."""

HIGHEST = (4, 6, 8, 12, 18, 28, 40)
"""Highest Wick orders that are tried in turn: each half as large again, so that an error which falls as the inverse
square of the order, as at a kink, is smaller than the last change."""

DOUBT = 3.0
"""Errors of Wick powers in units of the last change: it is small by chance where a divergent series turns back."""

BEST_FOR_BOUNDED, BEST_FOR_NORMALISED = 6, 12
"""The Wick order after which D of a bounded activation gets worse, since the series diverges: without adapted
functions, and behind a normalisation, whose inputs have variance 1."""

KNOWN_K2 = 0.1
"""Relative error of K2 at which no larger set of functions is tried, if D is known as well as wanted."""

LAYERS = (16, 32, 48, 64, 80, 96, 128, 192, 256, 384, 512)
"""Depths of the networks from which deeper ones, of the same total time, are extrapolated (eq. 10.6)."""

DIRECT = 128
"""Networks of at most this many layers are solved layer by layer."""

GRID = 16
"""Number of intervals in t at whose ends deep networks are extrapolated; quintic splines lie between them."""

CHAIN_RTOL = 1e-6
"""Relative accuracy to which the moments of the Markov chain of two matrices are solved, if possible."""

USELESS = 0.5
"""Relative error of D from which on entries of the next order are left out, and of K2 from which on it alone is."""

VANISHING = 1e-4
"""Errors of a K2 that vanishes are relative to this times |D| / |K0|."""


@dataclass(frozen=True, eq=False)
class NextOrder:
    """Coefficients of the next order at R depths, NaN for entries of too many inputs.

    Attributes:
        leading: (R, P, P) V4 from the same functions.
        covariance: (R, P, P) D: V4(n) = V4 + D/n + O(1/n^2).
        correction: (R, P) K2: E[G] = K0 + K1/n + K2/n^2 + O(1/n^3).
        third: (R, P, P, P) third cumulants of the kernel times n^2, as n -> infinity.
        error: relative error of D, K2 and T from functions left out and from the extrapolation in depth, of those of
            which some entries are known.
        details: which functions were used, JSON-able.
    """

    leading: np.ndarray
    covariance: np.ndarray
    correction: np.ndarray
    third: np.ndarray
    error: dict[str, float] = field(default_factory=dict)
    details: dict[str, object] = field(default_factory=dict)

    def parts(self) -> dict[str, np.ndarray]:
        """The arrays by the names of their quantities."""
        return {"V4": self.leading, "D": self.covariance, "K2": self.correction, "T": self.third}

    @classmethod
    def of(cls, parts: dict[str, np.ndarray]) -> NextOrder:
        """The inverse of ``parts``, without errors."""
        return cls(leading=parts["V4"], covariance=parts["D"], correction=parts["K2"], third=parts["T"])


@dataclass(frozen=True, eq=False)
class _Functions:
    """A set of functions whose means are followed.

    Attributes:
        name, size: what they are, and how many.
        through: of the mean path (L + 1, N, N), h = epsilon^2 and the layers that are wanted, to ``NextOrder.parts``.
        left_out: the largest share of the variance of sigma_a sigma_b that is not in them.
        coarseness: what their coarseness adds to the errors of D, K2 and T at least.
        doubt: the error as a multiple of the change from the set before.
    """

    name: str
    size: int
    through: Callable[[np.ndarray, float, np.ndarray], dict[str, np.ndarray]]
    left_out: Callable[[], float]
    coarseness: dict[str, float] = field(default_factory=dict)
    doubt: float = 1.0

    def error(self, change: dict[str, float]) -> dict[str, float]:
        """Relative errors of D, K2 and T, from their changes from the set before."""
        return {name: self.doubt * value + self.coarseness.get(name, 0.0) for name, value in change.items()}


def next_order(spec: PredictionSpec, leading: np.ndarray) -> NextOrder:
    """The next order of the exact closure at the recorded depths of ``spec`` (eq. 10.3).

    ``leading`` (R, P, P) is the exact V4. By how much the functions that are followed miss it, and the share of the
    variance of sigma sigma^T that they leave out, are part of the error beside the change from fewer functions.
    Entries whose D does not converge are NaN, and so is their K2 where it alone does not. Raises InputError for more
    than MOST_INPUTS inputs, and where none converges.
    """
    kernel = spec.kernel.array
    inputs = len(kernel)
    if inputs > MOST_INPUTS:
        raise InputError(
            f"the next order is found for at most {MOST_INPUTS} inputs",
            place="kernel",
            remedy="give fewer inputs, such as the pair of interest",
        )
    kept, copy_of, sign = _copies(spec)
    first, second = pair_indices(inputs)
    p = pair_table(len(kept))[copy_of[first], copy_of[second]]
    s = sign[first] * sign[second]
    one = pair_table(inputs)[kept[pair_indices(len(kept))[0]], kept[pair_indices(len(kept))[1]]]
    found = _of_different(spec, kernel[np.ix_(kept, kept)], leading[:, one[:, None], one])
    return NextOrder(
        leading,
        found.covariance[:, p[:, None], p] * np.outer(s, s),
        found.correction[:, p] * s,
        found.third[:, p[:, None, None], p[:, None], p] * np.einsum("p,q,r->pqr", s, s, s),
        found.error,
        found.details,
    )


def _copies(spec: PredictionSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inputs of which no earlier one is a copy, of which of these each input is a copy, and with which sign.

    Equal inputs stay equal at all layers, and opposite ones opposite where sigma is odd and there are no biases.
    """
    kernel = spec.kernel.array
    odd = get_activation(spec.model.activation).parity == "odd" and spec.model.bias_variance == 0
    kept: list[int] = []
    copy_of, sign = [], []
    for b in range(len(kernel)):
        for position, a in enumerate(kept):
            c = np.sign(kernel[a, b])
            same = kernel[a, a] == kernel[b, b] == abs(kernel[a, b])
            if same and (c >= 0 or odd):
                copy_of.append(position)
                sign.append(1.0 if c >= 0 else -1.0)
                break
        else:
            copy_of.append(len(kept))
            sign.append(1.0)
            kept.append(b)
    return np.array(kept), np.array(copy_of), np.array(sign)


def _of_different(spec: PredictionSpec, kernel: np.ndarray, leading: np.ndarray) -> NextOrder:
    """The next order of inputs (N, N) of which none is a copy of another."""
    inputs = len(kernel)
    pairs, depths = inputs * (inputs + 1) // 2, len(spec.time)
    parts = {
        "V4": leading,
        "D": np.full((depths, pairs, pairs), np.nan),
        "K2": np.full((depths, pairs), np.nan),
        "T": np.full((depths, pairs, pairs, pairs), np.nan),
    }
    error: dict[str, float] = {}
    details: dict[str, object] = {}
    known: dict[bytes, NextOrder | None] = {}
    # fewer inputs last: one input alone has the best functions
    complete = markov.MOST_INPUTS if spec.model.block == "two_matrix" else COMPLETE
    for size in range(inputs if inputs <= complete else 2, 0, -1):
        for chosen in itertools.combinations(range(inputs), size):
            own = kernel[np.ix_(chosen, chosen)]
            a, b = pair_indices(size)
            p = pair_table(inputs)[np.array(chosen)[a], np.array(chosen)[b]]
            if own.tobytes() not in known:
                solve_one = _solve_chain if spec.model.block == "two_matrix" else _solve
                known[own.tobytes()] = solve_one(spec, own, leading[:, p[:, None], p])
            found = known[own.tobytes()]
            if found is None:
                continue
            parts["D"][:, p[:, None], p], parts["K2"][:, p] = found.covariance, found.correction
            parts["T"][:, p[:, None, None], p[:, None], p] = found.third
            error = {name: max(error.get(name, 0.0), value) for name, value in found.error.items()}
            details[f"{size} inputs" if size > 1 else "1 input"] = found.details
    if not details:
        raise InputError(
            f"the next order does not converge with {spec.model.activation!r} at this kernel",
            place="next_order",
            value=True,
            remedy="leave it out",
        )
    return NextOrder(**vars(NextOrder.of(parts)) | {"error": error, "details": details})


def _solve(spec: PredictionSpec, kernel: np.ndarray, leading: np.ndarray) -> NextOrder | None:
    """All entries of a kernel (N, N) of few inputs, solved together; None where D is not known to USELESS."""
    assert spec.truncation is not None
    engine = alone(choose_engine(spec.model, kernel, Numerics(), series=True))
    shallow = coarsened(spec.model, min(LAYERS[0], spec.model.depth))
    path = mean_path(shallow, kernel, engine).kernel
    if not np.diag(path[-1]).all():
        return _nothing(leading)
    size = float(np.trace(path[-1]))
    for sets in (_adapted(spec, engine, path), _wick_powers(spec, engine, path)):
        found = _converged(spec, kernel, leading, engine, sets, shallow, size)
        if found is not None:
            return found
    return None


def _solve_chain(spec: PredictionSpec, kernel: np.ndarray, leading: np.ndarray) -> NextOrder | None:
    """All entries of one or two inputs of a network with two matrices in a block, solved as a Markov chain of G.

    None where D is not known to USELESS, where an input that is 0 does not stay 0, and for two inputs of a kinked sigma
    that are nearly proportional: E2 has no power series there.
    """
    model = spec.model
    fields = {"closure": "exact", "next_order": False, "kernel": InputKernel.explicit(kernel.tolist())}
    own = spec.model_copy(update=fields | {"numerics": Numerics(rtol=CHAIN_RTOL)})
    found = alone(solve(own, partial(markov.MarkovNextOrder, model)))
    if not np.diag(found.mean[-1]).all():
        return _nothing(leading)
    assert found.covariance_next is not None
    assert found.correction_next is not None
    assert found.third_cumulant is not None
    error = {name: found.numerical_error[name] for name in ("D", "K2")}
    error["T"] = error["D"]  # T needs fewer derivatives of the same series
    correction = to_pairs(found.correction_next)
    largest = _norm(correction)
    vanishing = VANISHING * _norm(found.covariance_next) / float(np.trace(found.mean[-1]))
    error["K2"] *= largest / max(largest, vanishing) if vanishing else 1.0
    missed = _norm(found.covariance - leading) / max(_norm(leading), 1e-300)
    error = {name: value + missed for name, value in error.items()}
    singular = not np.diag(hidden_kernel(model, kernel)).all() or markov.too_alike(model, found.mean)
    if singular or not error["D"] < USELESS:
        return None
    if not error["K2"] < USELESS:
        del error["K2"]
        correction = np.full_like(correction, np.nan)
    details = {"functions": "Markov chain of G"} | found.details
    return NextOrder(leading, found.covariance_next, correction, found.third_cumulant, error, details)


def _converged(
    spec: PredictionSpec,
    kernel: np.ndarray,
    leading: np.ndarray,
    engine: Expectations,
    sets: Iterator[_Functions],
    shallow: ResNet,
    size: float,
) -> NextOrder | None:
    """With the best of larger and larger sets of functions, by the change from the set before in a shallow network.

    The sets end where D changes by at most ``spec.truncation`` and K2 by KNOWN_K2, or where they get worse, as those of
    a divergent series do. None where D is not known to USELESS.
    """
    assert spec.truncation is not None
    wanted = {"D": spec.truncation, "K2": KNOWN_K2}

    def solve(best: _Functions, model: ResNet, layers: np.ndarray) -> NextOrder:
        path = mean_path(model, kernel, engine).kernel
        return NextOrder.of(best.through(path, model.epsilon**2, layers))

    before: NextOrder | None = None
    best: _Functions | None = None
    error: dict[str, float] = {}
    least, worse = np.inf, 0
    for functions in sets:
        found = solve(functions, shallow, np.arange(shallow.depth + 1))
        if before is not None:
            here = functions.error(_change(before, found, size))
            # above 1, an error says only that nothing is known
            excess = sum(min(here[name], 1.0) / goal for name, goal in wanted.items())
            if excess < least:
                least, worse, error, best = excess, 0, here, functions
            else:
                worse += 1
            if worse == 2 or all(here[name] <= goal for name, goal in wanted.items()):
                break
        before = found
    if best is None or not error["D"] < USELESS:
        return None
    found, rest = _at_recorded(spec, partial(solve, best), size)
    missed = _norm(found.leading - leading) / max(_norm(leading), 1e-300) + best.left_out()
    error = {name: error[name] + rest.get(name, 0.0) + missed for name in ("D", "K2", "T")}
    if not error["D"] < USELESS:
        return None
    if not error["K2"] < USELESS:
        del error["K2"]
        found = replace(found, correction=np.full_like(found.correction, np.nan))
    details = {"functions": best.name, "size": best.size}
    return replace(found, error=error, details=details)


def _nothing(leading: np.ndarray) -> NextOrder:
    """The next order where an input stays 0: 0, for the entries of other inputs are found without it."""
    depths, pairs = leading.shape[:2]
    return NextOrder(
        leading,
        np.zeros((depths, pairs, pairs)),
        np.zeros((depths, pairs)),
        np.zeros((depths, pairs, pairs, pairs)),
        {"D": 0.0, "K2": 0.0, "T": 0.0},
        {"functions": "none: an input is 0"},
    )


def _adapted(spec: PredictionSpec, engine: Expectations, path: np.ndarray) -> Iterator[_Functions]:
    """Larger and larger sets of adapted functions, for smooth bounded activations and one or two inputs."""
    activation = get_activation(spec.model.activation)
    if not spec.model.of_the_paper or activation.kinks or not is_bounded(activation) or path.shape[-1] > MOST_ADAPTED:
        return
    kernels = path[np.unique(np.linspace(0, len(path) - 1, PROBES).round().astype(int))]
    if not kernels[0].any():  # the next layer, of the deepest network that is solved, is the first Gaussian one
        deepest = coarsened(spec.model, spec.model.depth if _is_direct(spec) else LAYERS[-1])
        kernels[0] = mean_path(deepest, np.zeros_like(kernels[0]), engine).kernel[1]
    for modes, tolerance in SETS:
        found = adapted_functions(activation, spec.model.weight_variance, kernels, modes, tolerance)
        if found is None:
            return
        yield _Functions(
            "adapted functions",
            found.size,
            partial(adapted_expansion.through, found),
            partial(float, found.left_out),
            {name: weight * found.largest_left_out for name, weight in COARSENESS.items()},
        )


def _wick_powers(spec: PredictionSpec, engine: Expectations, path: np.ndarray) -> Iterator[_Functions]:
    """Wick powers of rising order; those of an input that is 0 at layer 0 would be 0."""
    if not np.diag(path[0]).all():
        return
    mehler = inner_engine(engine)
    bounded, even_only = is_bounded(mehler.activation), only_even(spec.model)
    extra, best = (0, BEST_FOR_BOUNDED) if spec.model.of_the_paper else (SHIFTS, BEST_FOR_NORMALISED)
    for highest in HIGHEST:
        if bounded and highest > best:
            return
        if len(followed_powers(path.shape[-1], highest, even_only=even_only)) > MOST_FUNCTIONS:
            return
        resolved = MehlerExpectations(mehler.activation, mehler.level, mehler.terms, highest + extra)
        found = WickPowers(resolved, spec.model, highest, np.diag(path[-1]))
        yield _Functions(
            "Wick powers",
            found.size,
            partial(expansion.through, found),
            partial(found.left_out, path[[0, -1]]),
            doubt=DOUBT,
        )


def coarsened(model: ResNet, depth: int) -> ResNet:
    """A network of another depth and the same total time."""
    return model.model_copy(update={"depth": depth, "epsilon": model.epsilon * float(np.sqrt(model.depth / depth))})


def _is_direct(spec: PredictionSpec) -> bool:
    """Whether the network itself is solved, layer by layer."""
    return not spec.continuous and spec.model.depth <= DIRECT


def _at_recorded(
    spec: PredictionSpec, solve: Callable[..., NextOrder], size: float
) -> tuple[NextOrder, dict[str, float]]:
    """The next order at the recorded depths, and the error of extrapolating in the number of layers.

    Networks of up to DIRECT layers are solved layer by layer. At fixed t all coefficients are analytic in
    h = epsilon^2: for deeper networks, and for h -> 0, polynomials in h through shallower ones are used (eq. 10.6).
    """
    model = spec.model
    assert spec.depths is not None
    if _is_direct(spec):
        return solve(model=model, layers=np.array(spec.depths)), {}
    target = 0.0 if spec.continuous else model.epsilon**2
    times = np.linspace(0, model.depth * model.epsilon**2, GRID + 1)
    tables: list[dict[str, np.ndarray]] = []
    steps: list[float] = []
    found: NextOrder | None = None
    error: dict[str, float] = {}
    for depth in LAYERS:
        shallow = coarsened(model, depth)
        column = solve(model=shallow, layers=np.arange(0, depth + 1, depth // GRID)).parts()
        tables, steps = _neville(tables, steps, column, shallow.epsilon**2, target)
        before, found = found, NextOrder.of(tables[-1])
        if before is not None:
            error = _change(before, found, size)
            if len(tables) > 2 and error["D"] <= 0.3 * (spec.truncation or 0.0):
                break
    assert found is not None
    curves = {name: make_interp_spline(times, values, k=5)(spec.time) for name, values in found.parts().items()}
    return NextOrder.of(curves), error


def _neville(
    rows: list[dict[str, np.ndarray]], steps: list[float], column: dict[str, np.ndarray], step: float, target: float
) -> tuple[list[dict[str, np.ndarray]], list[float]]:
    """Neville's scheme: one more value, at ``step``, of functions to be extrapolated to ``target``.

    ``rows`` and what is returned are the scheme's last diagonal: polynomials of rising degree through the last points.
    """
    found = [column]
    for degree, row in enumerate(rows, start=1):
        far = steps[-degree]
        weight = (target - step) / (far - step)
        found.append({name: values + weight * (row[name] - values) for name, values in found[-1].items()})
    return found, [*steps, step]


def _change(one: NextOrder, two: NextOrder, size: float) -> dict[str, float]:
    """Largest change of each quantity over depth relative to its largest norm, or to VANISHING of its natural size."""
    found = {}
    for name, values in two.parts().items():
        floor = VANISHING * _norm(two.covariance) / size if name == "K2" else 0.0
        found[name] = _norm(one.parts()[name] - values) / max(_norm(values), floor, 1e-300)
    return found


def _norm(values: np.ndarray) -> float:
    """Largest Frobenius norm over depth."""
    return max(float(np.linalg.norm(value)) for value in values)
