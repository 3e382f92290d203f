"""What the fused pass does once per layer: observations, the linear response, the next covariance."""

from __future__ import annotations

from typing import Any

from eftcore.ensemble.cpu.lanes import Array, Code, Lanes, vector_code


@vector_code
def covariances(code: Code, moment: Array, bias_variance: Lanes, scale: Lanes, out: Array) -> None:
    """out = C_b + scale moment[0], the upper triangles of (N, N, LANES); ``scale`` is C_W / n."""
    size = out.shape[0]
    for a in code.loop(0, size):
        for b in code.loop(a, size):
            out[a, b] = moment[0, a, b] * scale + bias_variance


@vector_code
def single(code: Code, factor: Array, scale: Lanes, out: Array, copy: Any) -> None:
    """out[copy] = scale factor in float32, both (..., N, N, LANES)."""
    size = factor.shape[0]
    for a in code.loop(0, size):
        for b in code.loop(0, size):
            out[copy, a, b] = (factor[a, b] * scale).single()


@vector_code
def spread(code: Code, matrices: Array, layer: Any, scale: Lanes, out: Array, copy: Any) -> None:
    """out[copy] = scale matrices[layer] of (L, N, N) in every lane, in float32."""
    size = matrices.shape[1]
    for a in code.loop(0, size):
        for b in code.loop(0, size):
            out[copy, a, b] = (matrices.copies(layer, a, b) * scale).single()


@vector_code
def shift(code: Code, susceptibility: Array, neighbours: Array, layer: Any, response: Array, out: Array) -> None:
    """out = chi u of (P, LANES), with chi (L+1, P, 3) at the pairs ``neighbours`` (P, 3)."""
    for p in code.loop(0, response.shape[0]):
        terms = [susceptibility.copies(layer, p, k) * response[neighbours.entry(p, k)] for k in range(3)]
        out[p] = terms[0] + terms[1] + terms[2]


@vector_code
def respond(
    code: Code,
    response: Array,
    shifted: Array,
    moment: Array,
    layer: Any,
    expected: Array,
    table: Array,
    step: Lanes,
    scale: Lanes,
    weight_variance: Lanes,
) -> None:
    """u += eps^2 (chi u + C_W (S~ - E2)), with S~ in moment[1]; ``step`` is eps^2, ``scale`` C_W / n."""
    size = table.shape[0]
    for a in code.loop(0, size):
        for b in code.loop(a, size):
            p = table.entry(a, b)
            drive = moment[1, a, b] * scale - weight_variance * expected.copies(layer, p)
            response[p] = response[p] + step * (shifted[p] + drive)


@vector_code
def observe(
    code: Code,
    observed: Array,
    bundle: Any,
    row: Any,
    sums: Array,
    quantity: Any,
    reference: Array,
    table: Array,
    scale: Lanes,
) -> None:
    """observed[bundle, row, quantity] = scale sums[0] - reference[quantity, row] in pair space; ``scale`` is 1 / n."""
    size = table.shape[0]
    for a in code.loop(0, size):
        for b in code.loop(a, size):
            p = table.entry(a, b)
            observed[bundle, row, quantity, p] = sums[0, a, b] * scale - reference.copies(quantity, row, p)


@vector_code
def observe_rest(
    code: Code,
    observed: Array,
    bundle: Any,
    row: Any,
    sums: Array,
    quantity: Any,
    control: Array,
    table: Array,
    scale: Lanes,
    weight: Lanes,
) -> None:
    """observed[bundle, row, quantity] = scale (sums[0] - sums[1]) - weight control, in pair space."""
    size = table.shape[0]
    for a in code.loop(0, size):
        for b in code.loop(a, size):
            p = table.entry(a, b)
            change = (sums[0, a, b] - sums[1, a, b]) * scale
            observed[bundle, row, quantity, p] = change - control[p] * weight
