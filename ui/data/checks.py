"""The frames behind the page of checks: every recorded check, and one with its blocks and kernels beside theory.

``build_*`` functions read a database and use neither Streamlit nor Plotly. The docstring of each gives the number of
SQL statements that it executes; tests check this number.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from db.reading import queries
from db.reading.stored_results import stored_specs
from db.schema.components import diagonal_components
from db.session import Database
from eftcore.errors import InputError
from eftcore.specs import CheckSpec
from eftcore.words import block_text
from ui.data.run import build_provenance, build_run_windows, build_values, component_choices, name_series
from ui.figures.coordinate_check import ENDS, MOST_INPUTS, Measured
from ui.notation import number

DIGITS = 12
"""Of a digest, as many as a column has room for."""


def build_checks(db: Database) -> pd.DataFrame:
    """Every check, the newest first: check_run_id, label (a line) and texts for a list of them. One statement."""
    rows = queries.checks(db, layer=1)
    passed = rows["first_deviating_layer"].isna()
    network = [
        f"{row['activation']}, {block_text(row)}, L = {row['depth']}, ε = {number(row['epsilon'])}"
        for row in rows.to_dict("records")
    ]
    found = pd.DataFrame(
        {
            "check_run_id": rows["check_run_id"],
            "module": rows["module"],
            "made by": rows["factory"].fillna("—"),
            "compared with": network,
            "width n": rows["width"],
            "networks": rows["samples"],
            "p": [f"{p:.2g}" for p in rows["module_p_value"]],
            "outcome": [
                "as it should be" if good else f"deviates from layer {layer} on"
                for good, layer in zip(passed, rows["first_deviating_layer"], strict=True)
            ],
        }
    )
    labels = [f"run {row['check_run_id']}: {row['module']}, {row['outcome']}" for row in found.to_dict("records")]
    return found.assign(label=labels)


def build_blocks(db: Database, check_run_id: int) -> pd.DataFrame:
    """The rows of one check in v_checks. One statement."""
    return queries.checks(db, check_run_id=check_run_id)


def build_measured(db: Database, check_run_id: int) -> Measured:
    """The kernels of a check, as the coordinate check draws them. Two statements."""
    spec = stored_specs(db, [check_run_id])[check_run_id]
    assert isinstance(spec, CheckSpec)
    names = diagonal_components(min(spec.kernel.n_inputs, MOST_INPUTS))
    rows = queries.quantiles(db, reference_run_id=check_run_id, component=names, probability=ENDS)
    layers = np.array(spec.depths)
    values = rows.set_index(["layer", "component", "probability"])["value"]
    wanted = pd.MultiIndex.from_product([layers, names, ENDS])
    return Measured(
        spec=spec.model,
        width=spec.width,
        networks=spec.networks,
        layers=layers,
        start=np.diag(spec.kernel.array)[: len(names)],
        quantiles=values.reindex(wanted).to_numpy().reshape(len(layers), len(names), len(ENDS)),
        single=spec.has_covariance,
    )


def build_beside_theory(db: Database, check_run_id: int, n_inputs: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Kernels at the last layer beside theory, as texts, and the windows t* against them as v_windows. Two statements.

    The first is empty where no theory is recorded.
    """
    chosen = [*component_choices("K0", n_inputs)[1], *component_choices("V4", n_inputs)[1]]
    rows = queries.trajectories(db, reference_run_id=check_run_id, component=chosen)
    rows = name_series(rows[rows["simulated"].notna() & rows["prediction_run_id"].notna()])
    values = build_values(rows, rows["time"].max()) if len(rows) else pd.DataFrame()
    return values.rename(columns={"simulated ± s.e.": "measured ± s.e."}), build_run_windows(db, check_run_id)


def build_origin(db: Database, blocks: pd.DataFrame) -> pd.DataFrame:
    """Where a check comes from, a row per recorded fact. Two statements.

    Args:
        blocks: from ``build_blocks``.
    """
    first = blocks.iloc[0]
    run_id = int(first["check_run_id"])
    facts = {"module": first["module"], "digest of its printed form": first["module_digest"][:DIGITS]}
    if first["factory"] is not None:
        facts |= {"made by": first["factory"], "digest of that file": first["factory_digest"][:DIGITS]}
    recorded = build_provenance(db, run_id, [])
    column = str(recorded.columns[-1])
    own = pd.DataFrame({recorded.columns[0]: list(facts), column: list(facts.values())})
    return pd.concat([own, recorded], ignore_index=True)


def chosen_check(asked: str, ids: list[int]) -> int:
    """The id of the check that an address names. Raises InputError where there is none."""
    if asked not in map(str, ids):
        raise InputError(
            "the database has no check of that number", place="check", value=asked, remedy="take one of the list"
        )
    return int(asked)
