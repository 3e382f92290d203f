"""The next order in 1/n of blocks with two matrices: moments of the Markov chain of G (docs/theory.md, section 11).

One layer has the exact mean M(G) = G + h F(G), h = epsilon^2, the covariance B(G) / n + B_2(G) / n^2 and a third
cumulant kappa / n^2. Around K0 these are power series, so that the moments of G through order 1/n^2 close: D and K2
need F to its fourth derivatives, B to its second, B_2 and kappa at K0 alone. Equation numbers are those of
docs/theory.md.
"""

from __future__ import annotations

from math import comb, factorial
from typing import ClassVar

import numpy as np

from eftcore.activations import get_activation
from eftcore.gaussian.branch import BranchExpectations, hidden_kernel
from eftcore.gaussian.mehler import SATURATED, MehlerExpectations, OnLine, by_parts
from eftcore.gaussian.pair_moments import Expectations, correlations
from eftcore.gaussian.taylor import DEGREE, Taylor, exponents
from eftcore.pairs import pair_indices, pair_table, to_matrix
from eftcore.specs import ResNet
from eftcore.theory.closures.base import Ingredients, Observed, State
from eftcore.theory.closures.g_only import noise_source, wishart
from eftcore.theory.closures.two_matrix import TwoMatrix

MOST_INPUTS = 2
"""Most inputs that are solved together: the fourth moments of sigma are differentiated for two."""

DIRECT_DERIVATIVES = 4
"""Derivatives of a smooth sigma that are known; those beyond are taken by parts."""

ENOUGH_TERMS = 10.0
"""Least number of Mehler terms, in units of 1 / (1 - |rho|), from which on a change between two numbers of them tells
the error."""

_COMPLEX_STEP = 1e-60


