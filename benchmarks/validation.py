"""A campaign against silently wrong numbers: random configurations of one input, hard ones included.

Each prediction is compared with the independent solver of benchmarks/independent.py and called

* within: every quantity is within its claimed error (numerical and truncation error) and the solver's own;
* warned: some quantity is not, and the result says so (a NumericsWarning, or ``converged`` is False);
* refused: an InputError;
* SILENT: off by more than is claimed, and nothing says so. Any other exception counts as silent too.

`python -m benchmarks.validation` prints counts by activation and by closure, and for each silent one the line that
reproduces it; `--only INDEX` shows one configuration.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context

import numpy as np

import eftcore as eft
from benchmarks.independent import Moments, Network, exact_one_input, g_only_one_input, relative_errors

VERDICTS = ("within", "warned", "refused", "SILENT")

CLOSURES = {
    "mean": 0.10,
    "g_only": 0.20,
    "g_only, exact step": 0.10,
    "wick, auto": 0.24,
    "wick, 24": 0.24,
    "sigma": 0.07,
    "particle": 0.03,
    "simulated K0": 0.02,
}
"""What is solved, with its share of the configurations."""

SANE = 3.0
"""V4 of the sigma closure, which has no exact limit here, is off beyond this factor of the exact one."""

DEVIATIONS = 5.0
"""Sampled values are off beyond this many standard errors."""

SAMPLED_LAYERS = 40
"""Sampled configurations are no deeper."""


@dataclass(frozen=True)
class Case:
    """One configuration and what to solve."""

    index: int
    network: Network
    closure: str
    depths: tuple[int, ...]

    def __str__(self) -> str:
        n = self.network
        options = {"wick, auto": ', order="auto"', "wick, 24": ", order=24", "g_only, exact step": ', step="exact"'}
        numbers = f"{n.weight_variance!r}, {n.epsilon!r}, {n.depth}, {n.bias_variance!r}"
        model = f'R("{n.activation}", {numbers}), k({n.kernel!r})'
        return f"[{self.index}] {self.closure.partition(',')[0]}: {model}{options.get(self.closure, '')}"


@dataclass(frozen=True)
class Outcome:
    """The verdict on a case: true and claimed relative errors, what was said, the independent solver's own error."""

    case: Case
    verdict: str
    errors: dict[str, float] = field(default_factory=dict)
    claimed: dict[str, float] = field(default_factory=dict)
    said: str = ""
    own: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        shown = ", ".join(
            f"{name} {error:.1e} (claimed {self.claimed.get(name, 0.0):.1e})" for name, error in self.errors.items()
        )
        return f"{self.verdict} {self.case}: {shown or self.said}"


def random_activation(rng: np.random.Generator) -> str:
    """A known family, with a random parameter where it has one."""
    family = str(rng.choice([name for name in eft.activation_names() if eft.get_activation(name).builtin]))
    if rng.random() < 0.35:
        return family
    parameter = {
        "erf": lambda: f"scale={10 ** rng.uniform(-1, 0.8):.3g}",
        "softplus": lambda: f"beta={10 ** rng.uniform(-1, 1):.3g}",
        "leaky_relu": lambda: f"slope={rng.uniform(-1, 1):.3g}",
    }.get(family)
    return f"{family}({parameter()})" if parameter else family


