"""What a study finds stored, what it makes again, and what a dry run foretells of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from db.reading import queries
from db.session import Database
from db.settings import data_home, default_url
from db.upkeep import migrate
from flows.study.expansion import load_study
from flows.study.requests import StudyRequest
from flows.work.store import default_store
from tests.flows.conftest import TINY
from tests.flows.studies import TASKS, counts, run

pytestmark = pytest.mark.usefixtures("without_prefect")


def test_a_study_that_was_recorded_before_there_were_quantiles_gets_them_without_computing_anything(
    calls: list[str], tiny: Path
):
    """The way back to the revision before and up again leaves a database as an older version of the program did."""
    from flows.run import plan_study

    run(tiny)
    rows = counts()
    migrate.downgrade(default_url(), "0011_measured_next_order")
    migrate.upgrade(default_url())
    assert counts() == {**rows, "v_quantiles": 0}
    assert [task.label.split(":")[0] for task in plan_study(load_study(tiny)) if not task.cached] == ["record"] * 2
    calls.clear()
    assert (run(tiny).computed, calls) == (2, [])
    assert counts() == rows
    assert run(tiny).cached == TASKS


def test_a_lost_database_is_filled_again_from_the_cache(calls: list[str], tiny: Path):
    run(tiny)
    rows = counts()
    for path in data_home().glob("results.db*"):
        path.unlink()
    migrate.upgrade(default_url())
    calls.clear()
    again = run(tiny)
    assert (again.cached, again.computed) == (TASKS - 2, 2)
    assert calls == []
    assert counts() == rows


def test_a_damaged_result_is_computed_again(calls: list[str], tiny: Path):
    run(tiny)
    rows = counts()
    damaged = default_store().path(next(iter(load_study(tiny).predictions)))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    calls.clear()
    again = run(tiny)
    assert calls == ["predict"]
    assert (again.cached, again.computed) == (TASKS - 1, 1)
    assert counts() == rows


def test_a_dry_run_foretells_what_is_computed(calls: list[str], tiny: Path):
    from flows.run import plan_study

    before = plan_study(load_study(tiny))
    assert calls == []
    assert [task.cached for task in before] == [False] * TASKS
    run(tiny)
    assert all(task.cached for task in plan_study(load_study(tiny)))
    lost = next(iter(load_study(tiny).predictions))
    default_store().path(lost).unlink()
    assert [task.label for task in plan_study(load_study(tiny)) if not task.cached] == [before[0].label]


def test_a_dry_run_says_how_long_judging_by_earlier_runs(
    calls: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]
):
    from flows import launch

    launch.dry_run(StudyRequest(study=str(tiny)), as_json=False)
    assert f"0 tasks cached, {TASKS} to compute; no simulation is recorded yet" in capsys.readouterr().out
    run(tiny)
    launch.dry_run(StudyRequest(study=str(tiny)), as_json=False)
    assert f"{TASKS} tasks cached, 0 to compute; nothing to compute." in capsys.readouterr().out
    tiny.write_text(TINY.replace("seed = 7", "seed = 8"))
    capsys.readouterr()
    launch.dry_run(StudyRequest(study=str(tiny)), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [task["task"].split()[0] for task in told["tasks"] if task["cached"]] == ["predict", "predict"]
    db = Database(default_url(), read_only=True)
    spent = queries.runs(db, kind="simulation")
    db.dispose()
    speeds = spent["worker_seconds"] / (spent["samples"] * spent["depth"] * spent["width"] * spent["n_inputs"])
    work_left = 4096 * 4 * (8 + 16) * 2
    assert told["expected_seconds"] == pytest.approx(speeds.median() * work_left)
