"""Simulations to a target precision, and with more samples than before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from db.reading import queries
from db.session import Database
from db.settings import default_url
from flows.study.expansion import load_study
from flows.work import computations
from tests.flows.conftest import TINY
from tests.flows.studies import TARGET, run

pytestmark = pytest.mark.usefixtures("without_prefect")


def test_more_samples_keep_the_full_shards(calls: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("eftcore.ensemble.shards.SHARD_WORK", 1)
    tiny.write_text(TINY.replace("samples = 4096", "samples = 160").replace("[8, 16]", "[8]"))
    run(tiny)
    assert calls.count("simulate") == 3
    calls.clear()
    tiny.write_text(tiny.read_text().replace("samples = 160", "samples = 256"))
    run(tiny)
    assert calls.count("simulate") == 2
    db = Database(default_url(), read_only=True)
    assert sorted(queries.runs(db, kind="simulation")["samples"]) == [160, 256]
    db.dispose()


def simulations() -> list[dict[str, Any]]:
    """samples and details of the recorded simulations, by samples."""
    db = Database(default_url(), read_only=True)
    frame = queries.select(db, "SELECT samples, status, details FROM runs WHERE kind = 'simulation' ORDER BY samples")
    db.dispose()
    return [row | {"details": json.loads(row["details"] or "null")} for row in frame.to_dict("records")]


@pytest.mark.usefixtures("small_shards")
def test_shards_are_added_until_the_target_is_met(calls: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]):
    from flows import launch
    from flows.run import plan_study

    tiny.write_text(TARGET)
    before = plan_study(load_study(tiny))
    assert [task.at_most for task in before].count(True) == 1
    assert "at most 30 more shards for V4 to 10 % (at most 2000 networks), 1872 networks" in str(before)
    summary = run(tiny)
    assert (summary.failures, summary.skipped) == ([], 0)
    (attained,) = summary.precision.values()
    assert attained.met
    assert 128 < attained.samples < 2000
    assert calls.count("simulate") == -(-attained.samples // 64)
    (row,) = simulations()
    assert row["samples"] == attained.samples
    assert row["details"]["stopped"] == "target met"
    assert row["details"]["precision_target"]["relative"] == 0.1
    assert row["details"]["precision_reached"]["V4"]["relative"] == attained.error
    assert row["details"]["random_streams"][0].startswith("xoshiro128++")

    calls.clear()
    again = run(tiny)
    assert calls == []
    assert again.computed == 0
    assert again.precision == summary.precision
    assert not [task for task in plan_study(load_study(tiny)) if task.at_most or not task.cached]

    launch.report(summary, as_json=True)
    (told,) = json.loads(capsys.readouterr().out)["precision"]
    assert (told["quantity"], told["target"], told["reached"]) == ("V4", 0.1, attained.error)
    assert (told["samples"], told["stopped"]) == (attained.samples, "target met")
    launch.report(summary, as_json=False)
    assert "target met" in capsys.readouterr().out


@pytest.mark.usefixtures("small_shards")
def test_a_tighter_target_reuses_shards_and_a_cap_is_told(
    calls: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]
):
    from flows import launch

    tiny.write_text(TARGET)
    first = next(iter(run(tiny).precision.values()))
    calls.clear()
    tiny.write_text(TARGET.replace("0.1\nmax", "0.01\nmax"))
    summary = run(tiny)
    (capped,) = summary.precision.values()
    assert (capped.samples, capped.stopped) == (2000, "cap reached")
    assert calls.count("simulate") == 32 - first.samples // 64
    assert [row["details"]["stopped"] for row in simulations()] == ["target met", "cap reached"]
    launch.report(summary, as_json=False)
    assert "raise max_samples" in capsys.readouterr().out


@pytest.mark.usefixtures("small_shards")
def test_precision_is_told_for_every_point_of_a_grid(calls: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]):
    from flows import launch

    tiny.write_text(TARGET.replace("epsilon = 0.5", "epsilon = [0.5, 0.25]"))
    summary = run(tiny)
    launch.report(summary, as_json=True)
    told = json.loads(capsys.readouterr().out)["precision"]
    assert [row["epsilon"] for row in told] == [0.5, 0.25]
    assert [row["samples"] for row in told] == [row["samples"] for row in told if row["stopped"] == "target met"]


@pytest.mark.usefixtures("small_shards")
def test_a_failed_round_is_taken_up_again(calls: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch):
    real = computations.simulate

    def fail_at_2(store, spec, **options):
        if options["shard"] == 2:
            raise RuntimeError("the device is on fire")
        return real(store, spec, **options)

    tiny.write_text(TARGET)
    monkeypatch.setattr(computations, "simulate", fail_at_2)
    summary = run(tiny)
    assert [failure.cause for failure in summary.failures] == ["RuntimeError: the device is on fire"]
    assert [(row["samples"], row["status"]) for row in simulations()] == [(2000, "failed")]
    monkeypatch.setattr(computations, "simulate", real)
    done = calls.count("simulate")
    calls.clear()
    repaired = run(tiny)
    assert repaired.failures == []
    (attained,) = repaired.precision.values()
    assert attained.met
    assert calls.count("simulate") == attained.samples // 64 - done
    assert [(row["samples"], row["status"]) for row in simulations()] == [(attained.samples, "succeeded")]
