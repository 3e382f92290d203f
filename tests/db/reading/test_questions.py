"""The questions of docs/data-dictionary.md, each answered from results of two studies on both databases."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

import eftcore as eft
from db.reading import queries
from db.session import Database, parse_url
from db.writing.repository import (
    PrecisionTarget,
    mark_failed,
    record_comparison,
    record_prediction,
    record_simulation,
    record_study,
    record_widths,
)
from eftcore.quantities import QUANTITIES
from eftcore.verdicts.widths import widths_of
from tests.db.conftest import PROVENANCE
from tests.db.reading.test_data_dictionary import QUESTIONS
from tests.servers import create_database, drop_database

ARRAYS = [quantity.attribute for quantity in QUANTITIES.values() if not quantity.partial]
"""Of a simulation."""
DEPTH = 32
"""Of networks with epsilon = 1 / 4: T = 2."""

Answer = list[tuple[Any, ...]]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def asked(request, tmp_path_factory, make_theory, make_sample, make_next_order, record_checked) -> Iterator[Database]:
    """Study "first": tanh and relu, five theories, widths 16 and 64, the exact leading order and its next order. Study
    "second" has more of tanh: the same simulation of width 16, another seed, the plain estimator, a top-up, coarse
    integrals, a failure. And a check of a module.
    """
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("asked") / "results.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        url = parse_url(f"sqlite:///{path}")
    else:
        server = request.getfixturevalue("postgresql_server")
        url = create_database(server, request.getfixturevalue("postgresql_template").database)
    db = Database(url)
    _record(db, make_theory, make_sample, make_next_order)
    record_checked(db)
    yield db
    db.dispose()
    if request.param == "postgresql":
        drop_database(server, url)


def _record(db: Database, make_theory: Any, make_sample: Any, make_next_order: Any) -> None:
    studies = [record_study(db, name=name, digest=name[0] * 64, spec={}, runs_asked=1) for name in ("first", "second")]

    def simulated(sample: Any, study: int, seconds: tuple[float, float] = (8.0, 2.0), **options: Any) -> int:
        spent = {"worker_seconds": seconds[0], "elapsed_seconds": seconds[1]}
        return record_simulation(db, sample, provenance={**PROVENANCE, **spent}, study_id=study, **options)

    def compare(theory: eft.Theory, reference: Any, run_id: int, study: int) -> None:
        prediction = record_prediction(db, theory, provenance=PROVENANCE, study_id=study)
        pair = {"prediction_run_id": prediction, "reference_run_id": run_id}
        record_comparison(db, **pair, comparison=eft.compare(theory, reference))

    def sample(activation: str, width: int, *, noise: float = 0.25, shards: int = 2, **fields: Any) -> Any:
        """The exact leading order of V4 and K1, with noise."""
        network = {"activation": activation, "depth": DEPTH}
        exact, closure = make_theory("wick", order=8, **network), make_theory("g_only", **network)
        rough = make_sample(
            width=width + fields.get("seed", 0), shards=tuple((n, 64) for n in range(shards)), **network
        )
        arrays = {f"{name}_se": noise * getattr(rough, f"{name}_se") for name in ARRAYS}
        for name in ARRAYS:
            truth = getattr(exact if name in ("covariance", "correction") else closure, name)
            arrays[name] = truth + noise * (getattr(rough, name) - getattr(closure, name))
        spec = eft.EnsembleSpec(model=exact.spec.model, kernel=exact.spec.kernel, width=width, **fields)
        return replace(rough, spec=spec, **arrays)

    for activation in ("tanh", "relu"):
        network = {"activation": activation, "depth": DEPTH}
        theories = [make_theory(closure, **network) for closure in ("mean", "source_only", "g_only", "sigma")]
        theories += [make_theory("g_only", step="exact", **network), make_theory("g_only", continuous=True, **network)]
        exact = make_theory("wick", order=8, **network)
        reference = record_prediction(db, exact, provenance=PROVENANCE, study_id=studies[0])
        for theory in theories:
            compare(theory, exact, reference, studies[0])
        for width in (16, 64):
            run_id = simulated(sample(activation, width), studies[0], stopped_because="count")
            for theory in theories:
                compare(theory, sample(activation, width), run_id, studies[0])

    network = {"activation": "tanh", "depth": DEPTH}
    errors = {"converged": False, "numerical_error": {"K0": 1e-4, "V4": 4e-3, "K1": 4e-2}}
    coarse = make_theory("g_only", numerics=eft.Numerics(rtol=1e-2), changes=errors, **network)
    theories = [make_theory("sigma", **network), make_theory("g_only", **network), coarse]
    simulated(sample("tanh", 16), studies[1])
    aim = PrecisionTarget(quantity="V4", kind="relative", target=0.001, reached=0.002)
    capped = {"stopped_because": "cap", "targets": [aim], "seconds": (90.0, 30.0)}
    for made, options in (
        (sample("tanh", 16, estimator="plain", noise=1.0), {}),
        (sample("tanh", 16, seed=1), {}),
        (sample("tanh", 16, shards=3), capped),
    ):
        run_id = simulated(made, studies[1], **options)
        for theory in theories:
            compare(theory, made, run_id, studies[1])
    failing = make_theory("mean", activation="sin").spec
    mark_failed(db, failing, error="K0 leaves the range", provenance=PROVENANCE, study_id=studies[1])

    for activation, ratio in (("tanh", 0.1), ("relu", 8.0)):
        network = {"activation": activation, "depth": DEPTH}
        following = make_next_order(ratio, **network)
        exact = record_prediction(db, following, provenance=PROVENANCE, study_id=studies[0])
        for theory in (following, make_theory("g_only", **network), make_theory("sigma", **network)):
            run_id = record_prediction(db, theory, provenance=PROVENANCE, study_id=studies[0])
            widths = widths_of(theory, following)
            record_widths(db, prediction_run_id=run_id, reference_run_id=exact, widths=widths)
        compare(following, sample(activation, 16), simulated(sample(activation, 16), studies[0]), studies[0])


ANSWERS: dict[int, Answer] = {
    1: [
        ("first", 16, "paired", 2.0, 2.0),
        ("first", 64, "paired", 2.0, 2.0),
        ("second", 16, "paired", 2.0, 2.0),
        ("second", 16, "plain", None, 2.0),
    ],
    2: [
        ("relu", 16, "exact", "exact", 2.0, "beyond"),
        ("relu", 64, "sigma", "euler", 1.438, "undecided"),
        ("tanh", 16, "g_only", "euler", 2.0, "beyond"),
        ("tanh", 64, "g_only", "euler", 2.0, "beyond"),
    ],
    3: [
        ("relu", "sigma", "euler", 0.1893),
        ("relu", "g_only", "euler", 1.019),
        ("relu", "g_only", "exact", 1.021),
        ("relu", "g_only", None, 1.027),
        ("tanh", "sigma", "euler", 0.3423),
        ("tanh", "g_only", "euler", 1.994),
        ("tanh", "g_only", "exact", 2.015),
        ("tanh", "g_only", None, 2.035),
    ],
    4: [
        ("tanh", 16, "g_only", 1e-09, "K0", 0.01, "too_noisy", "undecided"),
        ("tanh", 16, "g_only", 1e-09, "K0", 0.05, "undecided", "beyond"),
        ("tanh", 16, "g_only", 1e-09, "V4", 0.01, "too_noisy", "bounded"),
        ("tanh", 16, "g_only", 1e-09, "V4", 0.05, "too_noisy", "beyond"),
        ("tanh", 16, "g_only", 1e-09, "V4", 0.1, "undecided", "beyond"),
        ("tanh", 16, "sigma", 1e-09, "K0", 0.01, "too_noisy", "undecided"),
        ("tanh", 16, "sigma", 1e-09, "K0", 0.05, "undecided", "beyond"),
        ("tanh", 16, "sigma", 1e-09, "V4", 0.05, "too_noisy", "beyond"),
        ("tanh", 16, "sigma", 1e-09, "V4", 0.1, "undecided", "beyond"),
    ],
    5: [
        ("relu", "K1", "euler", 1.019),
        ("relu", "K1", "exact", 1.021),
        ("relu", "V4", "euler", 0.4988),
        ("relu", "V4", "exact", 0.4522),
        ("tanh", "K1", "euler", 1.994),
        ("tanh", "K1", "exact", 2.015),
        ("tanh", "V4", "euler", 0.03),
        ("tanh", "V4", "exact", 0.0191),
    ],
    6: [
        ("relu", 16, False, 0.4521, 0.002515),
        ("relu", 16, True, 0.3328, 0.002515),
        ("relu", 64, False, 0.4521, 0.002515),
        ("relu", 64, True, 0.3328, 0.002515),
        ("tanh", 16, False, 0.02031, 0.004861),
        ("tanh", 16, True, 0.01136, 0.004861),
        ("tanh", 64, False, 0.01925, 0.004862),
        ("tanh", 64, True, 0.01029, 0.004862),
    ],
    7: [
        (16, 0.01, 0.125),
        (16, 0.05, 0.25),
        (16, 0.1, 0.375),
        (64, 0.01, 0.125),
        (64, 0.05, 0.25),
        (64, 0.1, 0.375),
    ],
    8: [
        ("relu", 16, "paired", 0, 128, 0.1062, 0.002515),
        ("relu", 64, "paired", 0, 128, 0.1062, 0.002515),
        ("tanh", 16, "paired", 0, 128, 0.006744, 0.004861),
        ("tanh", 16, "paired", 0, 192, 0.006744, 0.004861),
        ("tanh", 16, "paired", 1, 128, 0.009479, 0.004852),
        ("tanh", 16, "plain", 0, 128, 0.0119, 0.01942),
        ("tanh", 64, "paired", 0, 128, 0.005078, 0.004862),
    ],
    9: [
        ("first", "V4", 7),
        ("second", "K0", 3),
        ("second", "V4", 9),
    ],
    10: [
        (20, "tanh", "g_only", None, 0.01),
    ],
    11: [
        ("tanh", "g_only", "K1", 0.01, 0.04),
        ("tanh", "g_only", "K1", 0.05, 0.04),
        ("tanh", "g_only", "K1", 0.1, 0.04),
        ("tanh", "g_only", "V4", 0.01, 0.004),
    ],
    12: [
        (22, "simulation", "tanh", 16, 192, 90.0, 30.0),
        (8, "simulation", "tanh", 16, 128, 8.0, 2.0),
        (9, "simulation", "tanh", 64, 128, 8.0, 2.0),
    ],
    13: [
        ("first", 4, 32.0, 4.0),
        ("second", 4, 114.0, 3.167),
    ],
    14: [
        (8, "tanh", 16, "first", "second", 2),
    ],
    15: [
        ("second", "sin", "mean", "K0 leaves the range"),
    ],
    16: [
        (22, "tanh", 16, 192, "V4", 0.001, 0.002),
    ],
    17: [
        (22, 8, "tanh", 16, 192),
    ],
    18: [
        ("tanh", 16, "g_only", 1e-09, 2, 2.0, 2.0),
        ("tanh", 16, "g_only", 0.01, 2, 1.5, 1.688),
        ("tanh", 16, "sigma", 1e-09, 2, 2.0, 2.0),
    ],
    19: [
        ("relu", 16, "paired", 0, 128, "g_only", -431.9),
        ("relu", 16, "paired", 0, 128, "sigma", -74.12),
        ("relu", 64, "paired", 0, 128, "g_only", -434.1),
        ("relu", 64, "paired", 0, 128, "sigma", -76.26),
        ("tanh", 16, "paired", 0, 128, "g_only", -65.11),
        ("tanh", 16, "paired", 0, 128, "sigma", -9.241),
        ("tanh", 16, "paired", 0, 192, "g_only", -65.11),
        ("tanh", 16, "paired", 0, 192, "sigma", -9.241),
        ("tanh", 16, "paired", 1, 128, "g_only", -65.95),
        ("tanh", 16, "paired", 1, 128, "sigma", -10.08),
        ("tanh", 16, "plain", 0, 128, "g_only", -15.54),
        ("tanh", 16, "plain", 0, 128, "sigma", -1.568),
        ("tanh", 64, "paired", 0, 128, "g_only", -67.25),
        ("tanh", 64, "paired", 0, 128, "sigma", -11.38),
    ],
    20: [
        ("first", "0" * 40, False, "bench", "cpu", 20),
        ("second", "0" * 40, False, "bench", "cpu", 7),
    ],
    21: [
        ("exact", "exact", 5.7, 5.361, 6.045, "from"),
        ("g_only", "euler", 14.91, 14.02, 15.81, "from"),
        ("sigma", "euler", 6.407, 6.026, 6.795, "from"),
    ],
    22: [
        ("relu", 0.0, 152.0),
        ("relu", 0.5, 228.0),
        ("relu", 1.0, 304.0),
        ("relu", 1.5, 380.0),
        ("relu", 2.0, 456.0),
        ("tanh", 0.0, 1.9),
        ("tanh", 0.5, 2.85),
        ("tanh", 1.0, 3.8),
        ("tanh", 1.5, 4.75),
        ("tanh", 2.0, 5.7),
    ],
    23: [
        ("relu", "exact", 0.01, 2.0, 2376.0, None, 16.0),
        ("relu", "exact", 0.05, 2.0, 456.0, None, 16.0),
        ("relu", "exact", 0.1, 2.0, 216.0, None, 16.0),
    ],
    24: [
        ("relu", 16, 128, 1.861, 103.5, 0.1044),
        ("relu", 64, 128, 5.062, 37.92, 0.05929),
        ("tanh", 16, 128, 1.991, 9.497, 0.05044),
        ("tanh", 16, 192, 1.991, 9.497, 0.05044),
        ("tanh", 64, 128, 2.933, 6.420, 0.03679),
    ],
    25: [("Network", 32, 60, 2, "blocks.1", 1.6316, None)],
}
"""What follows from the runs of _record, whose simulations are the exact leading order with noise."""


def test_there_is_an_answer_to_each():
    assert sorted(QUESTIONS) == sorted(ANSWERS) == list(range(1, 26))


@pytest.mark.parametrize("number", QUESTIONS)
def test_a_question_is_answered_by_one_select_without_a_join(asked: Database, number: int):
    words = re.findall(r"\w+", QUESTIONS[number].lower())
    assert words.count("select") == 1
    assert "join" not in words
    assert re.search(r"FROM v_\w+\n", QUESTIONS[number]), "one view"
    frame = queries.select(asked, QUESTIONS[number])
    found = [tuple(None if pd.isna(value) else value for value in row) for row in frame.itertuples(index=False)]
    assert found == [
        tuple(pytest.approx(value, rel=1e-3) if isinstance(value, float) else value for value in row)
        for row in ANSWERS[number]
    ]
