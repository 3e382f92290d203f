"""What a number, an array and a component look like in the database: properties, and the budget in bytes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sqlalchemy.dialects import postgresql, sqlite

import eftcore as eft
from db.reading.queries import studies
from db.schema.components import ROW_INPUTS, V4_ROW_INPUTS, canonical_component, pair_name, row_components
from db.schema.types import UTCDateTime, pack, plain_json, split_nonfinite, unpack
from db.writing.repository import record_comparison, record_prediction, record_simulation, record_study
from eftcore.errors import InputError
from eftcore.quantities import QUANTITIES
from eftcore.specs import CLOSURES

_INPUTS = st.integers(min_value=0, max_value=30)


@given(st.lists(st.floats(width=64)))
def test_numbers_come_back_from_their_stored_form(values):
    numbers, markers = split_nonfinite(values)
    for value, number, marker in zip(values, numbers, markers, strict=True):
        assert (number is None) == (marker is not None) == (not np.isfinite(value))
        back = float(marker) if number is None else number
        np.testing.assert_array_equal(back, value)


@given(arrays(np.float64, array_shapes(min_dims=3, max_dims=3, max_side=5)))
def test_arrays_come_back_bit_for_bit(array):
    data = pack(array)
    assert len(data) == 8 * array.size
    assert unpack(data, array.shape).tobytes() == array.tobytes()
    assert pack(np.asfortranarray(array)) == data, "the order in memory does not matter"
    assert pack(array.astype(">f8")) == data, "nor does the byte order"


@given(_INPUTS, _INPUTS, _INPUTS, _INPUTS)
def test_every_spelling_of_a_component_is_one(a, b, c, d):
    def spelled(first: int, second: int) -> str:
        return f"{first}{second}" if max(first, second) < 10 else f"{first}-{second}"

    names = {
        canonical_component(f"{p},{q}")
        for ab in (spelled(a, b), spelled(b, a))
        for cd in (spelled(c, d), spelled(d, c))
        for p, q in ((ab, cd), (cd, ab))
    }
    assert len(names) == 1
    assert canonical_component(names.pop()) == canonical_component(f"{spelled(a, b)},{spelled(c, d)}")


@given(st.integers(min_value=1, max_value=20), st.sampled_from(list(QUANTITIES)))
@settings(deadline=None)  # the first call of a size builds a table
def test_rows_address_the_components_they_name(n_inputs, quantity):
    names, index = row_components(quantity, n_inputs)
    assert len(set(names)) == len(names)
    pairs = list(combinations_with_replacement(range(n_inputs), 2))
    for name, *at in zip(names, *(axis.tolist() for axis in index), strict=True):
        if QUANTITIES[quantity].over == "inputs":
            assert name == pair_name(*at)
        else:
            assert name == ",".join(pair_name(*pairs[p]) for p in at)
        assert len(at) == len(QUANTITIES[quantity].shape(1, n_inputs)) - 1
        assert canonical_component(name) == name


@pytest.mark.parametrize(("n_inputs", "k", "v4"), [(1, 1, 1), (2, 3, 6), (4, 10, 55), (5, 15, 60), (16, 136, 181)])
def test_number_of_components_kept_as_rows(n_inputs, k, v4):
    assert len(row_components("K0", n_inputs)[0]) == k
    assert len(row_components("V4", n_inputs)[0]) == v4
    assert len(row_components("T", n_inputs)[0]) == k


def test_many_inputs_do_not_mean_many_rows():
    assert len(row_components("K1", 60)[0]) == ROW_INPUTS * (ROW_INPUTS + 1) // 2
    inner = V4_ROW_INPUTS * (V4_ROW_INPUTS + 1) // 2
    outer = ROW_INPUTS * (ROW_INPUTS + 1) // 2
    assert len(row_components("V4", 60)[0]) == inner * (inner + 1) // 2 + outer - inner


@given(st.datetimes(timezones=st.just(timezone(timedelta(hours=-7)))))
def test_times_are_utc_on_both_databases(moment):
    kind = UTCDateTime()
    for dialect in (sqlite.dialect(), postgresql.dialect()):
        stored = kind.process_bind_param(moment, dialect)
        assert stored is not None
        back = kind.process_result_value(stored, dialect)
        assert back == moment
        assert back.tzinfo is UTC
    with pytest.raises(InputError, match="time zone"):
        kind.process_bind_param(moment.replace(tzinfo=None), sqlite.dialect())


def test_time_of_a_row_is_the_databases(db):
    record_study(db, name="s", digest="a" * 64, spec={}, runs_asked=1)
    created = studies(db).created_at.iloc[0].to_pydatetime()
    assert abs(created - datetime.now(UTC)) < timedelta(hours=1), "in UTC, whatever the zone of the machine"


def test_json_has_no_nan():
    value = {"a": [float("nan"), np.float64("inf"), np.arange(2)], "b": (True, None, np.bool_(False), "x"), "c": 0.0}
    assert plain_json(value) == {"a": ["nan", "inf", [0, 1]], "b": [True, None, False, "x"], "c": 0.0}


def test_bytes_on_disk_for_one_configuration(sqlite_db, make_theory, make_sample, provenance):
    """At most 4 MB: N = 4, 100 recorded depths, a simulation and every closure, with "exact" in the place of "wick"."""
    network = {"n_inputs": 4, "depth": 100}
    sample, full = make_sample(**network), make_theory("g_only", **network)
    simulation = record_simulation(sqlite_db, sample, provenance=provenance)
    for closure in set(CLOSURES) - {"wick"}:
        spec = eft.PredictionSpec(model=full.spec.model, kernel=full.spec.kernel, closure=closure)
        theory = replace(full, spec=spec)
        if closure in ("mean", "source_only"):
            theory = replace(theory, correction=None, source=None)
        if closure == "mean":
            theory = replace(theory, covariance=None)
        if closure not in ("source_only", "g_only"):
            theory = replace(theory, increment_covariance=None)
        prediction = record_prediction(sqlite_db, theory, provenance=provenance)
        comparison = eft.compare(theory, sample)
        record_comparison(sqlite_db, prediction_run_id=prediction, reference_run_id=simulation, comparison=comparison)
    sqlite_db.dispose()
    path = str(sqlite_db.url.database)
    rows = 140 + 10 + 120 + 140 + 3 * 85  # simulation, mean, source_only, g_only, and closures without Sigma
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert connection.execute("SELECT count(*) FROM trajectory_values").fetchone() == (101 * rows,)
        assert connection.execute("SELECT count(*) FROM kernel_quantiles").fetchone() == (101 * 4 * 7,)
    assert Path(path).stat().st_size < 4_000_000
