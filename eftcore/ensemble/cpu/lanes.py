"""Functions that write vector instructions, for code that numba compiles.

A vector register of a processor holds several numbers, its lanes, and one instruction computes with all of them at
once. The engine simulates LANES networks side by side, one in each lane. numba has no type for a vector register, and
of an innermost loop over LANES numbers it makes LANES scalar instructions that go through memory
(docs/design/processors.md has the measurements). So the inner loops are written instruction by instruction, in the
language of LLVM, numba's compiler.

``@vector_code`` marks a Python function that runs while numba compiles and writes the instructions as it runs. Its
first argument is a Code, the others are the arguments of the compiled function. Inside it

* an Array is an array whose last axis has LANES numbers: ``x[i, j]`` writes the instruction that loads them and
  ``x[i, j] = value`` the one that stores them;
* a Lanes value stands for a vector register, and ``a * b + c`` writes a multiplication and an addition;
* a Python number beside a Lanes value is a constant of the compiled code;
* ``for k in range(3)`` runs in Python, so its body is written three times, while ``for i in code.loop(0, n)`` writes a
  loop that the compiled code runs;
* what such a loop changes is a Variable.

Where a processor's registers are narrower than LANES numbers, LLVM uses several of them for one Lanes value.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eftcore.ensemble.sums import LANES

BLOCK = 4
"""Rows and columns of a matrix that are worked on together.