class MarkovNextOrder(TwoMatrix):
    """V4, K1, the third cumulant T, D and K2 of one or two inputs, exact in each layer (eq. 11.7-11.10).

    Variables: V4 and D (P, P), K1 and K2 (P,), T (P, P, P); with layer normalisation also ``ratio_V4`` (P, P) and
    ``ratio_K1`` (P,), by which V4 and K1 grow with n / m, and ``joint`` (P, P), n times the covariance of the kernel
    with that of the direction which the normalisation takes out.
    Ingredients: those of BranchSeries.
    """

    powers: ClassVar = {"V4": 2, "D": 2, "K1": 1, "K2": 1, "T": 3, "ratio_V4": 2, "ratio_K1": 1, "joint": 2}

    @property
    def layered(self) -> bool:
        """Whether the mean over neurons is subtracted from the input of a branch."""
        return self.network.normalisation == "layer"

    def initial(self) -> State:
        pairs = len(self.neighbours)
        square = np.zeros((pairs, pairs))
        start = cubes(self.start, self.start, self.start)
        state = {**super().initial(), "D": square, "K2": np.zeros(pairs), "T": start}
        if self.layered:
            state |= {"ratio_V4": square, "ratio_K1": np.zeros(pairs), "joint": square}
        return state

    def ingredients(self, kernel: np.ndarray, engine: Expectations) -> Ingredients:
        assert isinstance(engine, BranchExpectations)
        return BranchSeries(engine, kernel).ingredients()

    def step(self, at: Ingredients, state: State, h: float | np.ndarray, *, exact: bool) -> State:
        """One layer of size h with every power of it; ``exact`` must be true."""
        assert exact
        assert isinstance(h, float)
        return self._layer(at, state, h)

    def rates(self, at: Ingredients, state: State) -> State:
        """The derivative of a layer by its size, at size 0: a complex step is exact, since a layer is a polynomial."""
        after = self._layer(at, state, 1j * _COMPLEX_STEP)
        return {name: value.imag / _COMPLEX_STEP for name, value in after.items()}

    def _layer(self, at: Ingredients, state: State, h: complex) -> State:
        """The moments after a layer of size h (eq. 11.7-11.10)."""
        c_2, ratio = self.model.weight_variance, self.network.hidden_ratio
        v, k, skew, next_v, next_k = (state[name] for name in ("V4", "K1", "T", "D", "K2"))
        f1, f2, f3, f4 = (h * at[f"F{order}"] for order in range(1, DEGREE + 1))
        b0, b1, b2 = (h * at[f"noise{order}"] + h * h * at[f"square{order}"] for order in range(3))
        jacobian = np.eye(len(k)) + f1
        hidden = h * h * c_2**2 * at["products"]
        moved = jacobian @ v
        v_k = np.multiply.outer(v, k)
        # n^2 Cov(g_i, delta_k delta_l) of the deviation delta = g + K1 / n from K0
        with_square = skew + v_k + v_k.transpose(0, 2, 1)
        bent = np.einsum("pi,qkl,ikl->pq", jacobian, f2, with_square) + np.einsum("pj,qjkl,kl->pq", moved, f3, v)
        after = {
            "V4": moved @ jacobian.T + b0,
            "K1": jacobian @ k + np.einsum("pkl,kl->p", f2, v) / 2,
            "T": np.einsum("pi,qj,rk,ijk->pqr", jacobian, jacobian, jacobian, skew)
            + _in_turn(np.einsum("pkl,qk,rl->pqr", f2, moved, moved) + np.einsum("pj,qrj->pqr", moved, b1))
            + self._third_cumulant(at, h),
            "D": jacobian @ next_v @ jacobian.T
            + (bent + bent.T) / 2
            + np.einsum("pij,qkl,ik,jl->pq", f2, f2, v, v) / 2
            + np.einsum("pqj,j->pq", b1, k)
            + np.einsum("pqjk,jk->pq", b2, v) / 2
            + _crossed(hidden / ratio, self.n_inputs),
            "K2": jacobian @ next_k
            + np.einsum("pkl,kl->p", f2, next_v + np.outer(k, k)) / 2
            + np.einsum("pijk,ijk->p", f3, skew + 3 * v_k) / 6
            + np.einsum("pijkl,ij,kl->p", f4, v, v) / 8,
        }
        if self.layered:
            grown = state["ratio_V4"]
            after |= {
                "ratio_V4": jacobian @ grown @ jacobian.T + hidden,
                "ratio_K1": jacobian @ state["ratio_K1"] + np.einsum("pkl,kl->p", f2, grown) / 2,
                "joint": jacobian @ state["joint"] + moved @ f1.T + hidden / ratio,
            }
        return after

    def _third_cumulant(self, at: Ingredients, h: complex) -> np.ndarray:
        """(P, P, P) n^2 times the third cumulant of G after a layer, given G = K0 before (eq. 11.9)."""
        c_2, ratio = self.model.weight_variance, self.network.hidden_ratio
        kernel, q = at["kernel"], at["increment"]
        neurons = cubes(kernel, q, q) + cubes(q, kernel, q) + cubes(q, q, kernel) + h * cubes(q, q, q)
        shared = np.stack([noise_source(kernel + h * q, to_matrix(row)) for row in at["products"]])
        hidden = c_2**2 / ratio * _in_turn(shared) + h * c_2**3 / ratio**2 * at["third"]
        third: np.ndarray = h * h * (neurons + hidden)
        return third

    def observe(self, at: Ingredients, state: State) -> Observed:
        next_v, next_k = state["D"], state["K2"]
        if self.layered:
            # n - 1 directions with their own kernel, and the direction that the normalisation takes out (eq. 11.11)
            ratio, joint = self.network.hidden_ratio, state["joint"]
            next_v = next_v - state["V4"] - state["ratio_V4"] / ratio + joint + joint.T + wishart(at["kernel"])
            next_k = next_k + state["K1"] - state["ratio_K1"] / ratio
        return Observed(
            covariance=state["V4"],
            correction=state["K1"],
            covariance_next=next_v,
            correction_next=next_k,
            third_cumulant=state["T"],
        )


