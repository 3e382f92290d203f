"""The residual stream of a torch module: which modules are its blocks, and what flows through them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from eftcore.errors import InputError

Positions = Literal["average", "separate"]


@dataclass(frozen=True)
class Reading:
    """How a stream is read.

    Attributes:
        blocks: names of the blocks in the order in which they are called.
        feature_axis: axis of the stream that counts neurons.
        positions: what is done with axes other than samples and neurons (tokens, pixels): None where there are none,
            "average" for kernels averaged over them, "separate" where each position counts as an input of its own.
    """

    blocks: tuple[str, ...]
    feature_axis: int = -1
    positions: str | None = None


def find_blocks(module: nn.Module, inputs: Any, pattern: str | None) -> tuple[str, ...]:
    """Names of the blocks of the residual stream, from one pass forward.

    With a pattern, such as "blocks.*", those modules whose names match; a star stands for one part of a name. Without
    one, the longest row of modules with the same parent of which each gets what the last one gave, of the same shape.
    Raises InputError where there are none.
    """
    calls = _calls(module, inputs)
    if pattern is not None:
        matching = re.compile(
            "".join(r"[^.]+" if part == "*" else re.escape(part) for part in re.split(r"(\*)", pattern))
        )
        found = tuple(call.name for call in calls if matching.fullmatch(call.name))
        if not found:
            raise InputError(
                "no module that is called has such a name",
                place="stream",
                value=pattern,
                remedy=f"the modules are {_listed([call.name for call in calls])}",
            )
        return found
    rows: dict[str, list[list[_Call]]] = {}
    for call in calls:
        if call.leaf or not call.same_shape:
            continue
        row = rows.setdefault(call.name.rpartition(".")[0], [[]])
        if row[-1] and row[-1][-1].gave is not call.got:
            row.append([])
        row[-1].append(call)
    longest = max((row for several in rows.values() for row in several), key=len, default=[])
    if not longest:
        raise InputError(
            "no residual stream was found: no module with parts of its own gives what it gets in shape",
            place="stream",
            remedy=f"name its blocks, as in stream = 'blocks.*'; the modules are {_listed([c.name for c in calls])}",
        )
    return tuple(call.name for call in longest)


def read(module: nn.Module, inputs: Any, reading: Reading) -> np.ndarray:
    """(L+1, N, positions, n) float64: the stream before the first block and after each, for N inputs and n neurons.

    There is one position unless ``positions`` is "average"; with "separate" positions are inputs, those of a sample one
    after the other. Raises InputError for a stream of another form, and for one that is not finite.
    """
    states: list[torch.Tensor] = []

    def before(_: nn.Module, got: Any) -> None:
        states.append(_tensor(got))

    def after(_: nn.Module, __: Any, gave: Any) -> None:
        states.append(_tensor(gave))

    parts = dict(module.named_modules())
    hooks = [parts[reading.blocks[0]].register_forward_pre_hook(before)]
    hooks += [parts[name].register_forward_hook(after) for name in reading.blocks]
    try:
        _forward(module, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    shapes = {tuple(state.shape) for state in states}
    if len(shapes) > 1:
        raise InputError(
            f"its blocks give different shapes, {_listed(sorted(map(str, shapes)))}",
            place="stream",
            remedy="name blocks of one stream",
        )
    arrays = np.stack([_arranged(state, reading) for state in states])
    if not np.isfinite(arrays).all():
        layer = int(np.argmin(np.isfinite(arrays).all((1, 2, 3))))
        where = f"after {reading.blocks[layer - 1]!r}" if layer else f"before {reading.blocks[0]!r}"
        raise InputError(f"the stream is not finite {where}", place="make_model", remedy="look at that block")
    return arrays


def _arranged(state: torch.Tensor, reading: Reading) -> np.ndarray:
    """(N, positions, n) a state as samples by positions by neurons."""
    array = state.detach().cpu().double().numpy()
    if array.ndim > 1:
        array = np.moveaxis(array, reading.feature_axis, -1)
    if array.ndim == 2:
        return array[:, None]
    if array.ndim < 2 or reading.positions is None:
        raise InputError(
            f"the stream has shape {tuple(state.shape)}: it is not (samples, neurons)",
            place="positions",
            value=reading.positions,
            remedy="say what becomes of the other axes: positions = 'average' or 'separate', and feature_axis if"
            " neurons are not last",
        )
    if reading.positions == "average":
        return array.reshape(len(array), -1, array.shape[-1])
    return array.reshape(-1, 1, array.shape[-1])


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a module: what it got and what it gave."""

    name: str
    leaf: bool
    got: torch.Tensor | None
    gave: torch.Tensor | None

    @property
    def same_shape(self) -> bool:
        return self.got is not None and self.gave is not None and self.got.shape == self.gave.shape


def _calls(module: nn.Module, inputs: Any) -> list[_Call]:
    """The calls of all modules but the whole, in the order in which they begin."""
    begun: list[tuple[str, nn.Module, torch.Tensor | None]] = []
    ended: dict[int, _Call] = {}
    open_calls: list[int] = []
    hooks = []
    for name, part in module.named_modules():
        if not name:
            continue

        def before(part: nn.Module, got: Any, name: str = name) -> None:
            open_calls.append(len(begun))
            begun.append((name, part, _tensor(got, strict=False)))

        def after(part: nn.Module, got: Any, gave: Any) -> None:
            place = open_calls.pop()
            name, _, came = begun[place]
            leaf = type(part).__module__.startswith("torch.nn.") and not list(part.children())
            ended[place] = _Call(name, leaf, came, _tensor(gave, strict=False))

        hooks += [part.register_forward_pre_hook(before), part.register_forward_hook(after)]
    try:
        _forward(module, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [ended[place] for place in sorted(ended)]


def _tensor(value: Any, *, strict: bool = True) -> Any:
    """The tensor of the stream among the arguments or results of a block: the first one."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, tuple | list):
        for part in value:
            if isinstance(part, torch.Tensor):
                return part
    if strict:
        raise InputError(f"a block gets or gives no tensor but {type(value).__name__}", place="stream")
    return None


def _forward(module: nn.Module, inputs: Any) -> None:
    with torch.no_grad():
        try:
            module(inputs)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the module cannot take inputs of shape {tuple(inputs.shape)} and type {inputs.dtype}"
                f" ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})",
                place="inputs",
                remedy="pass a batch that it takes",
            ) from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block torch's random numbers are those of a seed; those of the caller are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def make(make_model: Callable[[], Any], seed: int, *, train: bool, dtype: torch.dtype, device: str) -> nn.Module:
    """One initialisation. Raises InputError where the factory fails or gives no module."""
    with seeded(seed):
        try:
            module = make_model()
        except Exception as error:
            raise InputError(
                f"it failed ({type(error).__name__}: {error})",
                place="make_model",
                remedy="it is called without arguments",
            ) from error
    if not isinstance(module, nn.Module):
        raise InputError(
            f"it gives no torch.nn.Module but {type(module).__name__}", place="make_model", remedy="return the module"
        )
    return module.to(device=device, dtype=dtype).train(train)


def _listed(names: list[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "") or "none"