Their BLOCK^2 sums and the 2 BLOCK numbers that they are made of fit into 32 vector registers."""

_INDEX = ir.IntType(64)
_FLOAT, _DOUBLE, _WORD, _LONG = (
    ir.VectorType(t, LANES) for t in (ir.FloatType(), ir.DoubleType(), ir.IntType(32), ir.IntType(64))
)
_TYPES = {types.float32: _FLOAT, types.float64: _DOUBLE, types.uint32: _WORD}
_SUFFIX = {_FLOAT: "f32", _DOUBLE: "f64", _WORD: "i32", _LONG: "i64"}
_BITS = {_FLOAT: _WORD, _DOUBLE: _LONG}
_NUMBERS = {_WORD: _FLOAT, _LONG: _DOUBLE}


class Lanes:
    """LANES numbers in a vector register: float32, float64, or words of 32 or 64 bits.

    A Python number in an operation with it stands for LANES copies of that number.
    """

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder = builder
        self.value = value

    def like(self, other: Lanes | float) -> ir.Value:
        """The other operand of an operation; a Python number becomes a constant of this value's type."""
        if isinstance(other, Lanes):
            return other.value
        vector = self.value.type
        number: float
        if vector in _NUMBERS:
            number = int(other) & ((1 << vector.element.width) - 1)
        else:
            number = float(np.float32(other)) if vector == _FLOAT else float(other)
        return ir.Constant(vector, [number] * LANES)

    def new(self, value: ir.Value) -> Lanes:
        """The result of an instruction as a Lanes value."""
        return Lanes(self.builder, value)

    def call(self, name: str, *others: ir.Value) -> Lanes:
        """LLVM's built-in function ``llvm.NAME`` for this value's type, such as fabs or sqrt."""
        vector = self.value.type
        kind = ir.FunctionType(vector, [vector] * (1 + len(others)))
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.v{LANES}{_SUFFIX[vector]}")
        return self.new(self.builder.call(function, (self.value, *others)))

    def __add__(self, other: Lanes | float) -> Lanes:
        add = self.builder.add if self.value.type in _NUMBERS else self.builder.fadd
        return self.new(add(self.value, self.like(other)))

    def __sub__(self, other: Lanes | float) -> Lanes:
        subtract = self.builder.sub if self.value.type in _NUMBERS else self.builder.fsub
        return self.new(subtract(self.value, self.like(other)))

    def __rsub__(self, other: float) -> Lanes:
        return self.new(self.like(other)) - self

    def __mul__(self, other: Lanes | float) -> Lanes:
        return self.new(self.builder.fmul(self.value, self.like(other)))

    def __truediv__(self, other: Lanes | float) -> Lanes:
        return self.new(self.builder.fdiv(self.value, self.like(other)))

    def __rtruediv__(self, other: float) -> Lanes:
        return self.new(self.like(other)) / self

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Lanes:
        return self.new(self.builder.fneg(self.value))

    def __abs__(self) -> Lanes:
        return self.call("fabs")

    def __xor__(self, other: Lanes | int) -> Lanes:
        return self.new(self.builder.xor(self.value, self.like(other)))

    def __and__(self, other: Lanes | int) -> Lanes:
        return self.new(self.builder.and_(self.value, self.like(other)))

    def __or__(self, other: Lanes | int) -> Lanes:
        return self.new(self.builder.or_(self.value, self.like(other)))

    def __lshift__(self, bits: int) -> Lanes:
        return self.new(self.builder.shl(self.value, self.like(bits)))

    def __rshift__(self, bits: int) -> Lanes:
        return self.new(self.builder.lshr(self.value, self.like(bits)))

    def signed_shift(self, bits: int) -> Lanes:
        """Words shifted to the right as signed numbers: copies of the sign bit come in from the left."""
        return self.new(self.builder.ashr(self.value, self.like(bits)))

    def rotate(self, bits: int) -> Lanes:
        """Words rotated to the left: bits that leave on the left come back on the right."""
        return self.call("fshl", self.value, self.like(bits))

    @property
    def is_double(self) -> bool:
        """Whether the numbers are float64."""
        return bool(self.value.type == _DOUBLE)

    def bits(self) -> Lanes:
        """The bits of numbers, as words of the same size."""
        return self.new(self.builder.bitcast(self.value, _BITS[self.value.type]))

    def decoded(self) -> Lanes:
        """The numbers whose bits these words are."""
        return self.new(self.builder.bitcast(self.value, _NUMBERS[self.value.type]))

    def number(self) -> Lanes:
        """Signed whole numbers converted to float32, those of 64 bits to float64."""
        return self.new(self.builder.sitofp(self.value, _NUMBERS[self.value.type]))

    def before(self, low: Lanes) -> Lanes:
        """Words of 64 bits: these 32 bits, followed by those of ``low``."""
        high, low = (self.new(self.builder.zext(word.value, _LONG)) for word in (self, low))
        return high << 32 | low

    def double(self) -> Lanes:
        """The numbers as float64."""
        return self if self.is_double else self.new(self.builder.fpext(self.value, _DOUBLE))

    def single(self) -> Lanes:
        """The numbers rounded to float32."""
        return self.new(self.builder.fptrunc(self.value, _FLOAT)) if self.is_double else self

    def sqrt(self) -> Lanes:
        """Square root."""
        return self.call("sqrt")

    def total(self) -> ir.Value:
        """The sum of the lanes of a float64 value. LLVM chooses the order, the same in every run on one machine."""
        kind = ir.FunctionType(_DOUBLE.element, [_DOUBLE.element, _DOUBLE])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.vector.reduce.fadd.v{LANES}f64")
        return self.builder.call(function, (ir.Constant(_DOUBLE.element, 0.0), self.value), fastmath=("reassoc",))

    def where(self, relation: str, limit: Lanes | float, yes: Lanes | float, no: Lanes | float) -> Lanes:
        """In each lane ``yes`` if ``self relation limit`` holds there, else ``no``. For a NaN no relation holds.

        ``relation`` is "<", ">", "<=", ">=", "==" or "!=". Both sides are computed in every lane.
        """
        condition = self.builder.fcmp_ordered(relation, self.value, self.like(limit))
        return self.new(self.builder.select(condition, self.like(yes), self.like(no)))

    def clip(self, limit: float) -> Lanes:
        """Each number limited to [-limit, limit]; a NaN becomes ``limit``."""
        below = self.where("<", limit, self, limit)
        return below.where(">", -limit, below, -limit)


