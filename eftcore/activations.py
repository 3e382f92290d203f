"""Activations by name, and those that users register. Theory and simulation use the same object.

An activation is named by text, with parameters in parentheses: ``"tanh"``, ``"softplus(beta=2)"``. Those that come with
the program are in eftcore.activation_families.
Closed forms of Gaussian expectations live in eftcore.gaussian.closed_forms, keyed by the same family names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from eftcore.activation_families import DERIVATIVES, FAMILIES, Parity
from eftcore.errors import InputError
from eftcore.kinks import find_kinks

if TYPE_CHECKING:
    import torch

MANY_KINKS = 100
"""Most kinks that a registered activation may have."""

_PROBES = np.array([-3.0, -1.0, -0.25, 0.0, 0.5, 1.5, 4.0])


@dataclass(frozen=True, eq=False)
class Activation:
    """sigma and its properties.

    Attributes:
        name: canonical text, as accepted by get_activation.
        family: name without parameters.
        parameters: values of the parameters by name.
        function: numpy sigma, elementwise.
        derivatives: x -> (5, *x.shape) array of sigma and its derivatives 1..4; None where sigma has kinks (the theory
            then integrates by parts onto Hermite polynomials).
        torch_function: torch sigma, elementwise.
        slope: sigma' away from kinks, for an activation that has kinks.
        parity: "odd", "even" or None.
        kinks: points where sigma or its slope jumps.
        builtin: False for one registered by the user.
    """

    name: str
    family: str
    parameters: dict[str, float] = field(default_factory=dict)
    function: Callable[[np.ndarray], np.ndarray] = field(repr=False, default=lambda x: x)
    derivatives: Callable[[np.ndarray], np.ndarray] | None = field(repr=False, default=None)
    torch_function: Callable[[torch.Tensor], torch.Tensor] = field(repr=False, default=lambda x: x)
    slope: Callable[[np.ndarray], np.ndarray] | None = field(repr=False, default=None)
    parity: Parity | None = None
    kinks: tuple[float, ...] = ()
    builtin: bool = True

    def pointwise_slope(self, x: np.ndarray) -> np.ndarray:
        """sigma' away from kinks, from ``slope`` or else by sixth-order differences that do not cross a kink.

        The error of the differences is about 1e-12 where sigma varies on a scale of order 1, and at most 1e-10 where it
        varies on a scale of 1/40.
        """
        if self.slope is not None:
            return self.slope(x)
        kinks = np.array(self.kinks)
        gap = np.abs(x[..., None] - kinks).min(-1) if len(kinks) else np.inf
        step = np.minimum(2e-3, np.maximum(gap, 1e-9) / 4)
        total = np.zeros_like(x)
        for offset, weight in ((1, 45.0), (2, -9.0), (3, 1.0)):
            right, left = (np.asarray(self.function(x + sign * offset * step), dtype=float) for sign in (1, -1))
            total += weight * (right - left)
        slope: np.ndarray = total / (60 * step)
        return slope

    @property
    def jumps(self) -> tuple[float, ...]:
        """Kinks at which sigma itself is discontinuous."""
        kinks = np.array(self.kinks)
        step = 1e-7 * np.maximum(np.abs(kinks), 1.0)
        left, right = (np.asarray(self.function(kinks + sign * step), dtype=float) for sign in (-1, 1))
        far = np.abs(np.asarray(self.function(kinks + 1e-1)) - np.asarray(self.function(kinks - 1e-1)))
        return tuple(kinks[np.abs(right - left) > np.maximum(1e-3 * far, 1e-12)].tolist())

    def torch(self, x: torch.Tensor) -> torch.Tensor:
        """sigma of a torch tensor, elementwise."""
        return self.torch_function(x)

    def identity(self) -> Any:
        """What a digest holds of the activation: the name with its parameters to 17 digits.

        For an activation registered by the user it holds the name and the values of sigma at fixed points.
        """
        if self.builtin:
            return _named(self.family, self.parameters, lambda value: f"{value:.17g}")
        return {"name": self.name, "probes": [float(f"{v:.12g}") for v in self.function(_PROBES.copy())]}


_REGISTERED: dict[str, Activation] = {}


def activation_names() -> list[str]:
    """Every known family, sorted."""
    return sorted({*FAMILIES, *_REGISTERED})


def get_activation(name: str) -> Activation:
    """The activation with this name. Raises InputError for an unknown family or parameter.

    >>> get_activation("tanh").function(np.array([0.0]))
    array([0.])
    >>> get_activation("softplus( beta = 2.0 )").name
    'softplus(beta=2)'
    >>> get_activation("leaky_relu(slope=.20)").name
    'leaky_relu(slope=0.2)'
    """
    if not isinstance(name, str):
        raise InputError("must be text", value=name, remedy=f"known: {', '.join(activation_names())}")
    return _resolve(name.strip())


@lru_cache(maxsize=256)
def _resolve(text: str) -> Activation:
    if text in _REGISTERED:
        return _REGISTERED[text]
    match = re.fullmatch(r"(\w+)\s*(?:\((.*)\))?", text)
    family = FAMILIES.get(match.group(1)) if match else None
    if match is None or family is None:
        raise InputError("unknown", value=text, remedy=f"known: {', '.join(activation_names())}")
    parameters, given = dict(family.defaults), set[str]()
    for part in filter(None, (piece.strip() for piece in (match.group(2) or "").split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in parameters:
            known = ", ".join(parameters) or "none"
            raise InputError(f"unknown parameter {key!r}", value=text, remedy=f"{match.group(1)} takes: {known}")
        if key in given:
            raise InputError(f"{key} is given twice", value=text, remedy="leave one out")
        given.add(key)
        try:
            parameters[key] = float(value)
        except ValueError:
            raise InputError(f"{key} is not a number, but {value!r}", value=text) from None
        if not math.isfinite(parameters[key]):
            raise InputError(f"{key} must be finite, and is {value!r}", value=text)
    canonical = _named(match.group(1), parameters, _shortest)
    return Activation(name=canonical, family=match.group(1), parameters=parameters, **family.build(**parameters))


def canonical_name(text: str) -> str:
    """The name under which results with this activation are stored, whatever the spelling of ``text``.

    The name of an unknown activation is returned unchanged.

    >>> canonical_name("leaky_relu( slope = 2e-1 )"), canonical_name("leaky_relu(slope=0.20000000000000001)")
    ('leaky_relu(slope=0.2)', 'leaky_relu(slope=0.2)')
    >>> canonical_name("my_sigma")
    'my_sigma'
    """
    try:
        return get_activation(text).name
    except InputError:
        return text


def _named(family: str, parameters: Mapping[str, float], show: Callable[[float], str]) -> str:
    """The family with those parameters that differ from their defaults."""
    defaults = FAMILIES[family].defaults
    shown = ", ".join(f"{key}={show(value)}" for key, value in parameters.items() if value != defaults[key])
    return family + (f"({shown})" if shown else "")


def _shortest(value: float) -> str:
    """The shortest text that reads back as the same number; whole numbers without a point."""
    return repr(value).removesuffix(".0")


def register_activation(
    name: str,
    function: Callable[[np.ndarray], np.ndarray],
    *,
    torch_function: Callable[[torch.Tensor], torch.Tensor] | None = None,
    parity: Parity | None = None,
    kinks: tuple[float, ...] = (),
) -> Activation:
    """Register a user's sigma under ``name``, by which models can then refer to it.

    Kinks, where sigma or one of its first three derivatives jumps, are found automatically for |x| <= 40; ``kinks``
    adds others. With ``torch_function`` and no kinks the derivatives come from torch's automatic differentiation;
    otherwise the theory integrates by parts onto Hermite polynomials and needs none. The fused pass on processors takes
    polynomials fitted to ``function`` (eftcore.ensemble.piecewise); the general engine calls ``torch_function``, or
    ``function`` on numpy arrays where there is none.

    Raises InputError for a name that is taken or not an identifier, a sigma that is not finite on a few points or
    jumps at very many, or a parity that those points contradict.

    >>> register_activation("hardtanh", lambda x: np.clip(x, -1, 1)).kinks
    (-1.0, 1.0)
    >>> unregister_activation("hardtanh")
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError("must be an identifier such as 'my_sigma'", place="name", value=name)
    if name in FAMILIES or name in _REGISTERED:
        raise InputError("is taken", place="name", value=name, remedy="choose another")
    values = np.asarray(function(_PROBES.copy()), dtype=float)
    if values.shape != _PROBES.shape or not np.isfinite(values).all():
        raise InputError("sigma must map an array to finite numbers of the same shape", place="function")
    if parity is not None:
        mirrored = np.asarray(function(-_PROBES), dtype=float) * (1 if parity == "even" else -1)
        if not np.allclose(values, mirrored, rtol=1e-9, atol=1e-12):
            raise InputError(f"sigma is not {parity}", place="parity", value=parity, remedy="leave parity out")
    kinks = tuple(sorted({float(k) for k in kinks} | _undeclared_kinks(function, kinks)))
    activation = Activation(
        name=name,
        family=name,
        function=function,
        derivatives=None if kinks or torch_function is None else _autograd_derivatives(torch_function),
        torch_function=torch_function or _through_numpy(function),
        parity=parity,
        kinks=kinks,
        builtin=False,
    )
    _REGISTERED[name] = activation
    _resolve.cache_clear()
    return activation


