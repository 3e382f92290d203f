"""prototype"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eftcore.activations import get_activation
from eftcore.expectations import MehlerExpectations
from eftcore.pairs import pair_indices, pair_table
from eftcore.specs import ResNet
from eftcore.wick_algebra import largest_correlation
from eftcore.wick_series import Whitening, WickSeries, components

ROWS = 17
FLOOR = 1e-14
DOUBLINGS = 12


@dataclass(frozen=True, eq=False)
class Tails:
    products: np.ndarray  # (R, P)
    slopes: np.ndarray  # (R, P, 3) norms of D_q f beyond order
    lift: np.ndarray  # (R, P, 3)
    captured: np.ndarray


def square_means(line, a, b, rho, tied, i, j):
    """<s_i(a)^2 s_j(b)^2> upper estimate"""
    gi, gj = line.values[i] ** 2, line.values[j] ** 2
    rule = line.rule
    ci, cj = (rule.coefficients(g)[:, : line.terms] for g in (gi, gj))
    ti, tj = (np.clip(rule.mean(g**2) - (c**2).sum(-1), 0, None) for g, c in ((gi, ci), (gj, cj)))
    powers = np.where(tied, 0.0, rho)[..., None] ** np.arange(line.terms)
    found = np.einsum("rpk,rpk,rpk->rp", ci[a], cj[b], powers)
    found += np.abs(np.where(tied, 0.0, rho)) ** line.terms * np.sqrt(ti[a] * tj[b])
    return found


def tails(engine, kernel, basis):
    series = WickSeries(engine, kernel, basis)
    line, white = series.line, series.white
    a, b, tied, rho = series.a, series.b, white.tied, white.rho
    own = series.first == series.second
    products = series.products()
    square = square_means(line, a, b, rho, tied, 0, 0)
    right = np.where(rho[tied][:, None] > 0, line.values[0][b[tied]], line.values[0][b[tied]][:, ::-1])
    square[tied] = line.rule.mean((line.values[0][a[tied]] * right) ** 2)
    mean = series.table[..., 0, 0]
    rest = np.clip(square - mean**2 - (products**2).sum(-1), FLOOR * square, None)
    inverse = white.inverse
    # |grad a|^2 etc.
    ga = np.hypot(inverse[..., 0, 0], inverse[..., 1, 0])
    gb = np.abs(inverse[..., 1, 1])
    lift = np.stack([ga**2 / 2, ga * gb, gb**2 / 2], -1)
    single = np.divide(0.5, line.deviation[a] ** 2, out=np.zeros_like(ga), where=line.deviation[a] > 0)
    lift[tied] = 0
    lift[tied, 0] = single[tied]
    dup = tied & ~own & (a == b) & (rho > 0)
    lift[tied & ~own] = 0
    lift[dup, 1] = single[dup]
    slopes = np.full((*tied.shape, 3), np.inf)
    if not line.by_parts:
        derivs = series.derivatives()
        gradient = engine.moments(kernel, 1).gradient
        total = np.stack(
            [
                0.25 * square_means(line, a, b, rho, tied, 2, 0),
                square_means(line, a, b, rho, tied, 1, 1),
                0.25 * square_means(line, a, b, rho, tied, 0, 2),
            ],
            -1,
        )
        v = line.values
        sign = rho[tied]
        other = [np.where(sign[:, None] > 0, x[b[tied]], x[b[tied]][:, ::-1]) for x in v[:3]]
        here = [x[a[tied]] for x in v[:3]]
        f = [0.5 * here[2] * other[0], here[1] * other[1], 0.5 * here[0] * other[2]]
        own_t = np.broadcast_to(own, tied.shape)[tied]
        s = sum(f)
        tt = np.stack([line.rule.mean(x**2) for x in f], -1)
        tt[own_t] = 0
        tt[own_t, 0] = line.rule.mean(s**2)[own_t]
        total[tied] = tt
        slopes = np.sqrt(np.clip(total - gradient**2 - (derivs**2).sum(-1), FLOOR * total, None))
        lift[tied & ~own] = np.inf
    return np.sqrt(rest), slopes, lift, (products**2).sum(-1) / np.maximum(square - mean**2, 1e-300)


def remainder(model: ResNet, path: np.ndarray, h: float, engine, order: int, use=(True, True)):
    """path (L+1,N,N); returns (L+1,P) bounds on Var(u_q) beyond order, (L+1,P) on K1"""
    layers = len(path) - 1
    c_w = model.weight_variance
    n = path.shape[-1]
    first, second = pair_indices(n)
    table = pair_table(n)
    neighbours = np.stack([table[first, first], np.arange(len(first)), table[second, second]], -1)
    own = first == second
    even = get_activation(model.activation).parity is not None
    basis = components(order, even_only=even, single=n == 1)
    lowest = order + 1 + (even and order % 2 == 0)
    rows = np.unique(np.round(np.linspace(0, layers, ROWS)).astype(int))
    r, slopes, lift, captured = tails(engine, path[rows], basis)
    moments = engine.moments(path[rows], 2)
    gradient = np.abs(c_w * moments.gradient)
    gradient[..., 1] = c_w * moments.gradient[..., 1]
    gradient[:, own, 0] = c_w * moments.gradient[:, own, 0]
    local = np.zeros((len(rows), len(first), 3, 3))
    local[:, :, 0, 0] = gradient[:, neighbours[:, 0], 0]
    local[:, :, 2, 2] = gradient[:, neighbours[:, 2], 0]
    local[:, :, 1] = gradient
    local[:, own, 1] = 0
    local[:, own, 1, 1] = gradient[:, own, 0]
    hessian = np.abs(moments.hessian)

    def spread(x):
        where = np.arange(layers + 1)
        index = np.clip(np.searchsorted(rows, where, side="right") - 1, 0, len(rows) - 2)
        w = (where - rows[index]) / (rows[index + 1] - rows[index])
        w = w.reshape(-1, *(1,) * (x.ndim - 1))
        with np.errstate(invalid="ignore"):
            return np.where(w == 0, x[index], np.where(w == 1, x[index + 1], (1 - w) * x[index] + w * x[index + 1]))

    r, slopes, lift, local, hessian, gradient = map(spread, (r, slopes, lift, local, hessian, gradient))
    white = Whitening(path)
    turn = white.inverse[1:] @ white.factor[:-1]
    memory = np.minimum(largest_correlation(turn), 1.0)  # (L, P)
    with np.errstate(divide="ignore"):
        logm = np.log(memory)
    k = lowest * 2.0 ** np.arange(DOUBLINGS)
    rq = r[:, neighbours]  # (L+1,P,3)
    z = np.zeros((len(first), 3, len(k)))
    u = np.zeros((len(first), 3, 3))
    k1 = np.zeros(len(first))
    variance, correction = np.zeros((layers + 1, len(first))), np.zeros((layers + 1, len(first)))
    eye = np.eye(3)
    for layer in range(layers + 1):
        variance[layer] = u[:, 1, 1]
        correction[layer] = k1
        if layer == layers:
            break
        one = slopes[layer][:, :, None] * z[:, :, :1]
        raised = lift[layer] * r[layer][:, None] * (z * k).max(-1)
        one = np.where(np.isnan(one[..., 0]), np.inf, one[..., 0])
        raised = np.where(np.isnan(raised), 0 if not np.isinf(lift[layer]).any() else np.inf, raised)
        if not use[0]:
            one = one * np.inf
        if not use[1]:
            raised = raised * np.inf
        mixed = np.nan_to_num(np.fmin(one, raised), nan=0, posinf=0)
        mixed[own, 1:] = 0
        tad = 0.5 * np.einsum("pqr,pqr->p", hessian[layer], u)
        aa, _, bb = neighbours.T
        g = gradient[layer]
        k1 = k1 + h * (
            g[:, 0] * k1[aa] * np.where(own, 1, 1) + np.where(own, 0, g[:, 1] * k1 + g[:, 2] * k1[bb])
        ) + h * c_w * (tad + mixed.sum(-1))
        grow = eye + h * local[layer]
        gz = grow @ z
        drive = h * c_w * rq[layer]
        cross = gz[:, :, :1] * drive[:, None, :]
        u = grow @ u @ np.swapaxes(grow, 1, 2) + cross + np.swapaxes(cross, 1, 2) + drive[:, :, None] * drive[:, None, :]
        z = np.exp(np.where(np.isinf(logm[layer]), -1e3, logm[layer])[:, None, None] * k) * (gz + drive[:, :, None])
    return variance, correction, captured
