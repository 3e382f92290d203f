"""What the vector code of eftcore.ensemble.cpu saves: its inner loops beside the same loops in plain numba, in one run.

Run: python -m benchmarks.vector_code. It takes some ten seconds, most of it compilation.

Each piece works on one tile as the fused pass has it: tanh, n = 64, N = 4, 32 neurons of 16 networks, float32.

* library: numba loops that call the functions of the mathematical library, as one writes them first.
* numba: numba loops with the polynomials of eftcore.ensemble.minimax. numba may reorder sums and vectorise as it likes
  (fastmath), and tanh runs over one flat axis, which it vectorises best.
* vector code: what the engine runs.

All work on the same arrays and are measured in turns, ROUNDS times; each figure is the least of its rounds. Other load
on the machine lengthens all of them, so that the ratios are more certain than the times.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numba import njit

from benchmarks.simulation import processor
from eftcore.ensemble.cpu import vector_math
from eftcore.ensemble.cpu.tile_pass import activate, add_products, advance, advance_lower, fill_normals
from eftcore.ensemble.kinds import KINDS
from eftcore.ensemble.minimax import (
    COSINE,
    MANTISSA_BITS,
    MINUS_TWO_LOG,
    SINE,
    SQRT_HALF_BITS,
    TANH,
    TANH_LIMIT,
)
from eftcore.ensemble.sums import LANES

WIDTH, INPUTS, TILE = 64, 4, 32
ROUNDS = 20
CALLS = 1000

plain = njit(fastmath=True, error_model="numpy")
strict = njit(fastmath=vector_math.STRICT, error_model="numpy")

_F, _U, _I = np.float32, np.uint32, np.int32


def _single(numbers: tuple[float, ...]) -> tuple[np.float32, ...]:
    return tuple(np.float32(number) for number in numbers)


_P, _Q = _single(TANH.numerator), _single(TANH.denominator)
_L, _S, _C = (_single(fit.numerator) for fit in (MINUS_TWO_LOG, SINE, COSINE))
_LIMIT, _TANH = _F(TANH_LIMIT), KINDS.index("tanh")


# polynomials written out: over a loop, numba makes the normals more than twice as slow


@plain
def _quotient(x):
    above = (((_P[0] * x + _P[1]) * x + _P[2]) * x + _P[3]) * x + _P[4]
    return above / ((((_Q[0] * x + _Q[1]) * x + _Q[2]) * x + _Q[3]) * x + _Q[4])


@plain
def _log(x):
    high = (((_L[0] * x + _L[1]) * x + _L[2]) * x + _L[3]) * x + _L[4]
    return ((high * x + _L[5]) * x + _L[6]) * x + _L[7]


@plain
def _sine(x):
    return (((_S[0] * x + _S[1]) * x + _S[2]) * x + _S[3]) * x + _S[4]


@plain
def _cosine(x):
    return ((((_C[0] * x + _C[1]) * x + _C[2]) * x + _C[3]) * x + _C[4]) * x + _C[5]


@plain
def tanh_library(x, out):
    for i in range(x.size):
        out[i] = np.tanh(x[i])


@plain
def tanh_numba(x, out):
    for i in range(x.size):
        clipped = min(max(x[i], -_LIMIT), _LIMIT)
        out[i] = clipped * _quotient(clipped * clipped)


@strict
def tanh_vector(x, out):
    activate(_TANH, 0.0, x, 0, x.shape[0], out)


@plain
def _rotated(x, bits):
    return _U(_U(x << _U(bits)) | _U(x >> _U(32 - bits)))


@plain
def _word(state, lane):
    """The next word of xoshiro128++."""
    a, b, c, d = state[0, lane], state[1, lane], state[2, lane], state[3, lane]
    drawn = _U(_rotated(_U(a + d), 7) + a)
    shifted = _U(b << _U(9))
    c, d = _U(c ^ a), _U(d ^ b)
    b, a = _U(b ^ c), _U(a ^ d)
    state[0, lane], state[1, lane], state[2, lane], state[3, lane] = a, b, _U(c ^ shifted), _rotated(d, 11)
    return drawn


@plain
def normals_library(state, out):
    for i in range(0, out.shape[0], 2):
        for lane in range(LANES):
            first, second = _word(state, lane), _word(state, lane)
            uniform = (_F(first >> _U(1)) + _F(0.5)) * _F(2.0**-31)
            radius, angle = np.sqrt(_F(-2.0) * np.log(uniform)), _F(_I(second)) * _F(np.pi / 2**31)
            out[i, lane], out[i + 1, lane] = radius * np.cos(angle), radius * np.sin(angle)


@plain
def _minus_two_log(x):
    shifted = np.float32(x).view(np.int32) - _I(SQRT_HALF_BITS + (31 << MANTISSA_BITS))
    t = np.int32((shifted & _I((1 << MANTISSA_BITS) - 1)) + _I(SQRT_HALF_BITS)).view(np.float32) - _F(1.0)
    return _F(shifted >> _I(MANTISSA_BITS)) * _F(-2 * np.log(2.0)) + t * _log(t)


@plain
def normals_numba(state, out):
    for i in range(0, out.shape[0], 2):
        for lane in range(LANES):
            first, second = _word(state, lane), _word(state, lane)
            radius = np.sqrt(_minus_two_log(_F(_I(first & _U(0x7FFFFFFF)) | _I(1))))
            radius = -radius if first >> _U(31) else radius
            angle = _F(_I(second)) * _F(np.pi / 2 / 2**31)
            square = angle * angle
            out[i, lane], out[i + 1, lane] = radius * _cosine(square), radius * angle * _sine(square)


@strict
def normals_vector(state, out):
    fill_normals(state, out)


@plain
def increment_numba(state, root, z):
    for j in range(z.shape[0]):
        for a in range(z.shape[1]):
            for b in range(z.shape[1]):
                for lane in range(LANES):
                    state[j, a, lane] += root[a, b, lane] * z[j, b, lane]


@strict
def increment_vector(state, root, z):
    advance(state, 0, z.shape[0], root, z)


@plain
def triangular_numba(state, root, z):
    for j in range(z.shape[0]):
        for a in range(z.shape[1]):
            for b in range(a + 1):
                for lane in range(LANES):
                    state[j, a, lane] += root[a, b, lane] * z[j, b, lane]


@strict
def triangular_vector(state, root, z):
    advance_lower(state, 0, z.shape[0], root, z)


@plain
def products_numba(tile, total):
    part = np.zeros(total.shape, np.float32)
    for j in range(tile.shape[0]):
        for a in range(tile.shape[1]):
            for b in range(a, tile.shape[1]):
                for lane in range(LANES):
                    part[a, b, lane] += tile[j, a, lane] * tile[j, b, lane]
    total += part


@strict
def products_vector(tile, total):
    add_products(tile, 0, tile.shape[0], total)


def repeated(function: Any) -> Any:
    """A compiled function that calls this one ``times`` times."""

    @njit
    def run(times, *arguments):
        for _ in range(times):
            function(*arguments)

    return run


def pieces() -> dict[str, dict[str, tuple[Any, tuple[np.ndarray, ...]]]]:
    """Piece, then variant, to the function and its arguments."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((TILE, INPUTS, LANES), dtype=np.float32)
    root = 0.05 * rng.standard_normal((INPUTS, INPUTS, LANES), dtype=np.float32)
    x, out = z.reshape(-1, LANES), np.empty((TILE * INPUTS, LANES), np.float32)
    words = rng.integers(1, 2**32, (4, LANES), dtype=np.uint32)
    state, total = np.zeros_like(z), np.zeros((INPUTS, INPUTS, LANES))
    flat = (x.reshape(-1), out.reshape(-1))
    return {
        "normals": {
            "library": (normals_library, (words, out)),
            "numba": (normals_numba, (words, out)),
            "vector code": (normals_vector, (words, out)),
        },
        "tanh": {
            "library": (tanh_library, flat),
            "numba": (tanh_numba, flat),
            "vector code": (tanh_vector, (x, out)),
        },
        "increment": {
            "numba": (increment_numba, (state, root, z)),
            "vector code": (increment_vector, (state, root, z)),
        },
        "increment, triangular": {
            "numba": (triangular_numba, (state, root, z)),
            "vector code": (triangular_vector, (state, root, z)),
        },
        "products": {
            "numba": (products_numba, (z, total)),
            "vector code": (products_vector, (z, total)),
        },
    }