def _undeclared_kinks(function: Callable[[np.ndarray], np.ndarray], declared: tuple[float, ...]) -> set[float]:
    found = [kink for kink in find_kinks(function) if all(abs(kink - known) > 1e-3 for known in declared)]
    if len(found) > MANY_KINKS:
        raise InputError(
            f"sigma jumps or bends at {len(found)} places at least",
            place="function",
            remedy=f"compute it in double precision, or take one with at most {MANY_KINKS} kinks",
        )
    return set(found)


def unregister_activation(name: str) -> None:
    """Forget a registered activation. Raises InputError if there is none of that name."""
    if _REGISTERED.pop(name, None) is None:
        raise InputError("no registered activation has it", place="name", value=name)
    _resolve.cache_clear()


def _autograd_derivatives(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    def derivatives(x: np.ndarray) -> np.ndarray:
        import torch

        point = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        values = [function(point)]
        for _ in range(DERIVATIVES):
            last = values[-1]
            slope = None
            if last.requires_grad:
                (slope,) = torch.autograd.grad(last.sum(), point, create_graph=True, allow_unused=True)
            values.append(torch.zeros_like(point) if slope is None else slope)
        return np.stack([value.detach().numpy() for value in values])

    return derivatives


def _through_numpy(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[torch.Tensor], torch.Tensor]:
    def torch_function(x: torch.Tensor) -> torch.Tensor:
        import torch

        values = np.asarray(function(x.detach().cpu().double().numpy()), dtype=float)
        return torch.from_numpy(values).to(x)

    return torch_function