class BranchSeries:
    """F, B and the moments of sigma sigma as power series in the entries of G, at R kernels of one or two inputs.

    By the heat equation, derivatives of Gaussian means by the entries of the covariance are means of derivatives
    (eq. 1.8). Those of a smooth sigma are known up to the fourth; what is beyond, and all of a kinked one, is taken by
    parts in the Mehler series.
    """

    def __init__(self, engine: BranchExpectations, kernel: np.ndarray) -> None:
        self._model, self._kernel = engine.model, kernel
        self._hidden = hidden_kernel(engine.model, kernel)
        self._line = OnLine(engine.series, self._hidden)
        self._inputs = list(zip(*pair_indices(kernel.shape[-1]), strict=True))
        self._variables = [
            Taylor.variable(len(self._inputs), p, kernel[:, a, b]) for p, (a, b) in enumerate(self._inputs)
        ]
        self._correlation = self._hidden_correlation()
        self._powers = self._powers_of_sigma()
        self._coefficients: dict[tuple[int, int], np.ndarray] = {}
        self._means: dict[tuple[int, int], Taylor] = {}

    def ingredients(self) -> Ingredients:
        """At each of the R kernels, by name; the leading axes of every array are R and one for each pair it belongs to.

        ``kernel`` and ``increment`` (R, N, N) K0 and Q; ``F1`` to ``F4`` (R, P, P, ..) derivatives of F by the entries
        of G, the first pair being that of F; ``noise0`` to ``noise2`` and ``square0`` to ``square2`` (R, P, P, ..) the
        parts of B of order h and h^2 and their first two derivatives; ``products`` (R, P, P) and ``third``
        (R, P, P, P) second and third cumulants of sigma sigma of one hidden neuron.
        """
        c_2, ratio = self._model.weight_variance, self._model.hidden_ratio
        pairs = range(len(self._inputs))
        drift = [self._pair(p) * c_2 + self._model.bias_variance for p in pairs]
        products = [[self._covariance(p, q) for q in pairs] for p in pairs]
        noise = [
            [self._product(self._variables, drift, p, q) + self._product(drift, self._variables, p, q) for q in pairs]
            for p in pairs
        ]
        square = [[self._product(drift, drift, p, q) + products[p][q] * (c_2**2 / ratio) for q in pairs] for p in pairs]
        along = _stacked(drift)
        found: Ingredients = {"kernel": self._kernel, "increment": to_matrix(along.value)}
        found |= {f"F{order}": along.derivatives(order) for order in range(1, DEGREE + 1)}
        for name, table in (("noise", noise), ("square", square)):
            whole = _stacked([_stacked(row) for row in table])
            found |= {f"{name}{order}": whole.derivatives(order) for order in range(3)}
        found["products"] = _stacked([_stacked(row) for row in products]).value
        found["third"] = self._third_cumulants()
        return found

    def _product(self, x: list[Taylor], y: list[Taylor], p: int, q: int) -> Taylor:
        """x_ac y_bd + x_ad y_bc of the pairs p = (a, b) and q = (c, d)."""
        (a, b), (c, d) = self._inputs[p], self._inputs[q]
        table = pair_table(self._kernel.shape[-1])
        product: Taylor = x[table[a, c]] * y[table[b, d]] + x[table[a, d]] * y[table[b, c]]
        return product

    def _pair(self, p: int) -> Taylor:
        return self._mean(*self._counts(self._inputs[p]))

    def _covariance(self, p: int, q: int) -> Taylor:
        """Cov(sigma_a sigma_b, sigma_c sigma_d) of the pairs p = (a, b) and q = (c, d)."""
        both = self._mean(*self._counts(self._inputs[p] + self._inputs[q]))
        return both - self._pair(p) * self._pair(q)

    def _third_cumulants(self) -> np.ndarray:
        """(R, P, P, P) third cumulants of sigma_a sigma_b."""

        def mean(*chosen: int) -> np.ndarray:
            return self._mean(*self._counts(sum((self._inputs[p] for p in chosen), ()))).value

        pairs = range(len(self._inputs))
        found = np.empty((len(self._kernel), *[len(pairs)] * 3))
        for p in pairs:
            for q in pairs:
                for r in pairs:
                    split = mean(p, q) * mean(r) + mean(p, r) * mean(q) + mean(q, r) * mean(p)
                    found[:, p, q, r] = mean(p, q, r) - split + 2 * mean(p) * mean(q) * mean(r)
        return found

    def _counts(self, inputs: tuple[int, ...]) -> tuple[int, int]:
        """How often the first and the second input occur."""
        return inputs.count(0), inputs.count(1)

    def _mean(self, i: int, j: int) -> Taylor:
        """<sigma_0^i sigma_1^j> as a series in the entries of G, up to the fourth degree for i + j = 2, else less.

        The degrees that are needed: 4 for second moments, 2 for fourth and 0 for sixth ones.
        """
        if (i, j) not in self._means:
            degree = {2: DEGREE, 4: 2, 6: 0}[i + j]
            self._means[i, j] = self._single(i or j, int(i == 0), degree) if 0 in (i, j) else self._cross(i, j, degree)
        return self._means[i, j]

    def _single(self, power: int, a: int, degree: int) -> Taylor:
        """<sigma_a^power>: half a second derivative for each power of the variance."""
        rows = self._line.where[:, a]
        by_variance = [self._hermite(power, 2 * k)[rows, 0] / 2**k for k in range(degree + 1)]
        if self._model.normalisation is not None:
            return Taylor.constant(len(self._inputs), by_variance[0])
        hidden = self._variables[self._inputs.index((a, a))] * self._model.hidden_weight_variance
        return hidden.compose(by_variance + [np.zeros_like(by_variance[0])] * (DEGREE - degree))

    def _cross(self, i: int, j: int, degree: int) -> Taylor:
        """<sigma_0^i sigma_1^j>."""
        scale = self._model.hidden_weight_variance
        if self._model.normalisation is not None:
            by_covariance = [self._mehler(i, j, k, k) for k in range(degree + 1)]
            return self._correlation.compose(by_covariance + [np.zeros(len(self._kernel))] * (DEGREE - degree))
        found = Taylor.constant(len(self._inputs), np.zeros(len(self._kernel)))
        for place, (aa, ab, bb) in enumerate(exponents(len(self._inputs))):
            if aa + ab + bb <= degree:
                value = self._mehler(i, j, 2 * aa + ab, 2 * bb + ab) * (scale ** (aa + ab + bb) / 2 ** (aa + bb))
                found.coefficients[:, place] = value / (factorial(aa) * factorial(ab) * factorial(bb))
        return found

    def _mehler(self, i: int, j: int, left: int, right: int) -> np.ndarray:
        """(R,) mean of the derivative ``left`` of sigma_0^i times the derivative ``right`` of sigma_1^j (eq. 6.1)."""
        u, v = self._hermite(i, left)[self._line.where[:, 0]], self._hermite(j, right)[self._line.where[:, 1]]
        rho = correlations(self._hidden, np.array([0]), np.array([1]))
        found: np.ndarray = np.einsum("rk,rk,rk->r", u, v, rho ** np.arange(self._line.terms))
        return found

    def _hidden_correlation(self) -> Taylor:
        """The hidden covariance of two inputs where these are normalised; of one input, a placeholder."""
        if self._model.normalisation is None or len(self._inputs) == 1:
            return self._variables[0]
        aa, ab, bb = self._variables
        return ab * (aa * bb).power(-0.5) * self._model.hidden_weight_variance + self._model.hidden_bias_variance

    def _powers_of_sigma(self) -> dict[int, np.ndarray]:
        """By power, (derivatives, U, J) sigma^power and, if smooth, its first derivatives on the nodes."""
        act, x = self._line.activation, self._line.x
        if act.derivatives is None:
            sigma = np.asarray(act.function(x), dtype=float)[None]
        else:
            sigma = act.derivatives(x)[: DIRECT_DERIVATIVES + 1]
        found = {1: sigma}
        for power in range(2, 7):
            before = found[power - 1]
            orders = range(len(sigma))
            found[power] = np.stack([sum(comb(k, i) * sigma[i] * before[k - i] for i in range(k + 1)) for k in orders])
        return found

    def _hermite(self, power: int, order: int) -> np.ndarray:
        """(U, terms) Hermite coefficients of a derivative of sigma^power at each distinct variance (eq. 6.2)."""
        if (power, order) not in self._coefficients:
            line, values = self._line, self._powers[power]
            direct = min(order, len(values) - 1)
            found = by_parts(values[direct], line.rule.table, order - direct, line.terms, line.deviation)
            large = line.variance > SATURATED
            if direct and large.any():
                found[large] = by_parts(values[0][large], line.rule.table, order, line.terms, line.deviation[large])
            self._coefficients[power, order] = found
        return self._coefficients[power, order]


