"""Results of an older version of an algorithm, which are used until the user asks for new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from eftcore.ensemble import sample_digest
from eftcore.ensemble.shards import next_round
from eftcore.specs import EnsembleSpec, PredictionSpec
from flows.study.expansion import Simulation, Study
from flows.study.requests import ConfigurationRequest, StudyRequest
from flows.work import computations
from flows.work.store import ResultStore, default_store

AnySpec = TypeVar("AnySpec", PredictionSpec, EnsembleSpec)


def requested_study(request: StudyRequest | ConfigurationRequest) -> Study:
    """The requested study. Finished results of older versions of an algorithm are used unless ``renew`` is set."""
    plan = request.plan()
    return plan if request.renew else with_older_results(plan, default_store())


def with_older_results(plan: Study, store: ResultStore) -> Study:
    """The study with finished results of older versions, wherever there is no finished result of the present version.

    Shards of different versions are never added up: a simulation larger than an older version's is simulated anew.
    """
    predictions = {digest: _prediction(spec, store) for digest, spec in plan.predictions.items()}
    simulations = {digest: _simulation(item, store) for digest, item in plan.simulations.items()}
    return replace(
        plan,
        predictions={spec.digest: spec for spec in predictions.values()},
        simulations={item.spec.digest: item for item in simulations.values()},
        comparisons=tuple((predictions[p].digest, simulations[e].spec.digest) for p, e in plan.comparisons),
        theory_comparisons=tuple((predictions[p].digest, predictions[r].digest) for p, r in plan.theory_comparisons),
    )


def in_words(count: int) -> str:
    """A sentence that says how many results are superseded."""
    made = "1 result is" if count == 1 else f"{count} results are"
    return f"{made} superseded, made by an older version of the algorithm"


def _prediction(spec: PredictionSpec, store: ResultStore) -> PredictionSpec:
    if store.is_there(spec.digest):
        return spec
    older = (version for version, digest in spec.older_digests() if store.is_intact(digest))
    return next((spec.of_version(version) for version in older), spec)


def _simulation(item: Simulation, store: ResultStore) -> Simulation:
    if _is_finished(item, store, store.is_there):
        return item
    older = (replace(item, spec=spec) for spec in _older(item.spec))
    return next((other for other in older if _is_finished(other, store, store.is_intact)), item)


def _older(spec: AnySpec) -> Iterator[AnySpec]:
    """The spec with each older version of the algorithm, the newest first."""
    return (spec.of_version(version) for version in range(spec.version - 1, 0, -1))


def _is_finished(item: Simulation, store: ResultStore, is_there: Callable[[str], bool]) -> bool:
    """Whether all shards and their sum exist; for a target precision, those of the last round.

    A damaged result of the present version counts as existing, because it will be computed again.
    """
    spec, shards = item.spec, item.first_round
    while shards:
        merged = sample_digest(spec, shards)
        parts = (computations.shard_digest(spec.digest, index, count) for index, count in shards)
        if not is_there(merged) or not all(map(is_there, parts)):
            return False
        if item.precision is None or not store.is_intact(merged):
            break
        shards = next_round(computations.load_sample(store, merged)[0], item.precision)
    return True
