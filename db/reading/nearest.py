"""Recorded simulations of networks like one that is asked about."""

from __future__ import annotations

import numpy as np
import pandas as pd
import sqlalchemy as sa

from db.reading.queries import _frame
from db.schema.rows import model_fields
from db.schema.views import v_runs
from db.session import Database
from eftcore.inputs.kernel import InputKernel
from eftcore.specs import OF_BLOCKS, ResNet

_SIZES = {"weight_variance": 2.0, "total_time": 1.0, "epsilon": 0.5, "width": 0.5, "n_inputs": 0.5}
"""Columns of positive numbers in which networks differ, with the weight of a factor e in each."""

_HIDDEN_SIZES = {"hidden_ratio": 1.0, "hidden_weight_variance": 2.0}

_COLUMNS = (
    *("run_id", "activation", "weight_variance", "bias_variance", "epsilon", "depth", "total_time"),
    *("block", *OF_BLOCKS, "n_inputs", "kernel_label", "width", "samples"),
)


def nearest_simulations(db: Database, model: ResNet, kernel: InputKernel, width: int, limit: int = 3) -> pd.DataFrame:
    """The simulations of the same activation, block and normalisation that are most like this network; nearest first.

    Columns of v_runs, and distance: 0 for the network itself with inputs that have the same label. One statement.
    """
    mine = {**model_fields(model), "width": width, "n_inputs": kernel.n_inputs}
    same = [_same(name, mine[name]) for name in ("activation", "block", "normalisation")]
    wanted = (v_runs.c.kind == "simulation") & (v_runs.c.status == "succeeded") & ~v_runs.c.superseded
    query = sa.select(*(v_runs.c[name] for name in _COLUMNS)).where(wanted, *same)
    runs = _frame(db, query)
    sizes = {**_SIZES, **(_HIDDEN_SIZES if model.block == "two_matrix" else {})}
    distance = (runs["bias_variance"].astype(float) - model.bias_variance).abs()
    distance += 0.5 * (runs["kernel_label"] != kernel.label)
    for name, weight in sizes.items():
        distance += weight * np.abs(np.log(runs[name].astype(float) / float(mine[name])))
    return runs.assign(distance=distance).nsmallest(limit, "distance").reset_index(drop=True)


def _same(name: str, value: object) -> sa.ColumnElement[bool]:
    column = v_runs.c[name]
    return column.is_(None) if value is None else column == value