def random_case(seed: int, index: int) -> Case:
    """The case with this number: K in 1e-8 .. 1e4, C_W in 0.1 .. 10, C_b up to 2, eps in 0.01 .. 1, L in 1 .. 400.

    A third of the cases are gentle (K in 0.1 .. 10, C_W up to 3, eps up to 0.3).
    """
    rng = np.random.default_rng([seed, index])
    closure = str(rng.choice(list(CLOSURES), p=list(CLOSURES.values())))
    gentle = rng.random() < 1 / 3
    low, high = (-1, 1) if gentle else (-8, 4)
    sampled = closure in ("particle", "simulated K0")
    depth = int(np.exp(rng.uniform(0, np.log(SAMPLED_LAYERS if sampled else 400.99))))
    network = Network(
        activation=eft.get_activation(random_activation(rng)).name,
        kernel=float(f"{10 ** rng.uniform(low, high):.3g}"),
        weight_variance=float(f"{10 ** rng.uniform(-1, 0.5 if gentle else 1):.3g}"),
        bias_variance=float(f"{rng.choice([0.0, rng.uniform(0, 2)]):.3g}"),
        epsilon=float(f"{10 ** rng.uniform(-2, -0.5 if gentle else 0):.3g}"),
        depth=depth,
    )
    return Case(index, network, closure, tuple(sorted({0, 1, depth // 4, depth // 2, depth})))


def judge(case: Case) -> Outcome:
    """Solve, compare with the independent solver, and say which of VERDICTS it is."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            outcome = _SOLVED.get(case.closure, _predicted)(case, lambda: _said(case, caught))
        except eft.InputError as refusal:
            outcome = Outcome(case, "refused", said=str(refusal))
        except Exception as crash:  # any other exception is a fault to report, not to stop at
            outcome = Outcome(case, "SILENT", said=f"{type(crash).__name__}: {crash}")
    return replace(outcome, seconds=time.perf_counter() - start)


def _said(case: Case, caught: list[warnings.WarningMessage]) -> str:
    """The warnings that speak of the difference looked at; the reference of G-only takes the same Euler steps."""
    beside_the_point = (eft.StepWarning,) if case.closure == "g_only" else ()
    return "; ".join(
        str(item.message)
        for item in caught
        if issubclass(item.category, eft.NumericsWarning) and not issubclass(item.category, beside_the_point)
    )


def _arguments(case: Case) -> tuple[eft.ResNet, eft.InputKernel]:
    n = case.network
    model = eft.ResNet(
        activation=n.activation,
        weight_variance=n.weight_variance,
        bias_variance=n.bias_variance,
        epsilon=n.epsilon,
        depth=n.depth,
    )
    return model, eft.InputKernel.explicit([[n.kernel]])


def _predict(case: Case) -> eft.Theory:
    options: dict[str, object] = {
        "wick, auto": {"order": "auto"},
        "wick, 24": {"order": 24},
        "g_only, exact step": {"step": "exact"},
    }.get(case.closure, {})
    name = case.closure.partition(",")[0]
    return eft.predict(*_arguments(case), name, depths=case.depths, **options)  # type: ignore[arg-type]


def _reference(case: Case) -> Moments:
    if case.closure.startswith("g_only"):
        return g_only_one_input(case.network, case.depths, exact=case.closure.endswith("step"))
    return exact_one_input(case.network, case.depths)


def _predicted(case: Case, said: Callable[[], str]) -> Outcome:
    theory, reference = _predict(case), _reference(case)
    found = _moments(theory, reference)
    truncation = theory.details.get("truncation_error", {})
    assert isinstance(truncation, dict)
    names = ["K0"] if case.closure == "mean" else ["K0", "V4", "K1"]
    claimed = {name: theory.numerical_error[name] + truncation.get(name, 0.0) for name in names}
    if not reference.finite:
        return Outcome(case, "SILENT", said="finite numbers where the independent solver overflows")
    errors = {name: relative_errors(found, reference)[name] for name in names}
    right = all(errors[name] <= claimed[name] + reference.error[name] for name in names)
    own = max(reference.error[name] for name in names)
    return Outcome(case, _verdict(right, said(), theory.converged), errors, claimed, said(), own)


def _verdict(right: bool, said: str, converged: bool) -> str:
    return "within" if right else "warned" if said or not converged else "SILENT"


def _moments(theory: eft.Theory, reference: Moments) -> Moments:
    covariance = reference.covariance if theory.covariance is None else theory.covariance[:, 0, 0]
    correction = reference.correction if theory.correction is None else theory.correction[:, 0, 0]
    return Moments(theory.mean[:, 0, 0], covariance, correction)


def _sane(case: Case, said: Callable[[], str]) -> Outcome:
    """The sigma closure: finite, and V4 of the right size."""
    theory, reference = _predict(case), _reference(case)
    ratio = theory.covariance[:, 0, 0] / reference.covariance  # type: ignore[index]
    right = bool(((ratio < SANE) & (ratio > 1 / SANE)).all()) and bool(np.isfinite(theory.correction).all())  # type: ignore[arg-type]
    errors = {"V4 / exact V4": float(ratio[np.argmax(np.abs(np.log(np.abs(ratio))))])}
    return Outcome(case, _verdict(right, said(), theory.converged), errors, dict(theory.numerical_error), said())


def _particle(case: Case, said: Callable[[], str]) -> Outcome:
    """V4 and K1 of the one-particle form within their standard errors."""
    theory, reference = _predict(case), _reference(case)
    errors = {
        "V4": _score(
            theory.covariance[:, 0, 0] - reference.covariance, theory.covariance_se[:, 0, 0], reference.covariance
        ),  # type: ignore[index]
        "K1": _score(
            theory.correction[:, 0, 0] - reference.correction,
            theory.correction_se[:, 0, 0],
            reference.covariance / reference.mean,
        ),  # type: ignore[index]
    }
    right = max(errors.values()) <= DEVIATIONS
    return Outcome(case, _verdict(right, said(), True), errors, dict.fromkeys(errors, DEVIATIONS), said())


def _simulated(case: Case, said: Callable[[], str]) -> Outcome:
    """The mean kernel of 400 networks of width 64 within its standard error of K0 + K1 / n; |K1| / n is allowed."""
    reference = exact_one_input(case.network, case.depths)
    sample = eft.simulate(*_arguments(case), width=64, samples=400, estimator="plain", depths=case.depths)
    off = np.abs(sample.mean[:, 0, 0] - reference.mean - reference.correction / 64) - np.abs(reference.correction) / 64
    score = _score(np.maximum(off, 0), sample.mean_se[:, 0, 0], 1e-3 * reference.mean)
    return Outcome(case, _verdict(score <= DEVIATIONS, said(), True), {"K0": score}, {"K0": DEVIATIONS}, said())


def _score(difference: np.ndarray, error: np.ndarray, size: np.ndarray) -> float:
    """Largest deviation in standard errors; rounding, relative to ``size``, is allowed."""
    return float(np.nan_to_num(np.abs(difference) / (error + 1e-9 * np.abs(size)), nan=np.inf).max())


_SOLVED: dict[str, Callable[[Case, Callable[[], str]], Outcome]] = {
    "sigma": _sane,
    "particle": _particle,
    "simulated K0": _simulated,
}


def table(outcomes: Iterable[Outcome], key: Callable[[Case], str], title: str) -> str:
    """Markdown: counts of the verdicts, and of those within that also carried a warning, by ``key`` of the case."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for row in (key(outcome.case), "all"):
            counter = counts.setdefault(row, Counter())
            counter[outcome.verdict] += 1
            counter["cases"] += 1
            counter["needlessly"] += outcome.verdict == "within" and bool(outcome.said)
    lines = [
        f"| {title} | cases | within | of these warned | warned, off | refused | silently wrong |",
        "|" + "---|" * 7,
    ]
    columns = ("cases", "within", "needlessly", "warned", "refused", "SILENT")
    rows = sorted(counts, key=lambda name: (name == "all", name))
    lines += [f"| {row} | {' | '.join(str(counts[row][column]) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    """Run the campaign; exit code 1 where something is silently wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, help="this configuration alone")
    given = parser.parse_args()
    if given.only is not None:
        outcome = judge(random_case(given.seed, given.only))
        print(f"{outcome}\n{outcome.said}".rstrip())
        raise SystemExit(outcome.verdict == "SILENT")
    cases = [random_case(given.seed, index) for index in range(given.count)]
    outcomes, start = [], time.perf_counter()
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        for outcome in pool.map(judge, cases, chunksize=4):
            outcomes.append(outcome)
            if outcome.verdict == "SILENT":
                print(outcome, flush=True)
            if len(outcomes) % 100 == 0:
                print(f"{len(outcomes)} of {len(cases)}, {time.perf_counter() - start:.0f} s", flush=True)
    print("\n" + table(outcomes, lambda case: case.closure, "closure"))
    print("\n" + table(outcomes, lambda case: case.network.activation.partition("(")[0], "activation"))
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    print(f"\n{time.perf_counter() - start:.0f} s; the slowest took {slowest.seconds:.1f} s: {slowest.case}")
    unsure = max(outcomes, key=lambda outcome: outcome.own)
    print(f"The independent solver's largest own error: {unsure.own:.1e} in {unsure.case}")
    print("\nR(a, C_W, eps, L, C_b), k(K): a line of these is run again by --only INDEX with the same --seed.")
    raise SystemExit(any(outcome.verdict == "SILENT" for outcome in outcomes))


if __name__ == "__main__":
    main()
