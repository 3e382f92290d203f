"""The computation of each task, as a function of specs, digests and a result store. Nothing here uses Prefect.

Each function stores its result, together with the provenance of the computation, under the digest of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

import eftcore as eft
from eftcore.ensemble import Sample, reached, sample_digest
from eftcore.ensemble.engines import resolve_device
from eftcore.ensemble.next_order import MeasuredNextOrder
from eftcore.errors import EnvironmentProblem
from eftcore.identity import digest_of
from eftcore.results import Theory
from eftcore.specs import EnsembleSpec, MeasurementSpec, PredictionSpec
from eftcore.verdicts.windows import VERDICT_VERSION, Comparison
from flows.work.progress import step
from flows.work.provenance import as_now, of_parts, timed
from flows.work.store import ResultStore, Stored

AnySpec = TypeVar("AnySpec", PredictionSpec, EnsembleSpec)

_FRAMES = ("errors", "windows")


def shard_digest(ensemble: str, shard: int, samples: int) -> str:
    """Identity of the sums of one shard: digest of the ensemble, index of the shard, number of networks."""
    return digest_of({"ensemble": ensemble, "shard": shard, "samples": samples})


def comparison_digest(prediction: str, reference: str, tolerances: Sequence[float]) -> str:
    """Identity of a comparison with a merged sample, a measurement or another prediction."""
    compared = {"prediction": prediction, "merged": reference, "tolerances": sorted(tolerances)}
    return digest_of({**compared, "verdict": VERDICT_VERSION})


def predict(store: ResultStore, spec: PredictionSpec) -> None:
    """Compute a prediction and store it under its digest."""
    _refuse_superseded(spec, store, spec.digest)
    with timed() as provenance:
        theory = eft.predict_spec(spec)
    _save_theory(store, theory, provenance)


def predict_alike(store: ResultStore, specs: Sequence[PredictionSpec]) -> None:
    """Compute predictions together, and store each under its digest. Raises as soon as one of them cannot be computed.

    In the provenance of each, the time from start to end is that of all, of which the time of the worker is a share.
    """
    for spec in specs:
        _refuse_superseded(spec, store, spec.digest)
    with timed() as provenance:
        theories = eft.predict_many(specs)
    share = {"worker_seconds": provenance["worker_seconds"] / max(1, len(specs))}
    for theory in theories:
        _save_theory(store, theory, {**provenance, **share})


def _save_theory(store: ResultStore, theory: Theory, provenance: dict[str, Any]) -> None:
    meta = {
        "spec": theory.spec.model_dump(mode="json"),
        "numerical_error": theory.numerical_error,
        "converged": theory.converged,
        "details": theory.details,
        "provenance": provenance,
    }
    store.save(theory.spec.digest, Stored(arrays=theory.arrays(), meta=meta))


def alike(spec: PredictionSpec) -> tuple[Any, ...]:
    """What predictions have in common that are computed faster together."""
    return spec.closure, spec.model.activation, spec.kernel.n_inputs, spec.model.depth, spec.superseded


def load_theory(store: ResultStore, digest: str) -> tuple[Theory, dict[str, Any]]:
    """A stored prediction and its provenance."""
    return _theory(store.load(digest), digest)


def _theory(stored: Stored, digest: str) -> tuple[Theory, dict[str, Any]]:
    spec = _spec(PredictionSpec, stored, lambda spec: spec.digest == digest)
    described = {name: stored.meta[name] for name in ("numerical_error", "converged", "details")}
    fields: dict[str, Any] = {**stored.arrays, **described}
    return Theory(spec=spec, **fields), as_now(stored.meta["provenance"])


def simulate(store: ResultStore, spec: EnsembleSpec, *, shard: int, samples: int, device: str) -> None:
    """Simulate one shard and store its sums."""
    digest = shard_digest(spec.digest, shard, samples)
    _refuse_superseded(spec, store, digest)
    here = step()
    with timed(device=resolve_device(device), seed=spec.seed) as provenance:
        sample = eft.simulate(
            **{name: getattr(spec, name) for name in type(spec).model_fields if name != "version"},
            samples=samples,
            shard=shard,
            device=device,
            progress=lambda done, total: here.advance(done / total),
        )
    _save_sample(store, digest, sample, provenance)


def _refuse_superseded(spec: PredictionSpec | EnsembleSpec, store: ResultStore, digest: str) -> None:
    if spec.superseded:
        raise EnvironmentProblem(
            "is missing or damaged, and only an older version of the algorithm could compute it again",
            place=store.where(digest),
            remedy="run the study with --renew",
        )


def merge(store: ResultStore, spec: EnsembleSpec, shards: Sequence[tuple[int, int]]) -> None:
    """Add the stored shards of an ensemble."""
    parts = [load_sample(store, shard_digest(spec.digest, shard, samples)) for shard, samples in shards]
    total = parts[0][0]
    for part, _ in parts[1:]:
        total = total + part
    total = total.with_leading_order()
    digest = sample_digest(spec, shards)
    _save_sample(store, digest, total, of_parts([provenance for _, provenance in parts]))


def precision_of(store: ResultStore, spec: EnsembleSpec, shards: Sequence[tuple[int, int]]) -> str:
    """A text with the largest relative standard errors over depth of these stored shards together."""
    parts = [load_sample(store, shard_digest(spec.digest, shard, samples))[0] for shard, samples in shards]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    errors = {quantity: kinds["relative"] for quantity, kinds in reached(total).items()}
    shown = ", ".join(f"{name} {100 * error:.2g} %" for name, error in errors.items() if error is not None)
    return f"{total.samples} networks, standard errors {shown or 'not known yet'}"


def _save_sample(store: ResultStore, digest: str, sample: Sample, provenance: dict[str, Any]) -> None:
    meta = {
        "spec": sample.spec.model_dump(mode="json"),
        "shards": [list(shard) for shard in sample.shards],
        "streams": list(sample.streams),
        "provenance": provenance,
    }
    store.save(digest, Stored(arrays=sample.arrays(), meta=meta))


def load_sample(store: ResultStore, digest: str) -> tuple[Sample, dict[str, Any]]:
    """A stored sample and its provenance."""
    return _sample(store.load(digest), digest)


def _sample(stored: Stored, digest: str) -> tuple[Sample, dict[str, Any]]:
    shards = tuple((int(index), int(count)) for index, count in stored.meta["shards"])
    index, count = shards[0]
    spec = _spec(
        EnsembleSpec,
        stored,
        lambda spec: digest in (sample_digest(spec, shards), shard_digest(spec.digest, index, count)),
    )
    sample = Sample.from_arrays(spec, shards, stored.arrays, streams=stored.meta["streams"])
    return sample, as_now(stored.meta["provenance"], parts=len(shards))


def measure(store: ResultStore, spec: MeasurementSpec) -> None:
    """Measure the next order in 1/n from a stored prediction and stored samples."""
    with timed() as provenance:
        exact, _ = load_theory(store, spec.exact)
        measured = eft.measured_next_order([load_sample(store, digest)[0] for _, _, digest in spec.samples], exact)
    meta = {"measurement": spec.model_dump(mode="json"), "provenance": provenance}
    store.save(spec.digest, Stored(arrays=measured.arrays(), meta=meta))


def load_reference(store: ResultStore, digest: str) -> tuple[Theory | Sample | MeasuredNextOrder, dict[str, Any]]:
    """A stored result that predictions are compared with, and its provenance."""
    stored = store.load(digest)
    if "measurement" in stored.meta:
        spec = MeasurementSpec(**stored.meta["measurement"])
        return MeasuredNextOrder.from_arrays(spec, stored.arrays), as_now(stored.meta["provenance"])
    return _sample(stored, digest) if "shards" in stored.meta else _theory(stored, digest)


def _spec(kind: type[AnySpec], stored: Stored, matches: Callable[[AnySpec], bool]) -> AnySpec:
    """The spec of a stored result. In older files it lacks the version of the algorithm, which the digest tells."""
    present = kind(**stored.meta["spec"])
    if "version" in stored.meta["spec"]:
        return present
    older = (present.of_version(version) for version in range(present.version, 0, -1))
    return next((spec for spec in older if matches(spec)), present)


def compare(store: ResultStore, prediction: str, reference: str, tolerances: Sequence[float]) -> None:
    """Compare a stored prediction with a stored sample, a measurement or another prediction."""
    theory, _ = load_theory(store, prediction)
    better, _ = load_reference(store, reference)
    result = eft.compare(theory, better, tolerances=tuple(tolerances))
    arrays = {}
    for name in _FRAMES:
        frame: pd.DataFrame = getattr(result, name)
        for column in frame:
            values = frame[column].to_numpy()
            arrays[f"{name}.{column}"] = values if values.dtype.kind in "bif" else values.astype(str)
    digest = comparison_digest(prediction, reference, tolerances)
    store.save(digest, Stored(arrays=arrays, meta={"prediction": prediction, "reference": reference}))


def load_comparison(store: ResultStore, digest: str) -> Comparison:
    """A stored comparison."""
    arrays = store.load(digest).arrays
    frames: dict[str, dict[str, np.ndarray]] = {name: {} for name in _FRAMES}
    for name, values in arrays.items():
        frame, column = name.split(".", 1)
        frames[frame][column] = values
    return Comparison(**{name: pd.DataFrame(columns) for name, columns in frames.items()})