def check() -> None:
    """Raises AssertionError unless plain numba and vector code write the same numbers, up to rounding."""
    written = {"normals": 1, "tanh": 1, "products": 1}  # index of the argument; increments write to the first one
    for name in pieces():
        found = []
        for variant in ("numba", "vector code"):
            function, arguments = pieces()[name][variant]
            function(*arguments)
            found.append(arguments[written.get(name, 0)].ravel())
        np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6, err_msg=name)


def main() -> None:
    """Print the table."""
    check()
    variants = ("library", "numba", "vector code")
    runs = {(piece, name): made for piece, every in pieces().items() for name, made in every.items()}
    loops = {key: repeated(function) for key, (function, _) in runs.items()}
    least = dict.fromkeys(runs, float("inf"))
    for key, (_, arguments) in runs.items():
        loops[key](1, *arguments)
    for _ in range(ROUNDS):
        for key, (_, arguments) in runs.items():
            start = time.perf_counter()
            loops[key](CALLS, *arguments)
            taken = (time.perf_counter() - start) / CALLS
            least[key] = min(least[key], taken * WIDTH / TILE / LANES * 1e9)
    print(f"{processor()}; nanoseconds per network-layer, n = {WIDTH}, N = {INPUTS}, one thread")
    print(f"{'':22}" + "".join(f"{name:>12}" for name in variants) + f"{'numba / vector code':>21}")
    for piece in pieces():
        found = [f"{least[piece, name]:12.1f}" if (piece, name) in least else f"{'':12}" for name in variants]
        ratio = least[piece, "numba"] / least[piece, "vector code"]
        print(f"{piece:22}" + "".join(found) + f"{ratio:21.1f}")


if __name__ == "__main__":
    main()
