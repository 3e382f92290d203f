"""A newer algorithm: what an older one finished counts as done until somebody asks for new results."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.reading import queries
from db.session import Database
from db.settings import data_home, default_url
from db.upkeep import migrate
from eftcore.errors import InputError
from eftcore.specs import ALGORITHM_VERSION
from flows import launch
from flows.study.expansion import load_study
from flows.study.requests import ConfigurationRequest, StudyRequest, TopUpRequest
from flows.work import computations
from flows.work.store import default_store
from tests.flows.conftest import TINY
from tests.flows.studies import TARGET, TASKS, THEORY, counts

pytestmark = pytest.mark.usefixtures("without_prefect")

RESULTS = 2 + 2
"""Of the tiny study: predictions and simulations."""


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch):
    """(algorithms): from now on the program has a newer version of each."""

    def bump(*algorithms: str) -> None:
        for name in algorithms or tuple(ALGORITHM_VERSION):
            monkeypatch.setitem(ALGORITHM_VERSION, name, ALGORITHM_VERSION[name] + 1)

    return bump


def run(path: Path, *, renew: bool = False):
    from flows.run import run_study

    return run_study(StudyRequest(study=str(path), renew=renew))


def rows(sql: str) -> list[tuple[object, ...]]:
    db = Database(default_url(), read_only=True)
    frame = queries.select(db, sql)
    db.dispose()
    return list(frame.itertuples(index=False, name=None))


VERSIONS = "SELECT algorithm_version, superseded, COUNT(*) FROM v_runs GROUP BY 1, 2 ORDER BY 1"
NOW = max(ALGORITHM_VERSION.values())


@pytest.fixture(autouse=True)
def one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """All algorithms are of the same version, so that rows of a table can be told by it."""
    for name in ALGORITHM_VERSION:
        monkeypatch.setitem(ALGORITHM_VERSION, name, NOW)


def test_older_results_count_as_done_and_are_shown_as_superseded(calls: list[str], tiny: Path, newer, capsys):
    assert run(tiny).superseded == 0
    before = counts()
    newer()
    calls.clear()
    summary = run(tiny)
    assert calls == []
    assert (summary.cached, summary.computed, summary.superseded) == (TASKS, 0, RESULTS)
    assert "4 results are superseded" in str(summary)
    assert counts() == before
    assert rows(VERSIONS) == [(NOW, True, RESULTS)]
    assert rows("SELECT COUNT(*) FROM studies") == [(1,)]

    launch.report(summary, as_json=False)
    said = capsys.readouterr().out
    assert "superseded yes" in said
    assert "to compute it anew: eft " in said
    assert said.split("to compute it anew: ")[1].splitlines()[0].endswith("--renew")
    launch.dry_run(StudyRequest(study=str(tiny)), as_json=False)
    said = capsys.readouterr().out
    assert f"{TASKS} tasks cached, 0 to compute" in said
    assert "4 results are superseded" in said
    assert f"version {NOW} of the algorithm" in said


def test_renewal_computes_anew_and_the_old_stays(calls: list[str], tiny: Path, newer, capsys):
    run(tiny)
    newer()
    launch.dry_run(StudyRequest(study=str(tiny), renew=True), as_json=False)
    said = capsys.readouterr().out
    assert f"0 tasks cached, {TASKS} to compute" in said
    assert "superseded" not in said
    before = counts()
    calls.clear()
    summary = run(tiny, renew=True)
    assert (summary.cached, summary.computed, summary.superseded) == (0, TASKS, 0)
    assert (calls.count("predict"), calls.count("simulate")) == (2, 2)
    after = counts()
    assert all(after[view] == 2 * before[view] for view in ("v_runs", "v_windows", "v_errors"))
    assert rows(VERSIONS) == [(NOW, True, RESULTS), (NOW + 1, False, RESULTS)]
    launch.report(summary, as_json=False)
    assert "superseded" in capsys.readouterr().out.splitlines()[1], "old and new are told apart"

    calls.clear()
    again = run(tiny)
    assert calls == []
    assert (again.cached, again.superseded) == (TASKS, 0), "what is renewed is taken"


def test_only_what_is_new_is_computed_beside_older_results(calls: list[str], tiny: Path, newer):
    run(tiny)
    newer("prediction")
    tiny.write_text(TINY.replace('"mean", "g_only"', '"mean", "g_only", "source_only"'))
    calls.clear()
    assert run(tiny).superseded == 2
    assert sorted(calls) == ["compare", "compare", "predict"]
    assert rows(f"{VERSIONS.replace('FROM v_runs', 'FROM v_runs WHERE closure IS NOT NULL')}") == [
        (NOW, True, 2),
        (NOW + 1, False, 1),
    ]
    assert rows("SELECT DISTINCT closure FROM v_windows ORDER BY 1") == [("g_only",), ("mean",), ("source_only",)]


def test_older_theories_stay_good_as_references(calls: list[str], tiny: Path, newer):
    tiny.write_text(THEORY.replace('"mean", "g_only"', '"mean"'))
    run(tiny)
    before = rows("SELECT COUNT(*) FROM v_theory_windows")
    newer("prediction")
    calls.clear()
    summary = run(tiny)
    assert (calls, summary.computed, summary.superseded) == ([], 0, 2)
    assert rows("SELECT COUNT(*) FROM v_theory_windows") == before
    run(tiny, renew=True)
    assert sorted(calls) == ["compare", "compare", "predict", "predict"], "the simulation is of its present version"


@pytest.mark.usefixtures("small_shards")
def test_shards_of_different_versions_never_add_up(calls: list[str], tiny: Path, newer):
    from flows.run import top_up

    tiny.write_text(TINY.replace("samples = 4096", "samples = 128").replace("[8, 16]", "[8]"))
    run(tiny)
    newer("simulation")
    calls.clear()
    summary = top_up(TopUpRequest(study=str(tiny), samples=128))
    assert (calls, summary.superseded) == ([], 1)
    summary = top_up(TopUpRequest(study=str(tiny), samples=192))
    assert (calls.count("simulate"), summary.superseded) == (3, 0)
    columns = "samples, algorithm_version, superseded, extends_run_id"
    found = rows(f"SELECT {columns} FROM v_runs WHERE kind = 'simulation' ORDER BY samples")
    assert [row[:3] for row in found] == [(128, NOW, True), (192, NOW + 1, False)]
    assert found[1][3] is None or found[1][3] != found[1][3]

    (new,) = load_study(tiny).simulations.values()
    old = new.spec.of_version(NOW)
    first, second = (
        computations.load_sample(default_store(), computations.shard_digest(spec.digest, shard, 64))[0]
        for spec, shard in ((old, 0), (new.spec, 1))
    )
    with pytest.raises(InputError, match="different ensembles"):
        first + second


@pytest.mark.usefixtures("small_shards")
def test_an_older_simulation_to_a_precision_counts_as_done(calls: list[str], tiny: Path, newer):
    tiny.write_text(TARGET)
    first = run(tiny)
    newer()
    calls.clear()
    again = run(tiny)
    assert calls == []
    assert again.computed == 0
    assert [now.samples for now in again.precision.values()] == [now.samples for now in first.precision.values()]


def test_a_lost_database_is_filled_with_what_the_results_are(calls: list[str], tiny: Path, newer):
    run(tiny)
    newer()
    for path in data_home().glob("results.db*"):
        path.unlink()
    migrate.upgrade(default_url())
    calls.clear()
    run(tiny)
    assert calls == []
    assert rows(VERSIONS) == [(NOW, True, RESULTS)]


def test_a_damaged_older_result_is_computed_by_the_newer_algorithm(calls: list[str], tiny: Path, newer):
    run(tiny)
    lost = default_store().path(next(iter(load_study(tiny).predictions)))
    newer()
    lost.write_bytes(lost.read_bytes()[:-100])
    calls.clear()
    summary = run(tiny)
    assert calls == ["predict", "compare", "compare"]
    assert summary.superseded == RESULTS - 1


def test_one_configuration_can_be_renewed_too(calls: list[str], newer):
    from flows.run import run_configuration

    given = {"activation": "erf", "epsilon": 0.5, "total_time": 1.0, "width": 8, "samples": 64, "closures": ["mean"]}
    run_configuration(ConfigurationRequest(**given))
    newer()
    calls.clear()
    assert run_configuration(ConfigurationRequest(**given)).superseded == 2
    assert calls == []
    assert run_configuration(ConfigurationRequest(**given, renew=True)).superseded == 0
    assert calls == ["predict", "simulate", "merge", "compare"]
    assert rows("SELECT DISTINCT name FROM studies ORDER BY 1") == rows("SELECT name FROM studies LIMIT 1")
