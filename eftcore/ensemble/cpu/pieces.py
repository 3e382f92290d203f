"""Piecewise polynomials in vector code: every lane takes the coefficients of the piece that its number lies in.

A row of a table (eftcore.ensemble.piecewise) is one or two registers of AVX-512, and one instruction picks an entry of
them for each lane. With AVX2 each register holds eight entries of float32, and of a pick from each one is taken. Other
processors, and AVX2 in float64, read the entries from memory one by one.
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
        table: eftcore.ensemble.piecewise.Piecewise.table as an array of (any, LANES).
        pieces: in a row of the table, a multiple of LANES.
        degree: of the polynomials.
    """

    def __init__(self, code: Code, table: Array, pieces: int, degree: int) -> None:
        self._zero, self._count = table.zero().bits(), pieces
        rows = [_Row(code, table, row, pieces // LANES) for row in range(degree + 3)]
        self._begins, self._origins, *self._coefficients = rows

    def __call__(self, x: Lanes) -> Lanes:
        """Their values at x: the piece by bisection, then Horner's scheme."""
        index = self._zero
        step = self._count
        while step := step // 2:
            further = index | step
            index = x.where(">=", self._begins.at(further), further, index)
        t = x - self._origins.at(index)
        value = self._coefficients[0].at(index)
        for coefficients in self._coefficients[1:]:
            value = value * t + coefficients.at(index)
        return value


class _Row:
    """A row of a table: one or two Lanes values."""

    def __init__(self, code: Code, table: Array, row: int, count: int) -> None:
        self._code, self._table, self._first = code, table, count * row
        self._parts = [table[count * row + part] for part in range(count)]

    def at(self, index: Lanes) -> Lanes:
        """In each lane the entry at that lane's index, a word of the size of the entries."""
        if self._code.has("avx512f"):
            return self._double_by_avx512(index) if self._table.is_double else self._by_avx512(index)
        if self._code.has("avx2") and not self._table.is_double:
            return self._by_avx2(index)
        return self._from_memory(index)

    def _by_avx512(self, index: Lanes) -> Lanes:
        low, high = self._parts[0].value, self._parts[-1].value
        return index.new(_called(index, "llvm.x86.avx512.vpermi2var.ps.512", low, index.value, high))

    def _double_by_avx512(self, index: Lanes) -> Lanes:
        low, high = (_part(self._parts[0], first) for first in (0, 8))
        name = "llvm.x86.avx512.vpermi2var.pd.512"
        return _joined(index, [_called(index, name, low, _part(index, first), high) for first in (0, 8)])

    def _by_avx2(self, index: Lanes) -> Lanes:
        builder = index.builder
        quarters = [_part(part, first) for part in self._parts for first in (0, 8)]
        found = []
        for first in (0, 8):
            place = _part(index, first)
            picks = [_called(index, "llvm.x86.avx2.permps", quarter, place) for quarter in quarters]
            for bit in (8, 16)[: len(self._parts)]:
                bits = builder.and_(place, ir.Constant(place.type, [bit] * 8))
                odd = builder.icmp_unsigned("!=", bits, ir.Constant(place.type, [0] * 8))
                picks = [builder.select(odd, picks[k + 1], picks[k]) for k in range(0, len(picks), 2)]
            found.append(picks[0])
        return _joined(index, found)

    def _from_memory(self, index: Lanes) -> Lanes:
        builder = index.builder
        found = ir.Constant(self._parts[0].value.type, ir.Undefined)
        for lane in range(LANES):
            place = ir.Constant(_I32, lane)
            entry = builder.extract_element(index.value, place)
            if not self._table.is_double:
                entry = builder.zext(entry, ir.IntType(64))
            found = builder.insert_element(found, self._table.entry(self._first, entry), place)
        return index.new(found)


def _called(lanes: Lanes, name: str, first: ir.Value, *others: ir.Value) -> ir.Value:
    """What an instruction of the processor, by LLVM's name for it, gives in the type of the first argument."""
    kind = ir.FunctionType(first.type, [first.type, *(other.type for other in others)])
    function = cgutils.get_or_insert_function(lanes.builder.module, kind, name)
    return lanes.builder.call(function, (first, *others))


def _part(lanes: Lanes, first: int) -> ir.Value:
    """Eight of the lanes."""
    mask = ir.Constant(ir.VectorType(_I32, 8), list(range(first, first + 8)))
    return lanes.builder.shuffle_vector(lanes.value, ir.Constant(lanes.value.type, ir.Undefined), mask)


def _joined(lanes: Lanes, parts: list[ir.Value]) -> Lanes:
    """Two times eight lanes."""
    mask = ir.Constant(ir.VectorType(_I32, LANES), list(range(LANES)))
    return lanes.new(lanes.builder.shuffle_vector(*parts, mask))
