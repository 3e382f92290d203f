"""Results of the paper's study in a database: numbers, each with the query that returns it, and curves of the figures.

At most four statements are executed, however many numbers are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from db.reading import queries
from db.reading.stored_results import StoredSample, stored_results
from db.schema.components import row_components
from db.session import Database
from eftcore.errors import InputError
from eftcore.quantities import QUANTITIES
from eftcore.results import Theory as Prediction
from eftcore.theory.solving import error_scales
from eftcore.words import theory_name
from ui.reports.paper.published import published

STUDIES = ("paper", "paper-quick")
"""Bundled studies with the results that the audit needs, the more precise one first."""


@dataclass(frozen=True)
class Number:
    """A value, its standard error (0 for theory) and the SQL query that returns it.

    ``unsure`` is the estimated absolute error of a theory's value: numerical error and what a series leaves out.
    """

    value: float
    se: float
    sql: str
    unsure: float = 0.0


@dataclass(frozen=True)
class Theory:
    """Selects a prediction by closure, Wick order, and nodes of the fixed rule (None for converged quadrature)."""

    closure: str
    order: int | None = None
    nodes: int | None = None

    @property
    def condition(self) -> str:
        """SQL condition that selects the prediction in a view."""
        order = "" if self.order is None else f" AND closure_order = {self.order}"
        nodes = "IS NULL" if self.nodes is None else f"= {self.nodes}"
        return f"closure = '{self.closure}'{order} AND nodes {nodes}"

    def __str__(self) -> str:
        return theory_name(self.closure, self.order, self.nodes)


EPSILON = published().model.epsilon
WIDTH = 64
"""Width of the paper's main ensemble, in figures 1, 3 and 4."""

PUBLISHED = Theory("g_only", nodes=published().numerics.nodes)
CONVERGED = Theory("g_only")
SOURCE_ONLY = Theory("source_only")
NORMAL_ORDERED = Theory("wick", order=2)
SIGMA = Theory("sigma")
EXACT = Theory("exact")
THEORIES = (SOURCE_ONLY, CONVERGED, PUBLISHED, SIGMA, NORMAL_ORDERED, EXACT)


def _unsure(result: Prediction, quantity: str, row: int) -> float:
    """Estimated error of the prediction at one recorded depth (Frobenius norm), numerics and series together."""
    scales = error_scales(result)
    if quantity not in scales:
        return 0.0
    left = result.details.get("truncation_error")
    truncation = float(left.get(quantity, 0.0)) if isinstance(left, dict) else 0.0
    return (result.numerical_error.get(quantity, 0.0) + truncation) * float(scales[quantity][row])


def recorded_studies(db: Database) -> list[str]:
    """The studies of STUDIES of which the database has any run, in their order. One statement."""
    found = queries.studies(db)
    return [name for name in STUDIES if name in set(found.loc[found["runs"] > 0, "name"])]


