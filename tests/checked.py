"""A real check of a module with two inputs, made once, for tests of what becomes of checks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

import eftcore as eft
from db.session import Database
from flows.work.checking import record_beside_theory


def make_model() -> Any:
    """Four blocks, the second of which has 1.66 times the weight variance of its spec."""
    from tests.eftcore.measure.corpus import Block, Network

    return Network(lambda index: Block(outer=2.0 * (1.66 if index == 1 else 1.0), epsilon=0.5), depth=4)


def make_good_model() -> Any:
    """The same without that mistake."""
    from tests.eftcore.measure.corpus import Block, Network

    return Network(lambda _: Block(epsilon=0.5), depth=4)


@cache
def checked(seed: int = 0, good: bool = False) -> eft.Check:
    """The check of either, with 60 networks."""
    import torch

    from tests.eftcore.measure.corpus import FEATURES, spec

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    inputs = np.random.default_rng(1).normal(size=(2, FEATURES))
    found = eft.check(make_good_model if good else make_model, inputs, spec(depth=4), networks=60, seed=seed)
    torch.set_num_threads(threads)
    return found


def record_checked(database: Database, provenance: Mapping[str, Any], seed: int = 0, good: bool = False) -> int:
    """Record it beside theory; the run id of the check."""
    return record_beside_theory(database, checked(seed, good), provenance=provenance)
