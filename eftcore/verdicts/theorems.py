"""The exact statements of the theory, each as a check on any configuration (docs/theory.md, section 2).

A check returns a statistic and its law under the statement: a p-value where the statement is about distributions, an
error bound where it is an identity. The networks simulated here are small; that is no restriction, because all five
statements hold at every finite width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from eftcore.activations import get_activation
from eftcore.ensemble.simulation import simulate
from eftcore.errors import InputError, within
from eftcore.gaussian.roots import symmetric_root
from eftcore.inputs.kernel import InputKernel
from eftcore.pairs import pair_table, to_pairs
from eftcore.results import Theory
from eftcore.specs import Closure, EnsembleSpec, ResNet, check_depths, only_of_the_paper
from eftcore.theory.closures.g_only import noise_source, wishart
from eftcore.theory.mean_field import mean_field
from eftcore.theory.prediction import predict
from eftcore.theory.solving import relative_change
from eftcore.verdicts.checks import LEVEL, MeanZero, TheoremCheck, largest_score, same_law

if TYPE_CHECKING:
    import torch

_LAYERS = 20
_INPUTS = 8
_BATCH_NUMBERS = 1 << 21


def check_theorems(
    model: ResNet,
    kernel: InputKernel,
    *,
    width: int = 16,
    samples: int = 4000,
    seed: int = 0,
    level: float = LEVEL,
) -> tuple[TheoremCheck, ...]:
    """All five checks on one configuration; ``level`` is the false-alarm rate of each of the three statistical ones.

    Raises InputError for blocks with two matrices, of which ``block_law``, ``initialisation`` and
    ``marginal_consistency`` hold as they stand.

    >>> model = ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=8)
    >>> checks = check_theorems(model, InputKernel.explicit([[1.0]]), samples=500)
    >>> [check.name for check in checks if not check.passed]
    []
    """
    only_of_the_paper(model)
    drawn: dict[str, Any] = {"width": width, "samples": samples, "seed": seed, "level": level}
    return (
        block_law(model, kernel, **drawn),
        stochastic_recursion(model, kernel, **drawn),
        ghost_free(model, kernel, seed=seed),
        initialisation(model, kernel, **drawn),
        marginal_consistency(model, kernel),
    )


def block_law(
    model: ResNet,
    kernel: InputKernel,
    *,
    width: int = 16,
    samples: int = 4000,
    seed: int = 0,
    layer: int | None = None,
    level: float = LEVEL,
) -> TheoremCheck:
    """Given phi, the increments of a layer are exactly N(0, eps^2 Q), independent over neurons (eq. 2.1).

    Compares ``samples`` networks with explicit n x n weights with as many from the block sampler by ``same_law``, at
    layers 1 and ``layer`` (default: 20, or the last one).

    >>> model = ResNet(activation="relu", weight_variance=2.0, epsilon=0.3, depth=4)
    >>> block_law(model, InputKernel.explicit([[1.0]]), width=4, samples=400).passed
    True
    """
    with within("layer"):
        depths = check_depths([1, min(_LAYERS, model.depth) if layer is None else layer], model.depth)
    short = model.model_copy(update={"depth": depths[-1]})
    options: dict[str, Any] = {"width": width, "samples": samples, "seed": seed, "depths": depths}
    weights, block = (
        simulate(short, kernel, estimator="plain", sampler=sampler, device="cpu", **options)
        for sampler in ("weights", "block")
    )
    return replace(
        same_law(weights, block, level=level),
        name="block law",
        statement="explicit weights and the block law give the kernels the same distribution",
    )


def stochastic_recursion(
    model: ResNet,
    kernel: InputKernel,
    *,
    width: int = 16,
    samples: int = 4000,
    seed: int = 0,
    layer: int | None = None,
    level: float = LEVEL,
) -> TheoremCheck:
    """Conditional mean and covariance of the kernel's increment at every finite n (eq. 2.2-2.4).

    Networks with explicit weights are simulated to ``layer`` (default: 20, or the last but one) and one layer further.
    Then D = G^{l+1} - G^l - eps^2 Q^l and n D D^T - eps^2 Sigma(G, Q) - eps^4 Wishart(Q) have mean zero over networks,
    where each network has its own G and Q and is measured in units of its own conditional standard deviation. The
    statistic is the largest |z| of all entries. Of more than 8 inputs, 8 are used.

    >>> model = ResNet(activation="tanh", weight_variance=2.0, bias_variance=0.5, epsilon=0.3, depth=4)
    >>> stochastic_recursion(model, InputKernel.explicit([[1.0]]), width=4, samples=1000).passed
    True
    """
    only_of_the_paper(model)
    spec = EnsembleSpec(model=model, kernel=_few(kernel), width=width, seed=seed)
    with within("layer"):
        stop = min(_LAYERS, model.depth - 1) if layer is None else check_depths([layer], model.depth - 1)[0]
    h = model.epsilon**2
    found = MeanZero()
    for phi, rng in _networks(spec, samples, stop):
        for _ in range(stop):
            phi = phi + _increment(model, phi, rng)
        before, increment = _mean_product(phi), _increment_covariance(model, phi)
        drift = to_pairs(_mean_product(phi + _increment(model, phi, rng)) - before - h * increment)
        expected = h * noise_source(before, increment) + h * h * wishart(increment)
        deviation = np.sqrt(np.diagonal(expected, axis1=1, axis2=2))
        found.add(_with_products(drift, expected, deviation, width))
    return largest_score(
        "stochastic recursion",
        "E[dG | phi] = eps^2 Q and n Cov(dG | phi) = eps^2 Sigma(G, Q) + eps^4 Wishart(Q)",
        found.scores(),
        level=level,
    )


def ghost_free(
    model: ResNet, kernel: InputKernel, *, width: int = 3, layers: int | None = None, seed: int = 0
) -> TheoremCheck:
    """The Jacobian of the map from layer noise to the path has determinant 1 (eq. 2.5).

    With weights and biases fixed, noise h^l is added to each layer of a small network (default: 4 layers) and the map
    (h^0, ..) -> (phi^1, ..) is differentiated by torch. Statistic: |det - 1|; bound: rounding of an LU factorisation,
    size x 2^-52 x condition number. Raises InputError for an activation that torch cannot differentiate.

    >>> model = ResNet(activation="gelu", weight_variance=2.0, epsilon=0.5, depth=8)
    >>> ghost_free(model, InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.5)).passed
    True
    """
    import torch

    only_of_the_paper(model)
    EnsembleSpec(model=model, kernel=kernel, width=width)
    with within("layers"):
        count = min(4, model.depth) if layers is None else check_depths([layers], model.depth)[0]
    activation = get_activation(model.activation)
    if not activation.torch(torch.ones(1, dtype=torch.float64, requires_grad=True)).requires_grad:
        raise InputError(
            f"torch cannot differentiate {model.activation!r}", place="model", remedy="register it with torch_function"
        )
    rng = np.random.default_rng([seed, count])
    start = torch.tensor(rng.standard_normal((width, kernel.n_inputs)) @ symmetric_root(kernel.array))
    weights = torch.tensor((model.weight_variance / width) ** 0.5 * rng.standard_normal((count, width, width)))
    biases = torch.tensor(model.bias_variance**0.5 * rng.standard_normal((count, width, 1)))

    def path(noise: torch.Tensor) -> torch.Tensor:
        steps = noise.reshape(count, width, kernel.n_inputs)
        return forced_path(start, weights, biases, steps, model.epsilon, activation.torch)

    size = count * width * kernel.n_inputs
    noise = torch.tensor(model.epsilon * rng.standard_normal(size))
    jacobian = torch.autograd.functional.jacobian(path, noise).numpy()
    return TheoremCheck(
        name="ghost-free",
        statement="the Jacobian determinant of the path measure is 1",
        statistic=abs(float(np.linalg.det(jacobian)) - 1.0),
        law="0 up to rounding",
        bound=size * float(np.finfo(float).eps * np.linalg.cond(jacobian)),
    )


def initialisation(
    model: ResNet,
    kernel: InputKernel,
    *,
    width: int = 16,
    samples: int = 4000,
    seed: int = 0,
    level: float = LEVEL,
) -> TheoremCheck:
    """phi^0 is Gaussian: G is Wishart, so V4 = Wishart(K^0), and U1 = 0 (eq. 2.6).

    G - K^0, n (G - K^0)(G - K^0)^T - Wishart(K^0) and S - E2(K^0) have mean zero over networks, and n G_aa / K_aa
    follows chi^2 with n degrees of freedom (Kolmogorov-Smirnov). The statistic is the largest |z| of all entries. Of
    more than 8 inputs, 8 are used.

    >>> model = ResNet(activation="sin", weight_variance=2.0, epsilon=0.3, depth=4)
    >>> initialisation(model, InputKernel.explicit([[1.0]]), width=4, samples=1000).passed
    True
    """
    from scipy.stats import chi2, kstest

    spec = EnsembleSpec(model=model, kernel=_few(kernel), width=width, seed=seed)
    start = spec.kernel.array
    second_moment = mean_field(model.model_copy(update={"depth": 1}), spec.kernel).second_moment[0]
    expected = wishart(start)
    sizes = [to_pairs(np.sqrt(np.outer(np.diag(x), np.diag(x)))) for x in (start, second_moment)]
    found, own = MeanZero(), []
    for phi, _ in _networks(spec, samples, 0):
        kernels, sigma_kernels = _mean_product(phi), _mean_product(_fire(model, phi))
        deviation, source = to_pairs(kernels - start), to_pairs(sigma_kernels - second_moment)
        found.add(np.hstack([_with_products(deviation, expected, sizes[0], width), _over(source, sizes[1])]))
        own.append(np.diagonal(kernels, axis1=1, axis2=2))
    law = chi2(width).cdf
    alive = np.flatnonzero(np.diag(start) > 0)
    tests = [kstest(width * np.concatenate(own)[:, a] / start[a, a], law).pvalue for a in alive]
    return largest_score(
        "initialisation", "at l = 0, G is Wishart and E[S] = E2(K^0), so U1 = 0", found.scores(), tests, level=level
    )


def marginal_consistency(
    model: ResNet,
    kernel: InputKernel,
    closure: Closure = "g_only",
    *,
    inputs: Sequence[int] | None = None,
    **options: Any,
) -> TheoremCheck:
    """The kernels of a subset of the inputs obey a closed system (eq. 2.7).

    So the theory for ``inputs`` alone agrees with the theory for all inputs, restricted to ``inputs``.

    Args:
        closure, options: as in ``predict``; every closure but "particle", whose error is a sampling error.
        inputs: the subset; default: all but the last. A single input is compared with itself beside a duplicate.

    The statistic is the largest Frobenius difference over K0, V4, K1 and depth, relative to the norm for all inputs,
    divided by what the error estimates of the two predictions allow. Its bound is 1.

    >>> model = ResNet(activation="erf", weight_variance=2.0, epsilon=0.1, depth=20)
    >>> kernel = InputKernel.equicorrelated(n_inputs=3, variance=1.0, correlation=0.2)
    >>> marginal_consistency(model, kernel, "wick", order=4, inputs=[0, 2]).passed
    True
    """
    if closure == "particle":
        raise InputError("has a sampling error", place="closure", value=closure, remedy="take 'wick' instead")
    full = kernel.array if kernel.n_inputs > 1 else np.full((2, 2), kernel.array[0, 0])
    chosen = list(range(len(full) - 1)) if inputs is None else list(inputs)
    if not chosen or len(set(chosen)) < len(chosen) or any(not 0 <= a < kernel.n_inputs for a in chosen):
        raise InputError(f"must be different numbers between 0 and {kernel.n_inputs - 1}", place="inputs", value=chosen)
    part = predict(model, InputKernel.explicit(full[np.ix_(chosen, chosen)]), closure, **options)
    whole = predict(model, InputKernel.explicit(full), closure, **options)
    change = relative_change(_substituted(whole, part, chosen), _substituted(whole, whole, list(range(len(full)))))
    allowed = {name: part.numerical_error[name] + whole.numerical_error[name] for name in change}
    return TheoremCheck(
        name="marginal consistency",
        statement=f"{closure}: results for a subset of the inputs equal those entries of results for all",
        statistic=max(change[name] / allowed[name] for name in change),
        law="at most 1: the difference over the error estimates",
        bound=1.0,
    )


def _substituted(whole: Theory, part: Theory, inputs: list[int]) -> Theory:
    """``whole`` with the entries of these inputs taken from ``part``."""

    def put(mine: np.ndarray | None, theirs: np.ndarray | None, where: list[int]) -> np.ndarray | None:
        if mine is None or theirs is None:
            return None
        found = mine.copy()
        rows, columns = np.ix_(where, where)
        found[:, rows, columns] = theirs
        return found

    pairs = to_pairs(pair_table(whole.mean.shape[-1])[np.ix_(inputs, inputs)]).tolist()
    mean = put(whole.mean, part.mean, inputs)
    assert mean is not None
    return replace(
        whole,
        mean=mean,
        covariance=put(whole.covariance, part.covariance, pairs),
        correction=put(whole.correction, part.correction, inputs),
    )


def _few(kernel: InputKernel) -> InputKernel:
    """The kernel of at most _INPUTS of the inputs, evenly spread; each statement involves at most four inputs."""
    if kernel.n_inputs <= _INPUTS:
        return kernel
    chosen = np.linspace(0, kernel.n_inputs - 1, _INPUTS).astype(int)
    return InputKernel.explicit(kernel.array[np.ix_(chosen, chosen)])


def _networks(spec: EnsembleSpec, samples: int, stream: int) -> Iterator[tuple[np.ndarray, np.random.Generator]]:
    """Batches of phi^0 (M, n, N), ``samples`` networks in all, each with the generator for its later layers."""
    if isinstance(samples, bool) or int(samples) != samples or samples < 2:
        raise InputError("must be a whole number of at least 2", place="samples", value=samples)
    width, n_inputs = spec.width, spec.kernel.n_inputs
    root = symmetric_root(spec.kernel.array)
    rng = np.random.default_rng([spec.seed, stream])
    batch = max(1, _BATCH_NUMBERS // max(width * width, 4 * width * n_inputs, 2 * n_inputs**4))
    for start in range(0, samples, batch):
        yield rng.standard_normal((min(batch, samples - start), width, n_inputs)) @ root, rng


def _with_products(x: np.ndarray, covariance: np.ndarray, unit: np.ndarray, width: int) -> np.ndarray:
    """(M, P + P (P + 1) / 2) x and the entries p <= q of n x x^T - covariance, each divided by its unit.

    Args:
        x: (M, P) vectors in pair space, one for each network.
        covariance: (P, P) or (M, P, P) expected n x x^T.
        unit: (P,) or (M, P) unit of each component of x; where it is 0, the entry must be 0.
    """
    p, q = np.triu_indices(x.shape[1])
    products = width * x[:, p] * x[:, q] - covariance[..., p, q]
    return np.hstack([_over(x * width**0.5, unit), _over(products, unit[..., p] * unit[..., q])])


def _over(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    unit = np.broadcast_to(unit, values.shape)
    quotient: np.ndarray = np.divide(values, unit, out=values.copy(), where=unit > 0)
    return quotient


def _increment_covariance(model: ResNet, phi: np.ndarray) -> np.ndarray:
    """(M, N, N) Q of each network (eq. 1.4)."""
    return model.bias_variance + model.weight_variance * _mean_product(_fire(model, phi))


def _fire(model: ResNet, phi: np.ndarray) -> np.ndarray:
    return np.asarray(get_activation(model.activation).function(phi), dtype=float)


def _mean_product(phi: np.ndarray) -> np.ndarray:
    """(M, N, N) means over neurons of the products of two inputs of phi (M, n, N) (eq. 1.3)."""
    product: np.ndarray = np.swapaxes(phi, -1, -2) @ phi / phi.shape[-2]
    return product


def _increment(model: ResNet, phi: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(M, n, N) increments eps (W sigma(phi) + b) with explicit weights (eq. 1.1)."""
    networks, width, _ = phi.shape
    weights = (model.weight_variance / width) ** 0.5 * rng.standard_normal((networks, width, width))
    biases = model.bias_variance**0.5 * rng.standard_normal((networks, width, 1))
    increment: np.ndarray = model.epsilon * (weights @ _fire(model, phi) + biases)
    return increment


def forced_path(
    start: torch.Tensor,
    weights: torch.Tensor,
    biases: torch.Tensor,
    noise: torch.Tensor,
    epsilon: float,
    activation: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """phi^1 .. phi^layers, flattened, of a network with noise added to each layer."""
    import torch

    phi, found = start, []
    for w, b, h in zip(weights, biases, noise, strict=True):
        phi = phi + epsilon * (w @ activation(phi) + b) + h
        found.append(phi)
    return torch.stack(found).reshape(-1)