class Results:
    """Results of one study in a database, at one width and the paper's epsilon. Two statements, two more for errors.

    Raises InputError where the database has no results of the study; its methods do so for a missing result.
    """

    def __init__(self, db: Database, study: str = STUDIES[0], width: int = WIDTH) -> None:
        self._db, self.study, self.width = db, study, width
        runs = queries.runs(db, study=study, status="succeeded")
        if runs.empty:
            raise InputError(
                "the database has no results of it", place="study", value=study, remedy=f"`eft run {study}` makes them"
            )
        self._runs = runs

    @cached_property
    def simulations(self) -> pd.DataFrame:
        """The largest simulation for each epsilon and width: columns epsilon, width, samples, run_id, depth."""
        rows = (
            self._runs[self._runs["kind"] == "simulation"]
            .sort_values("samples")
            .drop_duplicates(["epsilon", "width"], keep="last")
        )
        return rows.sort_values(["epsilon", "width"])[["epsilon", "width", "samples", "run_id", "depth"]]

    @property
    def widths(self) -> list[int]:
        """Widths that are simulated at the paper's epsilon."""
        return [int(width) for width in self.simulations.loc[self.simulations["epsilon"] == EPSILON, "width"]]

    @property
    def epsilons(self) -> list[float]:
        """Every epsilon that is simulated at the largest width."""
        return sorted(self.simulations.loc[self.simulations["width"] == self.largest_width, "epsilon"])

    @property
    def largest_width(self) -> int:
        """The width of figure 2."""
        if self.simulations.empty:
            raise self._missing("no simulation")
        return int(self.simulations["width"].max())

    @property
    def missing(self) -> list[str]:
        """Texts that name the results which the audit needs and the study has not computed yet."""
        widths = sorted({WIDTH, *(value.width for value in published().value if value.width)})
        simulated = [f"the simulation of width {width}" for width in widths if width not in self.widths]
        predicted = [str(theory) for theory in THEORIES if self._predictions(theory, EPSILON).empty]
        return simulated + predicted

    def samples(self, epsilon: float, width: int) -> int:
        """Number of networks of a simulation."""
        return int(self._simulation(epsilon, width)["samples"])

    def simulated(self, epsilon: float, width: int) -> StoredSample:
        """Curves of a simulation."""
        sample = self._stored[int(self._simulation(epsilon, width)["run_id"])]
        assert isinstance(sample, StoredSample)
        return sample

    def predicted(self, theory: Theory, epsilon: float) -> Prediction:
        """Curves of a prediction."""
        rows = self._predictions(theory, epsilon)
        if rows.empty:
            raise self._missing(f"no prediction {theory} at epsilon = {epsilon}")
        prediction = self._stored[int(rows["run_id"].iloc[0])]
        assert isinstance(prediction, Prediction)
        return prediction

    def number(self, quantity: str, component: str, layer: int, theory: Theory | None = None, width: int = 0) -> Number:
        """One component at one layer, at the paper's epsilon: predicted by a theory, or simulated if that is None."""
        width = width or self.width
        result = self.simulated(EPSILON, width) if theory is None else self.predicted(theory, EPSILON)
        columns = "simulated, simulated_se" if theory is None else "predicted, 0 AS se"
        condition = "" if theory is None else theory.condition
        names, index = row_components(quantity, result.spec.kernel.n_inputs)
        place = names.index(component)
        at = (int(np.flatnonzero(result.depth == layer)[0]), *(axis[place] for axis in index))
        values = QUANTITIES[quantity].of(result)
        if values is None:
            raise self._missing(f"no {quantity} of {theory or 'the simulation'}")
        errors = None if theory is not None else QUANTITIES[quantity].standard_error_of(result)
        sql = self._query(
            columns,
            "v_trajectories",
            width,
            condition,
            f"quantity = '{quantity}'",
            f"component = '{component}'",
            f"layer = {layer}",
        )
        unsure = _unsure(result, quantity, at[0]) if isinstance(result, Prediction) else 0.0
        return Number(float(values[at]), 0.0 if errors is None else float(errors[at]), f"{sql} LIMIT 1", unsure)

    def error(self, quantity: str, layer: int, theory: Theory) -> Number:
        """Relative error of a theory against the simulation (Frobenius norm over all components)."""
        row = self._row(self._errors, quantity, theory, self._errors["layer"] == layer)
        sql = self._query(
            "error, error_se", "v_errors", self.width, theory.condition, f"quantity = '{quantity}'", f"layer = {layer}"
        )
        return Number(float(row["error"]), float(row["error_se"]), f"{sql} LIMIT 1")

    def window(self, quantity: str, tolerance: float, theory: Theory) -> tuple[dict[str, Any], str]:
        """A validity window (a row of v_windows), and the query that returns it."""
        row = self._row(self._windows, quantity, theory, self._windows["tolerance"] == tolerance)
        return row, self._query(
            "status, certified_until, refuted_from",
            "v_windows",
            self.width,
            theory.condition,
            f"quantity = '{quantity}'",
            f"tolerance = {tolerance}",
        )

    @cached_property
    def _stored(self) -> dict[int, Prediction | StoredSample]:
        predictions = self._runs.loc[self._runs["kind"] == "prediction", "run_id"]
        return stored_results(self._db, [*self.simulations["run_id"], *predictions])

    @cached_property
    def _errors(self) -> pd.DataFrame:
        return queries.errors(self._db, reference_run_id=self._run_id(self.width), quantity=["K0"])

    @cached_property
    def _windows(self) -> pd.DataFrame:
        return queries.windows(self._db, reference_run_id=self._run_id(self.width), quantity=["K0"])

    def _run_id(self, width: int) -> int:
        return int(self._simulation(EPSILON, width)["run_id"])

    def _query(self, columns: str, view: str, width: int, *conditions: str) -> str:
        kept = (f"epsilon = {EPSILON}", f"width = {width}", *conditions, f"simulation_run_id = {self._run_id(width)}")
        return f"SELECT {columns} FROM {view} WHERE {' AND '.join(filter(None, kept))}"

    def _predictions(self, theory: Theory, epsilon: float) -> pd.DataFrame:
        rows = self._runs[(self._runs["kind"] == "prediction") & (self._runs["epsilon"] == epsilon)]
        return self._of_theory(rows, theory)

    @staticmethod
    def _of_theory(rows: pd.DataFrame, theory: Theory) -> pd.DataFrame:
        rows = rows[rows["closure"] == theory.closure]
        rows = rows[rows["nodes"].isna() if theory.nodes is None else rows["nodes"] == theory.nodes]
        return rows if theory.order is None else rows[rows["closure_order"] == theory.order]

    def _row(self, rows: pd.DataFrame, quantity: str, theory: Theory, where: pd.Series) -> dict[str, Any]:
        found = self._of_theory(rows[where & (rows["quantity"] == quantity)], theory)
        if found.empty:
            raise self._missing(f"no comparison of {theory} with the simulation of width {self.width}")
        return {str(name): value for name, value in found.iloc[0].items()}

    def _simulation(self, epsilon: float, width: int) -> pd.Series:
        rows = self.simulations
        rows = rows[(rows["epsilon"] == epsilon) & (rows["width"] == width)]
        if rows.empty:
            raise self._missing(f"no simulation at epsilon = {epsilon}, width = {width}")
        return rows.iloc[0]

    def _missing(self, what: str) -> InputError:
        return InputError(f"{what} yet", place="study", value=self.study, remedy=f"`eft run {self.study}` goes on")
