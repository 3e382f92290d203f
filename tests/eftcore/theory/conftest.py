"""Activations that tests of the theory register: what the built-in ones are not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.special import expit

import eftcore as eft
from eftcore.activations import unregister_activation


@pytest.fixture(scope="module")
def registered() -> Iterator[None]:
    """Bounded activations: "logistic", which is neither odd nor even, and "hard_tanh", which bends."""
    eft.register_activation("logistic", lambda x: 2 * expit(x - 1))
    eft.register_activation("hard_tanh", lambda x: np.clip(x, -1, 1))
    yield
    unregister_activation("logistic")
    unregister_activation("hard_tanh")
