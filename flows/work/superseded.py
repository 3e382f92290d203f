"""Results of an older version of an algorithm, which are used until the user asks for new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
    predicted, simulated = plan.predictions, plan.simulations
    there = store.there([*predicted, *_first_results(simulated.values())])  # asked together, not one by one
    older_versions = {digest: list(spec.older_digests()) for digest, spec in predicted.items() if digest not in there}
    older_items = {
        digest: [replace(item, spec=spec) for spec in _older(item.spec)]
        for digest, item in simulated.items()
        if not there.issuperset(_first_results([item]))
    }
    older_there = store.there(
        [
            *(older for versions in older_versions.values() for _, older in versions),
            *_first_results(item for items in older_items.values() for item in items),
        ]
    )

    def prediction(digest: str, spec: PredictionSpec) -> PredictionSpec:
        known = ((version, older) for version, older in older_versions.get(digest, ()) if older in older_there)
        intact = (version for version, older in known if store.is_intact(older))
        return next((spec.of_version(version) for version in intact), spec)

    def simulation(digest: str, item: Simulation) -> Simulation:
        if digest not in older_items:
            if _is_finished(item, store, lambda part: part in there or store.is_there(part)):
                return item
            known = [replace(item, spec=spec) for spec in _older(item.spec)]
        else:
            known = [older for older in older_items[digest] if older_there.issuperset(_first_results([older]))]
        return next((older for older in known if _is_finished(older, store, store.is_intact)), item)

    predictions = {digest: prediction(digest, spec) for digest, spec in predicted.items()}
    simulations = {digest: simulation(digest, item) for digest, item in simulated.items()}
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


def _first_results(items: Iterable[Simulation]) -> list[str]:
    """Digests of the shards of the first round and of their sum, of each simulation."""
    found = []
    for item in items:
        spec, shards = item.spec, item.first_round
        found += [computations.shard_digest(spec.digest, index, count) for index, count in shards]
        found.append(sample_digest(spec, shards))
    return found


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
