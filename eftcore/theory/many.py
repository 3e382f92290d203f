"""predict_many: the predictions of many specs, computed together."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from eftcore.batches import batched
from eftcore.errors import within
from eftcore.results import Theory
from eftcore.specs import PredictionSpec
from eftcore.theory.mean_field import shared_paths
from eftcore.theory.prediction import prediction
from eftcore.theory.solving import calmly
from eftcore.theory.together import Outcome, together

MOST_BYTES = 1.5e8
"""About how much memory the specs that are computed at a time may take, beside the results."""

HELD = 4
"""Solutions of a spec, at different resolutions, that are held at a time; and about as many K0 of its network."""


def predict_many(specs: Sequence[PredictionSpec]) -> list[Theory]:
    """The predictions of any specs, in their order: the i-th is what ``predict_spec(specs[i])`` returns.

    Networks with one activation and as many inputs, layers and recorded depths go through the Gaussian integrals and
    from layer to layer together, each with the resolution, the interpolation and the order that it gets alone. The
    numbers agree with those of ``predict_spec`` up to rounding: 1e-12 of the largest entry over depth, where K1 and U1
    are measured by at least |V4| / |K0|. Closures "mean", "source_only", "g_only", "sigma" and "exact" by sines and
    cosines gain; what cannot be computed together (continuous depth, the next order, "particle", Wick powers, other
    blocks than the paper's, activations with kinks away from 0) is computed one by one, so that any specs may be mixed.
    Memory beyond the results is bounded: many specs are taken in batches.

    Warnings are those of ``predict_spec``, in the order of the specs; their texts begin with the place, "specs[3]: ".

    Raises InputError where a prediction fails, with the error that ``predict_spec`` raises, in the place ("specs", i).
    Of several that fail it is the one with the smallest i. All specs were computed by then, but nothing is returned of
    the others: take the failing one out, or predict one by one.

    >>> from eftcore.inputs.kernel import InputKernel
    >>> from eftcore.specs import ResNet
    >>> kernel = InputKernel.explicit([[1.0]])
    >>> models = [ResNet(activation="relu", weight_variance=c, epsilon=0.1, depth=10) for c in (1.0, 2.0)]
    >>> specs = [PredictionSpec(model=model, kernel=kernel, closure="mean") for model in models]
    >>> [round(float(theory.mean[-1, 0, 0]), 6) for theory in predict_many(specs)]
    [1.05114, 1.104622]
    """
    outcomes: dict[int, Outcome[Theory]] = {}
    warned: list[list[Warning]] = [[] for _ in specs]
    try:
        for batch in _batches(specs):
            with calmly(), shared_paths():
                found = together([prediction(specs[i], warned[i]) for i in batch])
            outcomes.update(zip(batch, found, strict=True))
    finally:
        for i, each in enumerate(warned):
            for warning in each:
                warnings.warn(f"specs[{i}]: {warning}", type(warning), stacklevel=2)
    theories = []
    for i in range(len(specs)):
        with within("specs", i):
            theories.append(outcomes[i].found)
    return theories


def _batches(specs: Sequence[PredictionSpec]) -> Iterator[list[int]]:
    """Positions of specs that are computed at a time; those that may be computed together are next to each other."""
    alike = sorted(range(len(specs)), key=lambda i: _order(specs[i]))
    return batched(alike, lambda i: _bytes(specs[i]), MOST_BYTES)


def _order(spec: PredictionSpec) -> tuple[Any, ...]:
    model = spec.model
    network = model.epsilon, model.weight_variance, model.bias_variance, spec.kernel.matrix
    return model.activation, model.block, model.normalisation or "", spec.kernel.n_inputs, model.depth, network


def _bytes(spec: PredictionSpec) -> float:
    """About how much memory a spec takes while it is computed, beside what its batch has in common."""
    n_inputs = spec.kernel.n_inputs
    pairs = n_inputs * (n_inputs + 1) // 2
    recorded = len(spec.depths or ()) * (2 * pairs**2 + 3 * n_inputs**2)
    path = 2 * (spec.model.depth + 1) * n_inputs**2
    return 8.0 * HELD * (recorded + path)
