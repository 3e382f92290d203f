"""Piecewise polynomials in vector code: every lane takes the coefficients of the piece that its number lies in.

A row of a table is 128 bytes (eftcore.ensemble.piecewise). Two registers of AVX-512 hold it, and one instruction picks
an entry of them for each lane. With AVX2 four registers hold it, and of four picks one is taken. Other processors read
the entries from memory one by one.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils

from eftcore.ensemble.cpu.lanes import Array, Code, Lanes
from eftcore.ensemble.sums import LANES

_I32 = ir.IntType(32)


class Pieces:
    """The polynomials of a table in the code that is being written.

    Args:
        code: writes the instructions. What does not depend on x is written at once, before the loop over x.
        table: eftcore.ensemble.piecewise.Piecewise.table as an array (2 (degree + 3), LANES) float32.
        degree: of the polynomials.
    """

    def __init__(self, code: Code, table: Array, degree: int) -> None:
        self._code = code
        self._begins, self._origins, *self._coefficients = (_Row(code, table, row) for row in range(degree + 3))

    def __call__(self, x: Lanes) -> Lanes:
        """Their values at x: the piece by bisection, then Horner's scheme."""
        index = self._code.zero("uint32")
        step = _Row.entries
        while step := step // 2:
            further = index | step
            index = x.where(">=", self._begins.at(further), further, index)
        t = x - self._origins.at(index)
        value = self._coefficients[0].at(index)
        for coefficients in self._coefficients[1:]:
            value = value * t + coefficients.at(index)
        return value


class _Row:
    """A row of a table."""

    entries = 2 * LANES

    def __init__(self, code: Code, table: Array, row: int) -> None:
        self._code, self._table, self._row = code, table, row
        self._halves = [table[2 * row + half] for half in range(2)]

    def at(self, index: Lanes) -> Lanes:
        """In each lane the entry at that lane's index."""
        if self._code.has("avx512f"):
            return self._by_avx512(index)
        return self._by_avx2(index) if self._code.has("avx2") else self._from_memory(index)

    def _by_avx512(self, index: Lanes) -> Lanes:
        low, high = (half.value for half in self._halves)
        name = "llvm.x86.avx512.vpermi2var.ps.512"
        kind = ir.FunctionType(low.type, [low.type, index.value.type, low.type])
        function = cgutils.get_or_insert_function(index.builder.module, kind, name)
        return index.new(index.builder.call(function, (low, index.value, high)))

    def _by_avx2(self, index: Lanes) -> Lanes:
        builder = index.builder
        quarters = [_part(half, first) for half in self._halves for first in (0, 8)]
        found = []
        for first in (0, 8):
            place = _part(index, first)
            kind = ir.FunctionType(quarters[0].type, [quarters[0].type, place.type])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.permps")
            picks = [builder.call(function, (quarter, place)) for quarter in quarters]
            for bit in (8, 16):
                mask = ir.Constant(place.type, [bit] * 8)
                odd = builder.icmp_unsigned("!=", builder.and_(place, mask), ir.Constant(place.type, [0] * 8))
                picks = [builder.select(odd, picks[k + 1], picks[k]) for k in range(0, len(picks), 2)]
            found.append(picks[0])
        return index.new(builder.shuffle_vector(*found, ir.Constant(ir.VectorType(_I32, LANES), list(range(LANES)))))

    def _from_memory(self, index: Lanes) -> Lanes:
        builder = index.builder
        found = ir.Constant(self._halves[0].value.type, ir.Undefined)
        for lane in range(LANES):
            place = ir.Constant(_I32, lane)
            entry = builder.zext(builder.extract_element(index.value, place), ir.IntType(64))
            number = self._table.entry(2 * self._row, entry)
            found = builder.insert_element(found, number, place)
        return index.new(found)


def _part(lanes: Lanes, first: int) -> ir.Value:
    """Eight of the lanes."""
    mask = ir.Constant(ir.VectorType(_I32, 8), list(range(first, first + 8)))
    return lanes.builder.shuffle_vector(lanes.value, ir.Constant(lanes.value.type, ir.Undefined), mask)
