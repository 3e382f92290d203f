"""Numbers of a study with the query that gives each, and the curves behind the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from db import queries
from db.session import Database
from eftcore.ensemble import Sample
from eftcore.errors import InputError
from eftcore.published import published
from flows.store import default_store
from flows.work import load_sample


@dataclass(frozen=True)
class Number:
    """A value, its standard error (0 for theory) and the SQL that asks the database for it."""

    value: float
    se: float
    sql: str


@dataclass(frozen=True)
class Theory:
    """Which prediction: closure, Wick order, nodes of the fixed rule (None: converged quadrature)."""

    closure: str
    order: int | None = None
    nodes: int | None = None

    @property
    def condition(self) -> str:
        """SQL that picks it out of a view."""
        order = "" if self.order is None else f" AND closure_order = {self.order}"
        nodes = "IS NULL" if self.nodes is None else f"= {self.nodes}"
        return f"closure = '{self.closure}'{order} AND nodes {nodes}"


EPSILON = published().model.epsilon
WIDTH = 64
"""The paper's main ensemble: figures 1, 3 and 4."""

PUBLISHED = Theory("g_only", nodes=published().numerics.nodes)
CONVERGED = Theory("g_only")
SOURCE_ONLY = Theory("source_only")
NORMAL_ORDERED = Theory("wick", order=2)
SIGMA = Theory("sigma")
EXACT = Theory("wick", order=24)

Curves = Mapping[str, np.ndarray]
"""Arrays of one run as db.queries.arrays gives them: depth, time, K0, V4, K1, U1 and their standard errors."""


class Results:
    """What a database holds of one study. Raises InputError where the study is not there, or not complete."""

    def __init__(self, db: Database, study: str = "paper") -> None:
        self._db, self.study = db, study
        runs = queries.runs(db, study=study, status="succeeded")
        if runs.empty:
            raise InputError(f"study = {study!r}: the database has no results of it; `eft run {study}` makes them")
        self._runs = runs
        self._read: dict[int, Curves] = {}
        self._samples: dict[str, Sample | None] = {}

    @cached_property
    def simulations(self) -> pd.DataFrame:
        """The study's largest simulation of each epsilon and width: epsilon, width, samples, run_id, depth, digest."""
        rows = (
            self._runs[self._runs["kind"] == "simulation"]
            .sort_values("samples")
            .drop_duplicates(["epsilon", "width"], keep="last")
        )
        return rows.sort_values(["epsilon", "width"])[["epsilon", "width", "samples", "run_id", "depth", "digest"]]

    def samples(self, epsilon: float, width: int) -> int:
        """Networks of a simulation."""
        return int(self._simulation(epsilon, width)["samples"])

    def simulated(self, epsilon: float, width: int) -> Curves:
        """Curves of a simulation."""
        return self._arrays(int(self._simulation(epsilon, width)["run_id"]))

    def predicted(self, theory: Theory, epsilon: float) -> Curves:
        """Curves of a prediction."""
        rows = self._runs[(self._runs["kind"] == "prediction") & (self._runs["epsilon"] == epsilon)]
        rows = rows[rows["closure"] == theory.closure]
        rows = rows[rows["nodes"].isna() if theory.nodes is None else rows["nodes"] == theory.nodes]
        if theory.order is not None:
            rows = rows[rows["closure_order"] == theory.order]
        if rows.empty:
            raise InputError(f"study = {self.study!r}: no prediction {theory} at epsilon = {epsilon}; run it again")
        return self._arrays(int(rows["run_id"].iloc[0]))

    def number(
        self, quantity: str, component: str, layer: int, *, epsilon: float, width: int, theory: Theory | None = None
    ) -> Number:
        """One component at one layer: of a theory, or (None) simulated."""
        columns, condition = ("simulated, simulated_se", "") if theory is None else ("predicted, 0", theory.condition)
        where = " AND ".join(
            filter(
                None,
                (
                    f"epsilon = {epsilon} AND width = {width}",
                    condition,
                    f"quantity = '{quantity}' AND component = '{component}' AND layer = {layer}",
                    f"simulation_run_id = {self._simulation(epsilon, width)['run_id']}",
                ),
            )
        )
        return self._ask(f"SELECT {columns} FROM v_trajectories WHERE {where} LIMIT 1")

    def increment_covariance(self, layer: int, *, epsilon: float, width: int) -> Number | None:
        """Sigma_mic[00,00] of a simulation, from its stored sums (the database keeps no Sigma); None without them."""
        sample = self._sample(str(self._simulation(epsilon, width)["digest"]))
        if sample is None:
            return None
        row = int(np.flatnonzero(sample.depth == layer)[0])
        value, se = (x[row, 0, 0] for x in (sample.increment_covariance, sample.increment_covariance_se))
        return Number(float(value), float(se), "")

    def error(self, quantity: str, layer: int, *, epsilon: float, width: int, theory: Theory) -> Number:
        """Relative error of a theory against the simulation (Frobenius norm over all components)."""
        where = (
            f"epsilon = {epsilon} AND width = {width} AND {theory.condition} AND quantity = '{quantity}'"
            f" AND layer = {layer} AND simulation_run_id = {self._simulation(epsilon, width)['run_id']}"
        )
        return self._ask(f"SELECT error, error_se FROM v_errors WHERE {where} LIMIT 1")

    def window(self, quantity: str, tolerance: float, *, epsilon: float, width: int, theory: Theory) -> tuple[str, str]:
        """Status and ends of a validity window as text, and its query."""
        sql = (
            "SELECT status, certified_until, refuted_from FROM v_windows"
            f" WHERE epsilon = {epsilon} AND width = {width} AND {theory.condition} AND quantity = '{quantity}'"
            f" AND tolerance = {tolerance} AND simulation_run_id = {self._simulation(epsilon, width)['run_id']}"
        )
        row = self._row(sql)
        status, certified, refuted = row
        if status == "beyond":
            return f"holds up to T = {certified:.4g}", sql
        if status == "bounded":
            return f"ends between t = {certified:.3g} and {refuted:.3g}", sql
        return ("not resolved" if status == "too_noisy" else f"certified up to t = {certified:.3g}"), sql

    def _arrays(self, run_id: int) -> Curves:
        if run_id not in self._read:
            self._read[run_id] = queries.arrays(self._db, run_id)
        return self._read[run_id]

    def _sample(self, digest: str) -> Sample | None:
        if digest not in self._samples:
            store = default_store()
            self._samples[digest] = load_sample(store, digest)[0] if store.is_intact(digest) else None
        return self._samples[digest]

    def _ask(self, sql: str) -> Number:
        value, se = self._row(sql)
        return Number(float(value), float(se or 0.0), sql)

    def _row(self, sql: str) -> tuple:
        frame = queries.select(self._db, sql)
        if frame.empty:
            raise InputError(f"study = {self.study!r}: not complete; `eft run {self.study}` goes on. No row for: {sql}")
        return tuple(frame.iloc[0])

    def _simulation(self, epsilon: float, width: int) -> pd.Series:
        rows = self.simulations
        rows = rows[(rows["epsilon"] == epsilon) & (rows["width"] == width)]
        if rows.empty:
            raise InputError(
                f"study = {self.study!r}: no simulation at epsilon = {epsilon}, width = {width}; "
                f"`eft run {self.study}` goes on"
            )
        return rows.iloc[0]