class Array:
    """A C-contiguous array argument of the function that is being written.

    Where its last axis has LANES numbers, indexing by the axes before it loads and stores Lanes values. Where it has no
    such axis, ``entry``, ``increase`` and ``copies`` reach its single numbers by the indices of all axes.
    """

    def __init__(self, context: Any, builder: ir.IRBuilder, kind: types.Array, value: ir.Value) -> None:
        if kind.layout != "C":
            raise TypeError(f"vector_code: {kind} is not C-contiguous")
        array = context.make_array(kind)(context, builder, value=value)
        self._builder = builder
        self._kind = kind.dtype
        self._data = array.data
        self.shape: list[ir.Value] = cgutils.unpack_tuple(builder, array.shape)

    def __getitem__(self, index: Any) -> Lanes:
        return Lanes(self._builder, self._builder.load(self._place(index), align=4))

    def __setitem__(self, index: Any, value: Lanes) -> None:
        self._builder.store(value.value, self._place(index), align=4)

    @property
    def is_double(self) -> bool:
        """Whether its numbers are float64."""
        return bool(self._kind == types.float64)

    def typed(self, numbers: Lanes) -> Lanes:
        """Numbers in the type of the array, float32 or float64."""
        return numbers.double() if self.is_double else numbers.single()

    def zero(self) -> Lanes:
        """Zero of the array's type in every lane."""
        vector = _TYPES[self._kind]
        return Lanes(self._builder, ir.Constant(vector, [0.0] * LANES))

    def _place(self, index: Any) -> ir.Value:
        index = index if isinstance(index, tuple) else (index,)
        first = self._builder.gep(self._data, [self._builder.mul(self._flat(index), _index(LANES))])
        return self._builder.bitcast(first, _TYPES[self._kind].as_pointer())

    def _flat(self, index: tuple[Any, ...]) -> ir.Value:
        flat: Any = 0
        for size, i in zip(self.shape, index, strict=False):
            flat = _sum(self._builder, self._builder.mul(_index(flat), size), i)
        return _index(flat)

    def entry(self, *index: Any) -> ir.Value:
        """The single number at an index, for instance a position in another array."""
        return self._builder.load(self._builder.gep(self._data, [self._flat(index)]))

    def address(self, *index: Any) -> ir.Value:
        """Where the numbers at the first indices begin in memory, as a 64-bit integer."""
        flat = self._builder.mul(self._flat(index), _index(LANES))
        return self._builder.ptrtoint(self._builder.gep(self._data, [flat]), _INDEX)

    def increase(self, number: ir.Value, *index: Any) -> None:
        """Add a float64 number to the single number at an index."""
        place = self._builder.gep(self._data, [self._flat(index)])
        self._builder.store(self._builder.fadd(self._builder.load(place), number), place)

    def copies(self, *index: Any) -> Lanes:
        """The single number at an index in every lane."""
        return _copies(self._builder, self._kind, self.entry(*index))


class Variable:
    """A Lanes value that loops of the compiled code change. LLVM keeps it in a register where one is free."""

    def __init__(self, builder: ir.IRBuilder, start: Lanes) -> None:
        self._builder = builder
        self._place = cgutils.alloca_once(builder, start.value.type)
        self.set(start)

    def get(self) -> Lanes:
        """Its value at this point of the compiled code."""
        return Lanes(self._builder, self._builder.load(self._place))

    def set(self, value: Lanes) -> None:
        """Give it another value."""
        self._builder.store(value.value, self._place)


