"""The graphics kernels, without a graphics processor: run by Triton's interpreter, and compiled for one.

Triton decides on import whether it interprets, so this file also runs as a program: it simulates every case and
writes what it saw. The tests replay each network in float64 numpy from the same Philox counters.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

import eftcore as eft
from eftcore.activations import get_activation
from eftcore.ensemble import reference
from eftcore.ensemble.gpu import arithmetic
from eftcore.ensemble.kinds import activation_kind
from eftcore.ensemble.streams import stream_key
from eftcore.gaussian.roots import symmetric_root
from eftcore.pairs import pair_indices

DUPLICATED = [[2.0, 2.0, 0.5], [2.0, 2.0, 0.5], [0.5, 0.5, 1.0]]


def ensemble(activation="tanh", inputs=2, width=8, estimator="plain", *, kernel=None, bias=0.1, depths=(0, 2)):
    model = eft.ResNet(activation=activation, weight_variance=1.5, bias_variance=bias, epsilon=0.3, depth=depths[-1])
    if kernel is None:
        kernel = eft.InputKernel.equicorrelated(n_inputs=inputs, variance=1.2, correlation=0.3)
    else:
        kernel = eft.InputKernel.explicit(kernel)
    spec = eft.EnsembleSpec(model=model, kernel=kernel, width=width, estimator=estimator, depths=depths)
    return spec.of_version(2)  # the same normals whatever the version: where Q is singular, rounding depends on them


ACTIVATIONS = (
    *("linear", "tanh", "erf(scale=0.7)", "relu", "leaky_relu(slope=0.2)", "gelu", "silu", "swish"),
    *("softplus", "softplus(beta=2)"),
)
CASES = {
    **{name: (ensemble(name), 3) for name in ACTIVATIONS},
    **{f"plain, N = {n}": (ensemble(inputs=n, width=8), 5) for n in (1, 3, 4)},
    **{f"paired, N = {n}": (ensemble(inputs=n, width=16, estimator="paired"), 3) for n in (1, 2, 4)},
    "plain, three blocks, n = 12": (ensemble("softplus", 3, 12, depths=(0, 1)), 35),
    "paired, masked, n = 12": (ensemble("gelu", 3, 12, "paired", depths=(0, 1, 3)), 7),
    "plain, duplicated": (ensemble(kernel=DUPLICATED, depths=(0, 4), bias=0.0), 20),
    "paired, duplicated": (ensemble(kernel=DUPLICATED, depths=(0, 4), estimator="paired", bias=0.0), 20),
    "plain, n < N": (ensemble("relu", 4, 2), 20),
    "paired, n < N": (ensemble("relu", 3, 2, "paired"), 20),
    "plain, zero input": (ensemble(kernel=[[0.0, 0.0], [0.0, 1.0]], bias=0.0), 3),
    "paired, zero input": (ensemble(kernel=[[0.0, 0.0], [0.0, 1.0]], estimator="paired", bias=0.0), 3),
}
MORE_SUMMED = [name for name in CASES if name not in (*ACTIVATIONS, "plain, N = 4")]
SUMMED = [
    *("plain, N = 1", "plain, N = 3", "paired, N = 1", "paired, N = 2", "plain, three blocks, n = 12"),
    *("paired, masked, n = 12", "plain, n < N"),
]
"""Cases whose sums are compared: how they are taken depends on the numbers of inputs, networks and depths, not on
sigma; and what is summed of plain networks is also summed of paired ones. The others are a campaign."""

CHUNKED = "plain, three blocks, n = 12"
SHARD = 7
LIMITED, FITTING = "limited", (35, 20, 8, 7)
ELEMENTARY = "elementary"
POINTS = 1 << 16
KEY = 2**63 - 17
SMALL = np.logspace(-10, 0, 1999)
X = np.concatenate([np.linspace(-15, 15, POINTS - 4000), SMALL, -SMALL, [0, 3e4]]).astype(np.float32)


@triton.jit
def activate_points(x, out, parameter, KIND: tl.constexpr, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    tl.store(out + place, arithmetic.activate(tl.load(x + place), parameter, KIND))


@triton.jit
def log_and_expm1(x, out, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    tl.store(out + place, arithmetic.log(tl.abs(tl.load(x + place)) + 1e-30))
    tl.store(out + SIZE + place, arithmetic.expm1(tl.load(x + place)))


@triton.jit
def draw_points(out, key, SIZE: tl.constexpr):
    network = tl.arange(0, SIZE)
    z0, z1, z2, z3 = arithmetic.normals(key, network, network * 0 + 3, network * 0 + 5, network * 0)
    tl.store(out + network, z0)
    tl.store(out + SIZE + network, z1)
    tl.store(out + 2 * SIZE + network, z2)
    tl.store(out + 3 * SIZE + network, z3)


def interpret(target: str, *summed: str) -> None:
    """Simulate every case and write observations, and the sums of some."""
    from eftcore.ensemble.gpu import engine as gpu_engine
    from eftcore.ensemble.gpu.moments import DeviceMoments

    found = {f"{ELEMENTARY}|{name}": value for name, value in elementary().items()}
    for name, (spec, samples) in CASES.items():
        # one block at a time, so that this case comes in three pieces
        gpu_engine.CHUNK_NUMBERS = 1 if name == CHUNKED else 1 << 27
        path = reference.Path(spec)
        observations = list(gpu_engine.GpuEngine(spec, path, shard=SHARD, device="cpu").observations(samples))
        found[f"{name}|pieces"] = np.array(len(observations))
        found[f"{name}|observed"] = np.concatenate([observed[0].numpy() for observed in observations], axis=-1)
        if name in summed:
            moments = DeviceMoments(spec, path.reference, device="cpu")
            for observed in observations:
                moments.add(observed)
            found |= {f"{name}|{key}": value for key, value in moments.finished(samples).items()}
    found |= {
        f"{LIMITED}|{networks}|{name}": value for networks in FITTING for name, value in limited(networks).items()
    }
    np.savez(target, **found)


def elementary() -> dict[str, np.ndarray]:
    """Every activation at the points X, and four blocks of normals."""
    x, out = torch.tensor(X), torch.empty(POINTS)
    found = {}
    for name in ACTIVATIONS:
        kind, parameter = activation_kind(name)
        activate_points[(1,)](x, out, parameter, KIND=kind, SIZE=POINTS)
        found[name] = out.numpy().copy()
    both = torch.empty((2, POINTS))
    log_and_expm1[(1,)](x, both, SIZE=POINTS)
    z = torch.empty((4, POINTS))
    draw_points[(1,)](z, KEY, SIZE=POINTS)
    return found | {"normals": z.numpy(), "log": both[0].numpy(), "expm1": both[1].numpy()}


def limited(networks: int) -> dict[str, np.ndarray]:
    """Sums, not rounded yet, where memory holds observations of so many networks; and how many came at a time."""
    from eftcore.ensemble.gpu import engine as gpu_engine
    from eftcore.ensemble.gpu import moments as gpu_moments
    from eftcore.ensemble.gpu.moments import DeviceMoments

    gpu_moments.BLOCK, gpu_moments.DEVICE_UNIT, gpu_engine.DEVICE_UNIT = 4, 8, 8
    spec, samples = ensemble(inputs=1, depths=(0, 1)), 35
    path = reference.Path(spec)
    moments, counts = DeviceMoments(spec, path.reference, device="cpu"), []
    allocate = torch.empty

    def empty(shape, **options):
        if shape[-1] > networks:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return allocate(shape, **options)

    torch.empty = empty
    try:
        for observed in gpu_engine.GpuEngine(spec, path, shard=SHARD, device="cpu").observations(samples):
            moments.add(observed)
            counts.append(observed.shape[-1])
    except torch.OutOfMemoryError:
        counts.append(0)
    finally:
        torch.empty = allocate
    return moments.sums | {"counts": np.array(counts)}


def _interpreted(target: Path, summed: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Case to what the interpreter made of it."""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    root = Path(__file__).parents[3]
    command = [sys.executable, __file__, str(target), *summed]
    run = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    cases: dict[str, dict[str, np.ndarray]] = {name: {} for name in (*CASES, LIMITED, ELEMENTARY)}
    with np.load(target) as seen:
        for key in seen:
            name, _, what = key.partition("|")
            cases[name][what] = seen[key]
    return cases


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory) -> dict[str, dict[str, np.ndarray]]:
    """Case to what the interpreter made of it, with the sums of SUMMED."""
    return _interpreted(tmp_path_factory.mktemp("gpu") / "seen.npz", SUMMED)


