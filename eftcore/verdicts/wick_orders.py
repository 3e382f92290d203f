"""Which Wick orders carry what the G-only theory misses (docs/theory.md, section 8.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from eftcore.activations import get_activation
from eftcore.specs import InputKernel, Numerics, PredictionSpec, ResNet
from eftcore.theory.closures.wick import Wick
from eftcore.theory.solving import at_resolution, solve, starting_engine


@dataclass(frozen=True, kw_only=True, eq=False)
class WickContributions:
    """What each order of the Wick hierarchy adds to V4, K1 and U1; they add up to the theory of the last order.

    Attributes:
        spec: the hierarchy of the highest order.
        orders: (M,) 1, 2, 3, ...; even ones alone where sigma is odd or even. Order 2 with the Wishart part is the
            G-only theory with a normal-ordered source, the others are what it misses.
        depth, time: (R,) recorded layers and t.
        covariance: (M, R, P, P).
        correction, source: (M, R, N, N).
        numerical_error: as a Theory's, of the orders up to 2, which carry almost everything.
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

        ``size`` is the Frobenius norm of the contribution; ``share`` its scalar product with all orders but the second
        together, over that one's square (eq. 8.9): these sum to 1 and say who carries what G-only misses. NaN for the
        second order, and where nothing is missing.
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

    Every power of epsilon is kept. The numerics take the resolution that ``predict`` would start from, refined once.
    Where sigma is neither odd nor even the first order, fluctuations of the neurons' mean, carries most of what G-only
    misses. Raises InputError for an order outside 2 .. 120.

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
    engine = starting_engine(spec)
    engine = engine.refined(nodes=True, terms=True) or engine
    parts = [at_resolution(spec, engine, partial(Wick, model, order=k, above=k - stride)) for k in orders]
    return WickContributions(
        spec=spec,
        orders=np.array(orders),
        depth=np.array(spec.depths),
        time=spec.time,
        numerical_error=solve(spec.model_copy(update={"order": 2})).numerical_error,
        **{name: np.stack([getattr(part, name) for part in parts]) for name in ("covariance", "correction", "source")},
    )