class Code:
    """Writes the loops, branches and variables of one function.

    An index is either a Python integer, known while the code is written, or a 64-bit integer of the compiled code.
    """

    def __init__(self, builder: ir.IRBuilder, features: str) -> None:
        self._builder = builder
        self._features = features.split(",")

    def has(self, feature: str) -> bool:
        """Whether the processor that the code is for has these instructions, by LLVM's name for them."""
        return f"+{feature}" in self._features

    def loop(self, start: Any, stop: Any, step: int = 1) -> Iterator[ir.Value]:
        """``for i in code.loop(start, stop, step)`` writes the loop ``for i in range(start, stop, step)``."""
        with cgutils.for_range_slice(self._builder, _index(start), _index(stop), _index(step), _INDEX) as (i, _):
            yield i

    def blocks(self, start: Any, stop: Any) -> Iterator[tuple[ir.Value, int]]:
        """``for first, size in code.blocks(start, stop)`` writes a loop over blocks of BLOCK consecutive indices.

        The last block has what is left. Its size is known only when the code runs, so the body is written once for each
        size from 1 to BLOCK, and ``size`` is a Python integer in each.
        """
        rest = self._builder.srem(self._builder.sub(_index(stop), _index(start)), _index(BLOCK))
        full = self._builder.sub(_index(stop), rest)
        for first in self.loop(start, full, BLOCK):
            yield first, BLOCK
        for size in range(1, BLOCK):
            for _ in self.when(rest, size):
                yield full, size

    def when(self, index: ir.Value, value: int) -> Iterator[None]:
        """``for _ in code.when(index, value)`` writes ``if index == value``."""
        with self._builder.if_then(self._builder.icmp_signed("==", index, _index(value))):
            yield

    def unless(self, index: ir.Value, other: ir.Value) -> Iterator[None]:
        """``for _ in code.unless(index, other)`` writes ``if index != other``."""
        with self._builder.if_then(self._builder.icmp_signed("!=", index, other)):
            yield

    def when_any(self, marked: Lanes) -> Iterator[None]:
        """``for _ in code.when_any(marked)`` writes ``if any lane of the words ``marked`` is not 0``."""
        found = self._builder.icmp_unsigned("!=", marked.value, marked.like(0))
        bits = self._builder.bitcast(found, ir.IntType(LANES))
        with self._builder.if_then(self._builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0)), likely=False):
            yield

    def call(self, address: ir.Value, *indices: Any) -> None:
        """Call the function at an address, which takes 64-bit integers and returns nothing."""
        kind = ir.FunctionType(ir.VoidType(), [_INDEX] * len(indices))
        function = self._builder.inttoptr(address, kind.as_pointer())
        self._builder.call(function, [_index(i) for i in indices])

    def add(self, *indices: Any) -> ir.Value:
        """The sum of some indices."""
        return _sum(self._builder, *indices)

    def minimum(self, one: Any, other: Any) -> ir.Value:
        """The smaller of two indices."""
        one, other = _index(one), _index(other)
        return self._builder.select(self._builder.icmp_signed("<", one, other), one, other)

    def zero(self, dtype: str) -> Lanes:
        """Zero in every lane, of type "float32" or "float64"."""
        return Lanes(self._builder, ir.Constant(_FLOAT if dtype == "float32" else _DOUBLE, [0.0] * LANES))

    def variable(self, start: Lanes) -> Variable:
        """A new Variable with this value."""
        return Variable(self._builder, start)


def _index(i: Any) -> ir.Value:
    return ir.Constant(_INDEX, i) if isinstance(i, int) else i


def _sum(builder: ir.IRBuilder, *indices: Any) -> ir.Value:
    known = sum(i for i in indices if isinstance(i, int))
    total = _index(known)
    for i in indices:
        if not isinstance(i, int):
            total = builder.add(total, i)
    return total


def vector_code(write: Callable[..., None]) -> Any:
    """Make a function that compiled code can call, whose instructions ``write(code, *arguments)`` writes.

    It returns nothing: results go into arrays. In ``write``, an argument that is an array arrives as an Array, an
    integer as a 64-bit index, and a float as a Lanes value with that number in every lane.

    >>> from numba import njit
    >>> @vector_code
    ... def scaled(code, x, factor, out):
    ...     for i in code.loop(0, x.shape[0]):
    ...         out[i] = x[i] * factor
    >>> @njit
    ... def run(x, out):
    ...     scaled(x, 3.0, out)
    >>> x, out = np.ones((2, LANES)), np.empty((2, LANES))
    >>> run(x, out)
    >>> float(out.min()), float(out.max())
    (3.0, 3.0)
    """

    def define(context: Any, *kinds: types.Type) -> Any:
        signature = types.void(*(types.int64 if isinstance(kind, types.Integer) else kind for kind in kinds))

        def generate(target: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            arguments = [_argument(target, builder, *pair) for pair in zip(signature.args, values, strict=True)]
            write(Code(builder, target.codegen().magic_tuple()[2]), *arguments)
            return target.get_dummy_value()

        return signature, generate

    names = list(inspect.signature(write).parameters)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    define.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    define.__name__, define.__doc__, define.__qualname__ = write.__name__, write.__doc__, write.__qualname__
    return intrinsic(define)


def _argument(target: Any, builder: ir.IRBuilder, kind: types.Type, value: ir.Value) -> Any:
    if isinstance(kind, types.Array):
        return Array(target, builder, kind, value)
    return _copies(builder, kind, value) if isinstance(kind, types.Float) else value


def _copies(builder: ir.IRBuilder, kind: types.Type, value: ir.Value) -> Lanes:
    unknown = ir.Constant(_TYPES[kind], ir.Undefined)
    first = builder.insert_element(unknown, value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return Lanes(builder, builder.shuffle_vector(first, unknown, mask))
