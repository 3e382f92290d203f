"""Which Wick orders carry what the G-only theory misses (docs/theory.md, section 8.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from eftcore.activations import get_activation
from eftcore.inputs.kernel import InputKernel
from eftcore.specs import Numerics, PredictionSpec, ResNet
from eftcore.theory.closures.wick import Wick
from eftcore.theory.solving import at_resolution, solve, starting_engine
from eftcore.theory.together import alone


@dataclass(frozen=True, kw_only=True, eq=False)
class WickContributions:
    """Contribution of each order of the Wick hierarchy to V4, K1 and U1; their sum is the theory of the highest order.

    Attributes:
        spec: the hierarchy of the highest order.
        orders: (M,) 1, 2, 3, ...; only even orders where sigma is odd or even. Order 2, with the Wishart covariance, is
            the G-only theory with a normal-ordered source; the other orders are what that theory misses.
        depth, time: (R,) recorded layers and t.
        covariance: (M, R, P, P) contributions to V4.
        correction, source: (M, R, N, N) contributions to K1 and U1.
        numerical_error: estimated relative errors as in a Theory, for the sum of the orders up to 2, which carries
            almost all of V4 and K1.
    """

    spec: PredictionSpec
    orders: np.ndarray
    depth: np.ndarray
    time: np.ndarray
    covariance: np.ndarray
    correction: np.ndarray
    source: np.ndarray
    numerical_error: dict[str, float]

    def frame(self) -> pd.DataFrame:
        """One row per order, quantity ("V4", "K1", "U1") and layer.

        ``size`` is the Frobenius norm of the contribution. ``share`` is the share of the order in the sum of all orders
        but the second, which is what the G-only theory with a normal-ordered source misses: the scalar product of the
        contribution with that sum over the square of the sum (eq. 8.9). Shares add up to 1; they are NaN for the second
        order, and where the sum is 0.
        """
        frames = []
        for quantity, values in (("V4", self.covariance), ("K1", self.correction), ("U1", self.source)):
            missing = values[self.orders != 2].sum(0)
            total = (missing**2).sum((1, 2))
            blank = np.full((len(values), len(self.depth)), np.nan)
            share = np.divide((values * missing).sum((2, 3)), total, out=blank, where=total > 0)
            share[self.orders == 2] = np.nan
            frames.append(
                pd.DataFrame(
                    {
                        "quantity": quantity,
                        "order": np.repeat(self.orders, len(self.depth)),
                        "depth": np.tile(self.depth, len(self.orders)),
                        "time": np.tile(self.time, len(self.orders)),
                        "size": np.sqrt((values**2).sum((2, 3))).ravel(),
                        "share": share.ravel(),
                    }
                )
            )
        return pd.concat(frames, ignore_index=True)


def wick_contributions(
    model: ResNet,
    kernel: InputKernel,
    *,
    order: int = 24,
    depths: Iterable[int] | None = None,
    numerics: Numerics | None = None,
) -> WickContributions:
    """Solve the Wick hierarchy order by order: orders do not mix, so they add up (eq. 4.22).

    Every power of epsilon is kept. The integrals have the resolution that ``predict`` starts from, refined once. Where
    sigma is neither odd nor even, the first order, fluctuations of the mean over neurons, carries most of what the
    G-only theory misses. Raises InputError for an order outside 2 .. 120.

    >>> model = ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=20)
    >>> found = wick_contributions(model, InputKernel.explicit([[1.0]]), order=6, depths=(0, 20))
    >>> found.orders.tolist(), found.covariance.shape
    ([2, 4, 6], (3, 2, 1, 1))
    """
    spec = PredictionSpec(
        model=model,
        kernel=kernel,
        closure="wick",
        order=order,
        numerics=numerics or Numerics(),
        depths=None if depths is None else tuple(depths),
    )
    stride = 1 if get_activation(model.activation).parity is None else 2
    orders = range(stride, order + 1, stride)
    engine = alone(starting_engine(spec))
    engine = engine.refined(nodes=True, terms=True) or engine
    parts = [alone(at_resolution(spec, engine, partial(Wick, model, order=k, above=k - stride))) for k in orders]
    return WickContributions(
        spec=spec,
        orders=np.array(orders),
        depth=np.array(spec.depths),
        time=spec.time,
        numerical_error=alone(solve(spec.model_copy(update={"order": 2}))).numerical_error,
        **{name: np.stack([getattr(part, name) for part in parts]) for name in ("covariance", "correction", "source")},
    )
