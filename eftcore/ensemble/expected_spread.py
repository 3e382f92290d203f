"""The relative variance of one network's kernel, from theory (docs/theory.md, section 7.6).

It is needed to mark standard errors that cannot be trusted. A sample with heavy tails whose standard errors are too
small also shows too small a spread, so the spread of the sample itself would leave out just the marks that matter.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from eftcore.ensemble.leading_order import leading_order
from eftcore.ensemble.reference import Path
from eftcore.inputs.kernel import InputKernel
from eftcore.specs import EnsembleSpec, ResNet

RTOL = 0.1
"""Relative error to which the leading order is computed."""

LARGEST_ERROR = 0.25
"""Relative error of the leading order above which the variance counts as unknown."""


def relative_variance(spec: EnsembleSpec) -> np.ndarray:
    """(R, N) leading-order Var(G_aa) / K0_aa^2 at the recorded layers, of each input alone; NaN where unknown.

    >>> from eftcore import ResNet
    >>> model = ResNet(activation="linear", weight_variance=2.0, epsilon=0.1, depth=3)
    >>> spec = EnsembleSpec(model=model, kernel=InputKernel.explicit([[1.5]]), width=20, depths=(0,))
    >>> relative_variance(spec).round(6).tolist()
    [[0.1]]
    """
    # one input at a time: the law of G_aa does not depend on the other inputs, and the series of one input is short
    assert spec.depths is not None
    variances = [float(x) for x in np.diag(spec.kernel.array)]
    return np.stack([_times_width(spec.model, spec.depths, spec.width, x) for x in variances], axis=1) / spec.width


@lru_cache(maxsize=64)
def _times_width(model: ResNet, depths: tuple[int, ...], width: int, variance: float) -> np.ndarray:
    if variance <= 0:
        return np.full(len(depths), np.nan)
    spec = EnsembleSpec(model=model, kernel=InputKernel.explicit([[variance]]), depths=depths, width=width)
    kernel = Path(spec).reference.kernel[:, 0]
    found = leading_order(spec, RTOL)
    if found is None:
        return np.full(kernel.shape, np.nan)
    value, error = found.covariance[:, 0, 0], found.error[:, 0, 0]
    known = np.isfinite(value) & (value > 0) & (kernel > 0) & (error <= LARGEST_ERROR * value)
    relative: np.ndarray = np.divide(value, kernel**2, out=np.full_like(kernel, np.nan), where=known)
    return relative