def too_alike(model: ResNet, kernels: np.ndarray) -> bool:
    """Whether two inputs (R, N, N) are so close to proportional that the Mehler series of a kinked sigma do not end.

    They fall like |rho|^k, and the derivatives of fourth order need many times 1 / (1 - |rho|) of them.
    """
    if kernels.shape[-1] == 1 or not get_activation(model.activation).kinks:
        return False
    rho = correlations(hidden_kernel(model, kernels), np.array([0]), np.array([1]))
    return bool((1 - np.abs(rho)).min() * MehlerExpectations.MAX_TERMS < ENOUGH_TERMS)


def cubes(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(P, P, P) sum of x_bc y_de z_fa over the orders within the pairs (a, b), (c, d), (e, f) (eq. 11.9).

    With x = y = z = K it is n^2 times the third cumulant of the kernel of n independent Gaussian neurons.

    >>> cubes(*[np.array([[2.0]])] * 3).item()
    64.0
    """
    first, second = pair_indices(len(x))
    both = ((first, second), (second, first))
    found: np.ndarray = sum(
        np.einsum("pq,qr,rp->pqr", x[np.ix_(b, c)], y[np.ix_(d, e)], z[np.ix_(f, a)])
        for a, b in both
        for c, d in both
        for e, f in both
    )
    return found


def _in_turn(x: np.ndarray) -> np.ndarray:
    """x_p,qr + x_q,pr + x_r,pq."""
    turned: np.ndarray = x + x.transpose(1, 0, 2) + x.transpose(1, 2, 0)
    return turned


def _crossed(covariance: np.ndarray, n_inputs: int) -> np.ndarray:
    """(P, P) c_ac,bd + c_ad,bc at the pairs (a, b), (c, d), of a covariance (P, P) of pairs (eq. 11.8)."""
    first, second = pair_indices(n_inputs)
    table = pair_table(n_inputs)
    (a, b), (c, d) = (x[:, None] for x in (first, second)), (first, second)
    crossed: np.ndarray = covariance[table[a, c], table[b, d]] + covariance[table[a, d], table[b, c]]
    return crossed


def _stacked(series: list[Taylor]) -> Taylor:
    """Series (R, ...) of several entries as one, with the entries on the axis after R."""
    return Taylor(series[0].variables, np.stack([one.coefficients for one in series], axis=1))
