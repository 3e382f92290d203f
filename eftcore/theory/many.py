"""predict_many: the predictions of many specs, computed together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from eftcore.errors import within
from eftcore.results import Theory
from eftcore.specs import PredictionSpec
from eftcore.theory.prediction import predict_spec


def predict_many(specs: Sequence[PredictionSpec]) -> list[Theory]:
    """The predictions of any specs, in their order: the i-th is what ``predict_spec(specs[i])`` returns.

    Warnings are those of ``predict_spec``, in the order of the specs; their texts begin with the place, "specs[3]: ".

    Raises InputError where a prediction fails, with the error that ``predict_spec`` raises, in the place ("specs", i).
    Of several that fail it is the first; nothing is returned of the others then. Take the failing spec out, or predict
    the specs one by one.

    >>> from eftcore.inputs.kernel import InputKernel
    >>> from eftcore.specs import ResNet
    >>> kernel = InputKernel.explicit([[1.0]])
    >>> models = [ResNet(activation="relu", weight_variance=c, epsilon=0.1, depth=10) for c in (1.0, 2.0)]
    >>> specs = [PredictionSpec(model=model, kernel=kernel, closure="mean") for model in models]
    >>> [round(float(theory.mean[-1, 0, 0]), 6) for theory in predict_many(specs)]
    [1.05114, 1.104622]
    """
    found = []
    for i, spec in enumerate(specs):
        with within("specs", i), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            theory = predict_spec(spec)
        for warning in caught:
            warnings.warn(f"specs[{i}]: {warning.message}", warning.category, stacklevel=2)
        found.append(theory)
    return found
