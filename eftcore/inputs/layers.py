"""The number of layers L = T / epsilon^2 for a total time T."""

from __future__ import annotations

from eftcore.errors import InputError, within
from eftcore.inputs.sizes import DEEPEST, check_epsilon


def nearest_layers(total_time: float, epsilon: float) -> int:
    """The whole number of layers nearest to T / epsilon^2, at least 1.

    Raises InputError unless both numbers are positive and a network may have as many layers.

    >>> nearest_layers(2.0, 0.1), nearest_layers(2.003, 0.1)
    (200, 200)
    """
    if not epsilon > 0 or not total_time > 0:
        place, value = ("total_time", total_time) if epsilon > 0 else ("epsilon", epsilon)
        raise InputError("must be greater than 0", place=place, value=value)
    with within("epsilon"):
        check_epsilon(epsilon)
    layers = total_time / epsilon**2
    if not layers <= DEEPEST:
        raise InputError(
            f"with epsilon = {epsilon} it takes {layers:.3g} layers, more than the {DEEPEST} of a network",
            place="total_time",
            value=total_time,
            remedy="give a shorter time or a larger epsilon",
        )
    return max(1, round(layers))


def whole_layers(total_time: float, epsilon: float) -> int:
    """L = T / epsilon^2, which must be a whole number up to rounding. Raises InputError as ``nearest_layers``, too.

    >>> whole_layers(2.0, 0.1)
    200
    """
    whole = nearest_layers(total_time, epsilon)
    layers = total_time / epsilon**2
    if abs(layers - whole) > 1e-9 * whole:
        raise InputError(
            f"with epsilon = {epsilon} it takes {layers:.6g} layers, which must be whole",
            place="total_time",
            value=total_time,
            remedy=f"the nearest is total_time = {whole * epsilon**2:.12g}, or give depth",
        )
    return whole
