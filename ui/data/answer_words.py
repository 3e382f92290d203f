"""The answer of the first page in words: Markdown, with layers beside t, and with what is not known said as such."""

from __future__ import annotations

import math

from eftcore.theory.next_order.law import NARROWEST
from ui.data.answer import LEVEL, Answer, Judged
from ui.notation import number

_WHY_UNKNOWN = 0.5
"""Relative error of the coefficient of 1/n from which on nothing is concluded from it."""


def headline(answer: Answer) -> str:
    """Which theory to use, and how deep it surely holds at this width."""
    best, within = answer.best, f"within {100 * answer.tolerance:g} %"
    if answer.vanishes:
        return f"**{answer.quantity} is 0** at every layer, and relative errors of it mean nothing"
    if best is not None:
        return f"Use **{best.name}**: {within} {_reach(answer, best)}"
    if not any(each.finite_width for each in answer.judged):
        deepest = max(answer.judged, key=lambda each: each.certain or 0)
        if deepest.certain is None:
            return f"**Not known**: no theory is sure to be {within} even at infinite width"
        return (
            f"**Not known at width {answer.width}**: {deepest.name} is {within} {_reach(answer, deepest)} at infinite "
            "width, and what finite width adds is not known"
        )
    if all(each.refuted is not None for each in answer.judged):
        return f"**Use a simulation**: no theory is {within} at width {answer.width}, not even in the first layers"
    return f"**Not known**: the errors of the theories are too large to tell whether they are {within}"


def details(answer: Answer) -> list[str]:
    """What else there is to say, a sentence each: the simpler theories, the width, the kernel of one network."""
    best = answer.best
    others = answer.judged if best is None else answer.judged[: answer.judged.index(best)]
    if answer.vanishes:
        others = ()
    found = [f"{_capital(each.name)}: {_reach(answer, each)}." for each in others if each.finite_width]
    if best is not None and not answer.vanishes:
        found.append(_from_width(answer, best))
    interval = answer.interval
    infinite = answer.reference.mean[-1, 0, 0]
    if interval is not None:
        low, high, measured = interval
        doubt = "" if measured else " (outside of the range in which this law was measured)"
        found.append(
            f"The kernel of one network, for the first input at layer {answer.model.depth}, lies in "
            f"**[{number(low, 3)}, {number(high, 3)}]** with {100 * LEVEL:g} %{doubt}; "
            f"at infinite width it is {number(infinite, 3)}."
        )
    else:
        found.append(
            f"At infinite width the kernel of the first input is {number(infinite, 3)} at layer {answer.model.depth}; "
            "how far one network is from it is not known without the next order in 1/n."
        )
    return found


def caveats(answer: Answer) -> list[str]:
    """What the answer rests on, and what is uncertain in it."""
    quantity, n = answer.quantity, answer.width
    found = [f"Reference: the exact leading order in 1/n; relative error of {quantity} about {answer.error:.0e}."]
    error = answer.next_error
    if error is None:
        found.append(
            f"What finite width adds to {quantity} is not known: the next order in 1/n does not converge here."
        )
    elif error >= _WHY_UNKNOWN:
        found.append(
            f"What finite width adds to {quantity} is known to {100 * error:.0f} % only, too little to conclude from."
        )
    else:
        found.append(
            f"What width {n} adds: the next order in 1/n, known to {_percent(error)}; what comes after it is counted "
            "as if the series went on like a geometric one."
        )
    if answer.partial:
        found.append(
            "The next order is known for entries of up to two different inputs; the others do not count in the error."
        )
    step = math.ceil(answer.model.depth / max(len(answer.reference.depth) - 1, 1))
    if step > 1:
        found.append(f"Layers are looked at in steps of {step}.")
    return found


def _reach(answer: Answer, judged: Judged) -> str:
    """How deep a theory surely holds, and where it surely does not."""
    depth = answer.model.depth
    if judged.certain is None:
        return "at no layer for sure" if judged.refuted is None else "at no layer"
    early = int(answer.reference.depth[min(1, len(answer.reference.depth) - 1)])
    start = "" if (judged.first or 0) <= early else f"from layer {judged.first}, before which it cannot be told, "
    if judged.certain == depth:
        return f"{start}down to the last of {depth} layers"
    found = f"{start}down to layer {judged.certain} of {depth} (t = {number(_time(answer, judged.certain), 3)})"
    if judged.refuted is None:
        return f"{found}, not known below"
    after = [int(layer) for layer in answer.reference.depth if layer > judged.certain]
    return found if not after or judged.refuted <= after[0] else f"{found}, surely not from layer {judged.refuted} on"


def _from_width(answer: Answer, judged: Judged) -> str:
    where = f"{_capital(judged.name)} holds at all {answer.model.depth} layers"
    if math.isinf(judged.least):
        return f"{where} at no width: infinitely wide networks leave it by more than {100 * answer.tolerance:g} %."
    if math.isnan(judged.most) or math.isinf(judged.most):
        but = "" if math.isnan(judged.least) else f", but not below width {math.ceil(judged.least)}"
        return f"From which width on {judged.name} holds at all layers is not known{but}."
    least, most = math.ceil(judged.least), math.ceil(judged.most)
    if most <= NARROWEST:
        return f"{where} from width **{NARROWEST}** on at least; narrower networks are beyond what 1/n theories tell."
    between = f", surely not below {least}" if 1 < least < most else ""
    return f"{where} from width **{most}** on{between}."


def _time(answer: Answer, layer: int) -> float:
    return answer.model.epsilon**2 * layer


def _percent(error: float) -> str:
    return f"{100 * error:.2g} %" if error >= 1e-4 else f"{error:.0e}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
