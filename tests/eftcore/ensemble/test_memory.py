"""Where memory is too short for a batch, half of it is followed at a time: same networks, same digits."""

from __future__ import annotations

import gc
import itertools
import weakref

import numpy as np
import pytest
import torch

import eftcore as eft
from eftcore.ensemble.torch_engine import TorchEngine
from eftcore.errors import OutOfMemory

MODEL = eft.ResNet(activation="tanh", weight_variance=1.5, bias_variance=0.1, epsilon=0.3, depth=3)
KERNEL = eft.InputKernel.equicorrelated(n_inputs=3, variance=1.0, correlation=0.3)
pytestmark = pytest.mark.usefixtures("by_torch")
ALLOCATORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


def simulate(samples=1100, sampler="block", **options):
    """A chunk of the general engine has 1024 networks."""
    options = {"width": 8, "depths": (0, 2, 3), "device": "cpu", "dtype": "float64"} | options
    return eft.simulate(MODEL, KERNEL, samples=samples, sampler=sampler, **options)


@pytest.fixture
def memory_for(monkeypatch):
    """(networks, error): a device whose memory holds so many of them; returns how many were followed at a time."""
    whole = TorchEngine.fired

    def limit(networks: int, error: Exception = ALLOCATORS[0]) -> list[int]:
        seen = []

        def fired(self, state):
            seen.append(len(state))
            if len(state) > networks and len(seen) % 4 == 3:  # not the first allocation of a batch fails
                raise error
            return whole(self, state)

        monkeypatch.setattr(TorchEngine, "fired", fired)
        return seen

    return limit


@pytest.mark.parametrize(
    ("networks", "estimator", "sampler"),
    [
        *itertools.product([600, 100], ["plain", "paired"], ["block"]),
        *itertools.product([512, 16], ["plain", "paired"], ["weights"]),
        (1, "plain", "block"),
        *[
            pytest.param(*how, marks=pytest.mark.campaign)
            for networks, sampler in ((600, "weights"), (512, "block"), (100, "weights"), (16, "block"))
            for how in ((networks, "plain", sampler), (networks, "paired", sampler))
        ],
        *[pytest.param(1, *how, marks=pytest.mark.campaign) for how in (("plain", "weights"), ("paired", "block"))],
        pytest.param(1, "paired", "weights", marks=pytest.mark.campaign),
    ],
)
def test_halved_batches_give_the_same_digits(memory_for, networks, estimator, sampler):
    whole = simulate(estimator=estimator, sampler=sampler)
    seen = memory_for(networks)
    halved = simulate(estimator=estimator, sampler=sampler)
    assert max(seen) == 1024
    assert min(seen) <= networks < 2 * min(seen) + 128
    assert whole.sums.keys() == halved.sums.keys()
    assert all(np.array_equal(whole.sums[name], halved.sums[name]) for name in whole.sums)


@pytest.mark.parametrize("error", ALLOCATORS)
def test_every_allocators_complaint_is_understood(memory_for, error):
    seen = memory_for(256, error)
    simulate(samples=64)
    assert min(seen) == 256


def test_a_smaller_batch_stays_for_the_rest_of_a_shard(memory_for):
    seen = memory_for(256)
    simulate(samples=3000)
    first = seen.index(256)
    assert set(seen[first:]) == {256}


def test_not_even_one_network_fits(memory_for):
    seen = memory_for(0)
    with pytest.raises(OutOfMemory, match=r"Tried to allocate.*smaller width, fewer inputs, fewer recorded depths$"):
        simulate()
    assert seen[-1] == 1


def test_what_did_not_fit_is_let_go_before_the_next_attempt(monkeypatch):
    """Also of the error that is raised in the end: its task is tried again while Prefect keeps the error."""
    states = []

    def fired(self, state):
        gc.collect()
        assert not any(ref() is not None for ref in states)
        states.append(weakref.ref(state))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(TorchEngine, "fired", fired)
    with pytest.raises(OutOfMemory) as failed:
        simulate()
    assert len(states) > 10
    assert failed.value.__context__ is None
    gc.collect()
    assert not any(ref() is not None for ref in states)


def test_other_errors_pass_as_they_are(memory_for):
    seen = memory_for(16, RuntimeError("the input is singular"))
    with pytest.raises(RuntimeError, match="the input is singular"):
        simulate()
    assert min(seen) == 1024
