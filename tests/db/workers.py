"""Work for other processes: several at once, or one that is killed on the way.

The processes come from a fork server that has the libraries loaded, so that twenty of them cost little.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from typing import Any

import numpy as np
import sqlalchemy as sa
from scipy.stats import norm

import eftcore as eft
from db.session import Database
from db.upkeep import migrate
from db.writing import claims
from db.writing.repository import mark_running, record_comparison, record_prediction, record_simulation, record_study
from eftcore.ensemble.histogram import Quantiles
from eftcore.identity import digest_of
from eftcore.pairs import pair_table
from eftcore.results import KernelTrajectories

TIMEOUT_SECONDS = 300


@dataclass(frozen=True, kw_only=True, eq=False)
class MadeSample(KernelTrajectories):
    """The public attributes of eftcore's Sample, with numbers of our choice."""

    spec: eft.EnsembleSpec
    shards: tuple[tuple[int, int], ...]

    @property
    def samples(self) -> int:
        return sum(count for _, count in self.shards)

    @property
    def digest(self) -> str:
        return digest_of({"ensemble": self.spec.digest, "shards": sorted(self.shards)})

    has_quantiles = True

    def quantiles(self, probability: Any) -> Quantiles:
        """Those of a log-normal law with about the sample's mean and variance.

        The outermost have no bounds, as of few networks.
        """
        p = np.asarray(probability, dtype=float)
        n_inputs = self.mean.shape[1]
        assert self.covariance is not None
        mean = np.diagonal(self.mean, axis1=1, axis2=2)[..., None]
        own = np.diag(pair_table(n_inputs))
        spread = np.sqrt(self.covariance[:, own, own] / self.spec.width)[..., None] / mean
        unsure = np.where(np.minimum(p, 1 - p) < 0.01, np.nan, 0.05)
        value, low, high = (mean * np.exp(spread * (norm.ppf(p) + shift)) for shift in (0.0, -unsure, unsure))
        return Quantiles(p, value, low, high)

    def degrees_of_freedom(self, quantity: str) -> np.ndarray:
        return np.full(len(self.depth), 40.0)

    def group_fluctuations(self, quantity: str) -> None:
        return None

    def reliable(self, quantity: str) -> np.ndarray:
        return np.arange(len(self.depth)) > 0


def context() -> ForkServerContext:
    """Where the processes come from."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([__name__])
    return made


def run_together(work: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[tuple[int | None, Any]]:
    """Run ``work`` in a process for each arguments, all starting at the same moment; (exit code, answer) of each."""
    processes = context()
    start = processes.Barrier(len(arguments))
    pipes = [processes.Pipe(duplex=False) for _ in arguments]
    workers = [
        processes.Process(target=_answer, args=(sender, start, work, given))
        for (_, sender), given in zip(pipes, arguments, strict=True)
    ]
    for worker in workers:
        worker.start()
    for _, sender in pipes:
        sender.close()
    answers = []
    for worker, (receiver, _) in zip(workers, pipes, strict=True):
        try:
            answer = receiver.recv() if receiver.poll(TIMEOUT_SECONDS) else "no answer"
        except EOFError:
            answer = "died"
        worker.join(TIMEOUT_SECONDS)
        answers.append((worker.exitcode, answer))
    return answers


def _answer(sender: Any, start: Any, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    start.wait(TIMEOUT_SECONDS)
    sender.send(work(*given))


def sample_of(theory: eft.Theory, width: int, samples: int = 64) -> MadeSample:
    """What a simulation could give: the theory, with noise that depends on the width alone."""
    spec = eft.EnsembleSpec(model=theory.spec.model, kernel=theory.spec.kernel, width=width)
    noise = np.random.default_rng(width)
    arrays: dict[str, Any] = {"depth": theory.depth, "time": theory.time}
    for name in ("mean", "covariance", "correction", "source", "increment_covariance"):
        exact = getattr(theory, name)
        wobble = noise.standard_normal(exact.shape)
        arrays[name] = exact * (1 + 0.02 * (wobble + wobble.swapaxes(1, 2)))
        arrays[f"{name}_se"] = 0.02 * np.abs(exact)
    return MadeSample(spec=spec, shards=((0, samples),), **arrays)


def upgrade(url: str) -> str:
    """The revision reached."""
    return migrate.upgrade(url)


def record_study_of(url: str, theory: eft.Theory, name: str, widths: tuple[int, ...]) -> tuple[int, ...]:
    """Record a study of one theory and simulations of some widths, as a flow would; the ids of its runs."""
    database = Database(url)
    try:
        study_id = record_study(
            database, name=name, digest=uuid.uuid5(uuid.NAMESPACE_OID, name).hex * 2, spec={}, runs_asked=1
        )
        ids = [record_prediction(database, theory, provenance={}, study_id=study_id)]
        for width in widths:
            sample = sample_of(theory, width)
            simulation = record_simulation(database, sample, provenance={}, study_id=study_id)
            pair = {"prediction_run_id": ids[0], "reference_run_id": simulation}
            record_comparison(database, **pair, comparison=eft.compare(theory, sample))
            ids.append(simulation)
        return tuple(ids)
    finally:
        database.dispose()


def die_recording(url: str, theory: eft.Theory, after: int) -> list[str]:
    """As record_study_of, but killed (SIGKILL) at that step: before or after a statement, or around a commit.

    Returns what the steps are, for people, when there are fewer.
    """
    steps: list[str] = []

    def step(moment: str, statement: str = "") -> None:
        steps.append(f"{moment} {' '.join(statement.split()[:3])}".strip())
        if len(steps) == after:
            os.kill(os.getpid(), signal.SIGKILL)

    for moment in ("before", "after"):
        name = f"{moment}_cursor_execute"
        sa.event.listen(sa.Engine, name, lambda c, _, text, *rest, moment=moment: step(moment, text))
    for moment in ("begin", "commit"):
        sa.event.listen(sa.Engine, moment, lambda _, moment=moment: step(f"at {moment}"))
    record_study_of(url, theory, "killed", (16, 32))
    return steps


def start(url: str, spec: eft.PredictionSpec) -> int | None:
    """Try to start a prediction; the id of its run, or None."""
    database = Database(url)
    try:
        return mark_running(database, spec, holder=claims.new_holder(), provenance={})
    finally:
        database.dispose()


def die_computing(url: str, spec: eft.PredictionSpec) -> None:
    """Start a prediction, under a claim that lasts no time, and be killed."""
    mark_running(Database(url), spec, holder=claims.new_holder(), provenance={}, lease_seconds=-1.0)
    os.kill(os.getpid(), signal.SIGKILL)