@pytest.fixture(scope="module")
def all_summed(tmp_path_factory) -> dict[str, dict[str, np.ndarray]]:
    """The same, with the sums of MORE_SUMMED."""
    return _interpreted(tmp_path_factory.mktemp("gpu") / "seen.npz", MORE_SUMMED)


def philox(key: int, counter: np.ndarray) -> np.ndarray:
    """(..., 4) random 32-bit numbers of the (..., 4) counters; Philox4x32-10 after Salmon et al. (2011)."""
    low = np.uint64(0xFFFFFFFF)
    a, b, c, d = np.moveaxis(counter.astype(np.uint64), -1, 0)
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        left, right = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, c = (right >> np.uint64(32)) ^ b ^ np.uint64(k0), (left >> np.uint64(32)) ^ d ^ np.uint64(k1)
        b, d = right & low, left & low
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([a, b, c, d], axis=-1)


def normals(spec: eft.EnsembleSpec, samples: int, layer: int) -> np.ndarray:
    """(samples, n, N) standard normals of one layer."""
    n_inputs = spec.kernel.n_inputs
    axes = np.meshgrid(np.arange(samples), [layer], np.arange(spec.width), np.arange(-(-n_inputs // 4)), indexing="ij")
    bits = philox(stream_key(spec, SHARD) >> 1, np.stack(axes, axis=-1))[:, 0].reshape(samples, spec.width, -1, 2)
    return box_muller(bits).reshape(samples, spec.width, -1)[..., :n_inputs]


def box_muller(bits: np.ndarray) -> np.ndarray:
    """(..., 2) standard normals of (..., 2) random 32-bit numbers."""
    first, second = bits[..., 0], bits[..., 1]
    radius = np.sqrt(-2 * np.log(((first >> np.uint64(1)).astype(float) + 0.5) / 2.0**31))
    radius *= np.where(first & np.uint64(1), -1, 1)
    angle = second.astype(np.uint32).view(np.int32) * (np.pi / 2 / 2.0**31)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def semidefinite_cholesky(matrix: np.ndarray) -> np.ndarray:
    """Lower triangular factors of (..., N, N); a pivot of (rounded) 0 leaves a zero column."""
    rest, factor = matrix.copy(), np.zeros_like(matrix)
    for j in range(matrix.shape[-1]):
        solid = rest[:, j, j] > 1e-6 * matrix[:, j, j]
        factor[:, j:, j] = np.where(solid, np.where(solid, rest[:, j, j], 1.0) ** -0.5, 0.0)[:, None] * rest[:, j:, j]
        rest -= factor[:, :, None, j] * factor[:, None, :, j]
    return factor


def replay(spec: eft.EnsembleSpec, samples: int) -> np.ndarray:
    """(R, 2 or 4, P, samples) observations of the same networks, in float64."""
    model, path = spec.model, reference.Path(spec)
    sigma = get_activation(model.activation).function
    first, second = pair_indices(spec.kernel.n_inputs)
    paired = spec.estimator == "paired"

    def mean_products(x):
        return np.einsum("mia,mib->mab", x, x) / spec.width

    def pairs(x):
        return x[:, first, second]

    state = normals(spec, samples, 0) @ path.start
    twin, response, seen = state, np.zeros((samples, len(first))), []
    for layer in range(model.depth + 1):
        moment = mean_products(sigma(state))
        if paired:
            twin_moment = pairs(mean_products(sigma(twin)))
            shifted = (path.twin.response[layer] * response[:, path.twin.neighbours]).sum(-1)
        if layer in spec.depths:
            row = spec.depths.index(layer)
            empirical = pairs(mean_products(state))
            here = [empirical - path.reference.kernel[row], pairs(moment) - path.reference.second_moment[row]]
            if paired:
                here.append(empirical - pairs(mean_products(twin)) - response)
                here.append(pairs(moment) - twin_moment - shifted / model.weight_variance)
            seen.append(here)
        if layer == model.depth:
            break
        increment = model.bias_variance + model.weight_variance * moment
        z = normals(spec, samples, layer + 1)
        root = symmetric_root(increment) if paired else semidefinite_cholesky(increment)
        state = state + model.epsilon * z @ np.swapaxes(root, 1, 2)
        if paired:
            twin = twin + model.epsilon * z @ path.twin.root[layer]
            drive = model.weight_variance * (twin_moment - path.twin.second_moment[layer])
            response = response + model.epsilon**2 * (shifted + drive)
    return np.moveaxis(np.array(seen), 2, -1)


def test_the_replay_draws_philox_as_published():
    zeros, ones = np.zeros((1, 4), np.int64), np.full((1, 4), 0xFFFFFFFF)
    assert [hex(x) for x in philox(0, zeros)[0]] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    assert [hex(x) for x in philox(2**64 - 1, ones)[0]] == ["0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_accurate_to_float32_rounding(interpreted, name):
    """To the bounds that ``activate`` states."""
    seen, x = interpreted[ELEMENTARY][name].astype(float), X.astype(float)
    expected = get_activation(name).function(x)
    relative = name.startswith(("linear", "tanh", "erf", "relu", "leaky_relu", "silu", "swish"))
    bound = 4e-7 * np.abs(expected) if relative else 2e-7 * (1 + np.abs(x))
    assert (np.abs(seen - expected) <= bound + 1e-37).all()


def test_logarithm_and_exponential_are_accurate_to_float32_rounding(interpreted):
    size = np.abs(X) + np.float32(1e-30)
    exact = {"log": np.log(size.astype(float)), "expm1": np.expm1(np.clip(X, -87, 87).astype(float))}
    for name, expected in exact.items():
        assert (np.abs(interpreted[ELEMENTARY][name] - expected) <= 2e-7 * np.abs(expected)).all(), name


def test_normals_have_the_stated_error(interpreted):
    """Of their definition in float64: rounding, and near radius 0 what is left of a difference of logarithms."""
    counter = np.zeros((POINTS, 4), np.int64)
    counter[:, 0], counter[:, 1], counter[:, 2] = np.arange(POINTS), 3, 5
    expected = box_muller(philox(KEY, counter).reshape(POINTS, 2, 2))
    error = np.abs(interpreted[ELEMENTARY]["normals"].T.reshape(expected.shape) - expected)
    radius = np.linalg.norm(expected, axis=-1, keepdims=True)
    assert (error <= 4e-7 * np.maximum(1, radius) + np.minimum(1e-5 / radius, 3.2e-3)).all()
    assert (error**2).mean() ** 0.5 < 1.3e-6
    assert radius.max() > 4


@pytest.mark.parametrize("name", CASES)
def test_each_network_follows_its_replay_to_float32_rounding(interpreted, name):
    spec, samples = CASES[name]
    expected = replay(spec, samples)
    seen = interpreted[name]["observed"]
    assert seen.shape == expected.shape
    # where Q is singular a factor may keep the root of a rounding error, and only its square is small
    rounding = 1e-3 if "duplicated" in name or "n < N" in name else 5e-6
    assert np.abs(seen - expected).max() < rounding * max(1.0, np.abs(expected).max())
    assert np.unique(seen[0, 0, -1]).size == samples


@pytest.mark.parametrize("name", SUMMED)
def test_sums_are_those_of_the_processor(interpreted, name):
    _compare_sums(interpreted[name], name)


@pytest.mark.campaign
@pytest.mark.parametrize("name", [name for name in MORE_SUMMED if name not in SUMMED])
def test_more_sums_are_those_of_the_processor(all_summed, name):
    _compare_sums(all_summed[name], name)


def _compare_sums(found, name):
    from eftcore.ensemble.cpu.moments import Moments
    from eftcore.ensemble.sums import LANES

    spec, samples = CASES[name]
    observed = found["observed"]
    padded = np.pad(observed, ((0, 0), (0, 0), (0, 0), (0, -samples % LANES)))
    bundles = np.moveaxis(padded.reshape(*observed.shape[:-1], -1, LANES), -2, 0)
    moments = Moments(spec, reference.Path(spec).reference)
    moments.add(np.ascontiguousarray(bundles))
    expected = moments.finished(samples)
    assert found.keys() == expected.keys() | {"observed", "pieces"}
    for key, value in expected.items():
        seen = found[key]
        assert seen.shape == value.shape
        assert np.abs(seen - value).max() <= 1e-12 * np.abs(value).max(), key


def test_an_ensemble_comes_in_pieces_of_whole_blocks(interpreted):
    assert interpreted[CHUNKED]["pieces"] == 3
    assert interpreted["plain, N = 3"]["pieces"] == 1


def test_smaller_pieces_where_memory_is_short_give_the_same_digits(interpreted):
    seen = interpreted[LIMITED]
    assert [list(seen[f"{networks}|counts"]) for networks in FITTING] == [[35], [16, 16, 3], [8, 8, 8, 8, 3], [0]]
    names = [key.partition("|")[2] for key in seen if key.startswith("35|")]
    assert {"deviation", "deviation_4", "powers"} < set(names)
    for name in set(names) - {"counts"}:
        whole = seen[f"35|{name}"]
        assert np.abs(whole).max() > 0
        assert all(np.array_equal(seen[f"{networks}|{name}"], whole) for networks in (20, 8))


def test_duplicated_inputs_stay_equal(interpreted):
    for estimator, bound in (("plain", 2e-6), ("paired", 2e-4)):
        seen = interpreted[f"{estimator}, duplicated"]["observed"]
        for same in ((0, 1), (1, 3), (2, 4)):
            assert np.abs(seen[:, 0, same[0]] - seen[:, 0, same[1]]).max() <= bound


def test_a_zero_input_stays_zero(interpreted):
    for estimator in ("plain", "paired"):
        assert np.abs(interpreted[f"{estimator}, zero input"]["observed"][:, :, :2]).max() < 1e-12


if __name__ == "__main__":
    interpret(*sys.argv[1:])
