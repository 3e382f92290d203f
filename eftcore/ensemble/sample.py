"""The result of a simulation: additive sums of an ensemble's networks, and the estimates they give.

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from eftcore.ensemble import estimates
from eftcore.ensemble.agreement import disagreement
from eftcore.ensemble.estimates import Estimate
from eftcore.ensemble.expected_spread import relative_variance
from eftcore.ensemble.groups import FEWEST, group_counts
from eftcore.ensemble.histogram import HISTOGRAM, Quantiles, histogram_shape, quantiles
from eftcore.ensemble.leading_order import LeadingOrder, leading_order
from eftcore.ensemble.reference import Reference
from eftcore.ensemble.reliability import CONTRIBUTIONS, Widening, widening
from eftcore.ensemble.sums import group_shapes, sum_shapes, unpack
from eftcore.errors import InputError, NumericsWarning
from eftcore.identity import digest_of
from eftcore.pairs import product_covariance, to_matrix
from eftcore.specs import EnsembleSpec

Shards = tuple[tuple[int, int], ...]

_REFERENCE, _LEADING = "reference.", "leading."

LEADING_ORDER_SHARE = 0.2
"""More orders of the leading order's series are summed until its error is at most this fraction of V4's sampling error.
"""


def sample_digest(spec: EnsembleSpec, shards: Iterable[tuple[int, int]]) -> str:
    """Identity of the sample that consists of these shards, given as (index, networks)."""
    return digest_of({"ensemble": spec.digest, "shards": sorted([int(index), int(count)] for index, count in shards)})


@dataclass(frozen=True, eq=False)
class Sample:
    """Networks of one ensemble at R recorded layers; N inputs, P = N (N + 1) / 2 pairs a <= b row-major.

    A standard error (``_se``) has the shape of its quantity; value +- 1.96 se is a 95 % interval wherever ``reliable``
    is true, also for few networks (docs/theory.md, eq. 7.14 to 7.18). ``a + b`` merges samples of the same ensemble
    from different shards, to the same digits in any order.

    Attributes:
        spec: the ensemble.
        shards: (index, networks) of every shard in the sample, sorted.
        reference: the infinite-width theory that deviations are measured from.
        sums: additive float64 sums, see eftcore.ensemble.sums, and the histograms of eftcore.ensemble.histogram; older
            samples lack the sums by group or the histograms.
        streams: kinds of random streams that its networks were drawn from; provenance, not part of the identity.
        leading: exact leading-order V4, to which the paired estimator adds the measured difference; None until needed.
    """

    spec: EnsembleSpec
    shards: Shards
    reference: Reference
    sums: dict[str, np.ndarray]
    streams: tuple[str, ...] = ()
    leading: LeadingOrder | None = None

    @property
    def samples(self) -> int:
        """Number of networks."""
        return sum(count for _, count in self.shards)

    @cached_property
    def digest(self) -> str:
        """Identity of the sample: digest of the ensemble and the shards."""
        return sample_digest(self.spec, self.shards)

    @property
    def depth(self) -> np.ndarray:
        """(R,) recorded layers."""
        return np.array(self.spec.depths, dtype=np.int64)

    @property
    def time(self) -> np.ndarray:
        """(R,) t = epsilon^2 * layer."""
        return self.spec.time

    @property
    def numerical_error(self) -> dict[str, float]:
        """Empty, because the standard errors contain the numerical error of the reference."""
        return {}

    @property
    def mean(self) -> np.ndarray:
        """(R, N, N) E[G]."""
        return to_matrix(self.reference.kernel + self._residual[0])

    @property
    def mean_se(self) -> np.ndarray:
        """(R, N, N)."""
        return to_matrix(self._widened("K0", self._residual[1]))

    @property
    def covariance(self) -> np.ndarray:
        """(R, P, P) V4 = n Cov(G_ab, G_cd), O(1) (eq. 7.6, 7.7)."""
        return self._covariance[0]

    @property
    def covariance_se(self) -> np.ndarray:
        """(R, P, P)."""
        return self._widened("V4", self._covariance[1])

    @property
    def correction(self) -> np.ndarray:
        """(R, N, N) K1 = n (E[G] - K0), O(1), with K0 converged (eq. 7.5)."""
        return to_matrix(self.spec.width * self._residual[0])

    @property
    def correction_se(self) -> np.ndarray:
        """(R, N, N)."""
        return to_matrix(self.spec.width * self._widened("K1", self._residual[1]))

    @property
    def source(self) -> np.ndarray:
        """(R, N, N) U1 = n (E[S] - E2(K0)), O(1) (eq. 7.5)."""
        return to_matrix(self.spec.width * self._source[0])

    @property
    def source_se(self) -> np.ndarray:
        """(R, N, N)."""
        return to_matrix(self.spec.width * self._widened("U1", self._source[1]))

    @property
    def second_moment(self) -> np.ndarray:
        """(R, N, N) E[S], the mean sigma-kernel."""
        return to_matrix(self.reference.second_moment + self._source[0])

    @property
    def second_moment_se(self) -> np.ndarray:
        """(R, N, N)."""
        return to_matrix(self._widened("U1", self._source[1]))

    @property
    def increment_covariance(self) -> np.ndarray:
        """(R, P, P) Sigma_mic = E[G_ac Q_bd + G_ad Q_bc + G_bc Q_ad + G_bd Q_ac] (eq. 7.10)."""
        return self._increment[0]

    @property
    def increment_covariance_se(self) -> np.ndarray:
        """(R, P, P)."""
        return self._widened("Sigma", self._increment[1])

    @property
    def kappa3(self) -> np.ndarray:
        """(R, N) n^2 times the third cumulant of G_aa, O(1) (eq. 7.11)."""
        return self.spec.width**2 * self._cumulants.third

    @property
    def kappa3_se(self) -> np.ndarray:
        """(R, N). It depends on sixth moments, so that it is reliable only with thousands of networks."""
        return self.spec.width**2 * self._widened("kappa3", self._cumulants.third_se)

    @property
    def kappa4(self) -> np.ndarray:
        """(R, N) n^3 times the fourth cumulant of G_aa, O(1) (eq. 7.11)."""
        return self.spec.width**3 * self._cumulants.fourth

    @property
    def kappa4_se(self) -> np.ndarray:
        """(R, N). It depends on eighth moments, so that it is reliable only with tens of thousands of networks."""
        return self.spec.width**3 * self._widened("kappa4", self._cumulants.fourth_se)

    def widening(self, quantity: str) -> Widening:
        """The factor that the standard errors of a quantity contain for skewness, and whether it can be trusted.

        ``quantity`` is K0, V4, K1, U1, Sigma, or kappa3 or kappa4 for the third and fourth cumulant.
        """
        estimator = "plain" if quantity == "V4" and self._covariance is self._plain_covariance else self.spec.estimator
        found = [
            widening(CONTRIBUTIONS[quantity, estimator], spread, skewness, self.samples, expected)
            for spread, skewness, expected in zip(
                *(x.T for x in (*self.spread_and_skewness, self._expected)), strict=True
            )
        ]
        return Widening(np.max([one.needed for one in found], 0), np.all([one.reliable for one in found], 0))

    def degrees_of_freedom(self, quantity: str) -> np.ndarray:
        """(R,) degrees of freedom of the standard errors of a quantity, named as in ``widening`` (eq. 7.16)."""
        return self.widening(quantity).degrees_of_freedom

    def reliable(self, quantity: str) -> np.ndarray:
        """(R,) whether value +- 1.96 se of a quantity, named as in ``widening``, is a 95 % interval.

        It is not where there are too few networks for the tails of the distribution of their kernel.

        >>> from eftcore import InputKernel, ResNet, simulate
        >>> model = ResNet(activation="relu", weight_variance=2.0, epsilon=0.5, depth=6)
        >>> sample = simulate(model, InputKernel.explicit([[1.0]]), width=4, samples=256)
        >>> bool(sample.reliable("K0")[1]), bool(sample.reliable("V4")[-1])
        (True, False)
        """
        return self.widening(quantity).reliable

    def group_fluctuations(self, quantity: str) -> np.ndarray | None:
        """(G, R, P) contributions of the independent groups of networks to the error of the estimate, linearised.

        For K0 and K1 the last axis is the pair p, for V4 the diagonal entry (p, p); units are those of the estimate.
        The contributions sum to 0 over groups, and the sum of their squares estimates the squared standard error.
        None with fewer than FEWEST groups, for a sample of an older version, and for quantities without sums by group.
        """
        counts = group_counts(self.shards)
        filled = counts > 0
        if filled.sum() < FEWEST or "group_deviation" not in self.sums or quantity not in ("K0", "K1", "V4"):
            return None
        first, square = ("group_deviation", "group_square")
        paired = self.spec.estimator == "paired"
        if paired and (quantity != "V4" or self._covariance is not self._plain_covariance):
            first, square = ("group_residual", "group_change")
        one = self.sums[first][filled]
        if quantity == "V4":
            # influence of a network, (d - m)^2 or y - 2 m R, up to its mean
            mean = self.sums["residual" if first == "group_residual" else "deviation"] / self.samples
            one = self.sums[square][filled] - 2 * mean * one
        share = (counts[filled] / self.samples)[:, None, None]
        scale = 1 if quantity == "K0" else self.spec.width
        fluctuations: np.ndarray = scale / self.samples * (one - share * one.sum(0))
        return fluctuations

    @property
    def has_quantiles(self) -> bool:
        """Whether the sample has histograms, from which quantiles follow; those of older versions have none."""
        return HISTOGRAM in self.sums

    def quantiles(self, probability: np.ndarray | Iterable[float] | float) -> Quantiles:
        """Quantiles over networks of each G_aa, with 95 % bounds; ``eft.kernel_law`` predicts them.

        Raises InputError for a probability outside (0, 1), and for a sample of an older version, which has none.

        >>> from eftcore import InputKernel, ResNet, simulate
        >>> model = ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=1)
        >>> found = simulate(model, InputKernel.explicit([[1.0]]), width=64, samples=4096).quantiles([0.5])
        >>> bool(found.low[0, 0, 0] < 0.9896 < found.high[0, 0, 0])  # the median of chi^2 / 64 with 64 degrees
        True
        """
        if not self.has_quantiles:
            raise InputError(
                "the sample is of a version that kept no histograms", place="sample", remedy="simulate it again"
            )
        kernel = np.diagonal(to_matrix(self.reference.kernel), axis1=1, axis2=2)
        return quantiles(self.sums[HISTOGRAM], kernel, self.spec.width, probability)

    def __add__(self, other: Sample) -> Sample:
        """Merge samples of the same ensemble. Raises InputError for another ensemble or a shard that both contain."""
        if not isinstance(other, Sample):
            return NotImplemented
        if self.spec.digest != other.spec.digest:
            raise InputError(
                "the samples belong to different ensembles",
                place="samples",
                remedy="only shards of the same ensemble add up",
            )
        common = sorted({index for index, _ in self.shards} & {index for index, _ in other.shards})
        if common:
            raise InputError(
                f"both samples contain shards {common}", place="samples", remedy="add samples of different shards"
            )
        first = self if self.shards[0] <= other.shards[0] else other
        return Sample(
            spec=first.spec,
            shards=tuple(sorted(self.shards + other.shards)),
            reference=first.reference,
            sums={name: self.sums[name] + other.sums[name] for name in self.sums if name in other.sums},
            streams=tuple(sorted({*self.streams, *other.streams})),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that is not in spec, shards and streams, for storage; from_arrays restores it exactly.

        The additive sums under their own names, the reference (equal for all shards) as ``reference.<name>``, and the
        exact leading order as ``leading.<name>`` where it is known.
        """
        known: dict[str, np.ndarray] = {
            _REFERENCE + "kernel": self.reference.kernel,
            _REFERENCE + "second_moment": self.reference.second_moment,
        }
        if self.leading is not None:
            known |= {_LEADING + "covariance": self.leading.covariance, _LEADING + "error": self.leading.error}
        return self.sums | known

    @classmethod
    def from_arrays(
        cls,
        spec: EnsembleSpec,
        shards: Iterable[tuple[int, int]],
        arrays: Mapping[str, np.ndarray],
        *,
        streams: Iterable[str] = (),
    ) -> Sample:
        """The sample with these arrays. Raises InputError where names or shapes are not those of this ensemble."""
        assert spec.depths is not None
        paired = spec.estimator == "paired"
        shapes = sum_shapes(len(spec.depths), spec.kernel.n_inputs, paired=paired)
        groups = group_shapes(len(spec.depths), spec.kernel.n_inputs, paired=paired)
        if all(name in arrays for name in groups):
            shapes |= groups
        if HISTOGRAM in arrays:
            shapes[HISTOGRAM] = histogram_shape(len(spec.depths), spec.kernel.n_inputs)
        wrong = [name for name, shape in shapes.items() if name not in arrays or arrays[name].shape != shape]
        if wrong:
            raise InputError(
                f"arrays {wrong} are missing or have another shape", place="stored sample", remedy="simulate it again"
            )
        leading = None
        if _LEADING + "covariance" in arrays:
            leading = LeadingOrder(arrays[_LEADING + "covariance"], arrays[_LEADING + "error"])
        return cls(
            spec=spec,
            shards=tuple(sorted((int(index), int(count)) for index, count in shards)),
            reference=Reference(
                kernel=arrays[_REFERENCE + "kernel"],
                second_moment=arrays[_REFERENCE + "second_moment"],
            ),
            sums={name: arrays[name] for name in shapes},
            streams=tuple(streams),
            leading=leading,
        )

    @property
    def _pairs(self) -> int:
        pairs: int = self.reference.kernel.shape[1]
        return pairs

    @cached_property
    def _residual(self) -> Estimate:
        name = "residual" if self.spec.estimator == "paired" else "deviation"
        squares = np.diagonal(unpack(self.sums[name + "_2"], self._pairs), axis1=1, axis2=2)
        return estimates.mean_estimate(self.sums[name], squares, self.samples)

    @cached_property
    def _source(self) -> Estimate:
        return estimates.mean_estimate(self.sums["source"], self.sums["source_2"], self.samples)

    def with_leading_order(self) -> Sample:
        """This sample with the exact leading order that its paired V4 needs, so that it is stored with the sample."""
        return replace(self, leading=self._leading)

    @cached_property
    def _plain_covariance(self) -> Estimate:
        value, error = estimates.plain_covariance(self.sums, self.samples)
        return self.spec.width * value, self.spec.width * error

    @cached_property
    def _paired_change(self) -> Estimate:
        value, error = estimates.paired_change(self.sums, self.samples)
        return self.spec.width * value, self.spec.width * error

    @cached_property
    def _leading(self) -> LeadingOrder | None:
        if self.spec.estimator == "plain" or self.leading is not None or self.samples < 2:
            return self.leading  # with one network there is no sampling error to compare the series' error with
        value, error = (np.linalg.norm(x, axis=(1, 2)) for x in (self._plain_covariance[0], self._paired_change[1]))
        sampling = np.divide(error, value, out=np.zeros_like(error), where=value > 0).max()
        return leading_order(self.spec, LEADING_ORDER_SHARE * float(sampling))

    @cached_property
    def leading_order_disagrees(self) -> bool:
        """Whether these networks contradict the exact leading order that their paired V4 would add (eq. 7.17).

        If so, V4 is the plain estimate, and reading V4 issues a NumericsWarning.
        """
        if self._leading is None:
            return False
        return disagreement(self._plain_covariance, self._paired_change, self._leading, self.samples) > 1

    @cached_property
    def _covariance(self) -> Estimate:
        """The better of the plain and the paired estimate of V4.

        The error of the leading order's series can be larger than what the control variate gains; with very many inputs
        there is none, which a NumericsWarning says.
        """
        plain = self._plain_covariance
        if self._leading is None:
            if self.spec.estimator == "paired" and self.samples > 1:
                warnings.warn(
                    f"V4: the exact leading order of {self.spec.kernel.n_inputs} inputs, which the paired estimator"
                    " adds, is too large to be computed; the plain estimate is used",
                    NumericsWarning,
                    stacklevel=3,
                )
            return plain
        if self.leading_order_disagrees:
            warnings.warn(
                "V4: the exact leading order that the paired estimator adds disagrees with the same networks; the plain"
                " estimate is used",
                NumericsWarning,
                stacklevel=3,
            )
            return plain
        change, error = self._paired_change
        error = np.hypot(error, self._leading.error)
        return (self._leading.covariance + change, error) if np.sum(error**2) <= np.sum(plain[1] ** 2) else plain

    def _widened(self, quantity: str, error: np.ndarray) -> np.ndarray:
        """Standard errors (R, ...) multiplied by the factor of their widening."""
        widened: np.ndarray = error * self.widening(quantity).factor.reshape(-1, *[1] * (error.ndim - 1))
        return widened

    @cached_property
    def spread_and_skewness(self) -> tuple[np.ndarray, np.ndarray]:
        """Relative spread and skewness of each G_aa over networks, (R, N) each; 0 where G_aa does not vary."""
        raw = self.sums["powers"] / self.samples
        kernel = np.diagonal(to_matrix(self.reference.kernel), axis1=1, axis2=2)
        mean, square, cube = raw[..., 0], raw[..., 1], raw[..., 2]
        variance = np.maximum(square - mean**2, 0.0)
        third = cube - 3 * mean * square + 2 * mean**3
        spread = np.divide(np.sqrt(variance), kernel, out=np.zeros_like(kernel), where=kernel > 0)
        return spread, np.divide(third, variance**1.5, out=np.zeros_like(third), where=variance > 0)

    @cached_property
    def _expected(self) -> np.ndarray:
        return relative_variance(self.spec)

    @cached_property
    def _increment(self) -> Estimate:
        kernel = to_matrix(self.reference.kernel)
        model = self.spec.model
        step = model.bias_variance + model.weight_variance * to_matrix(self.reference.second_moment)
        start = product_covariance(kernel, step) + product_covariance(step, kernel)
        value, error = estimates.mean_estimate(self.sums["increment"], self.sums["increment_2"], self.samples)
        return start + unpack(value, self._pairs), unpack(error, self._pairs)

    @cached_property
    def _cumulants(self) -> estimates.Cumulants:
        return estimates.cumulants(self.sums["powers"], self.samples)
