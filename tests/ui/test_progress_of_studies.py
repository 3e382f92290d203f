"""The page Studies without a browser: how far a study is, what failed, and how to go on."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from db.schema.rows import study_claim
from db.session import Database
from db.writing import claims
from db.writing.repository import record_study
from tests.ui.conftest import ONE_RUN
from tests.ui.pages import OpenPage, text_of


def test_studies_page_names_the_cause_and_the_command(open_page: OpenPage, failed: Database) -> None:
    app = open_page(failed.url, "studies")
    assert "eft run wild.toml" in text_of(app)
    (save,) = app.get("download_button")
    assert save.proto.label == "Save wild.toml"
    progress, configurations, failures = (table.value for table in app.dataframe)
    shown = ["study", "state", "failed", "asked for", "recorded"]
    assert progress[shown].iloc[0].tolist() == ["wild", "failed runs", 1, 2, 0.0]
    assert configurations[["recorded", "asked", "failed"]].values.tolist() == [[0, 1, 1]]
    assert failures["cause"].tolist() == ["K0 <b>leaves</b> the range"]


def test_a_study_runs_while_a_process_claims_it(open_page: OpenPage, failed: Database) -> None:
    """Whatever became of its runs, and however fresh they are."""

    def state() -> list[str]:
        app = open_page(failed.url, "studies")
        assert not app.exception
        return app.dataframe[0].value["state"].tolist()

    assert state() == ["failed runs"]
    holder = claims.new_holder()
    mine = study_claim("0" * 64, holder)
    assert claims.claim(failed, mine, task="study wild", holder=holder)
    assert state() == ["running"]
    app = open_page(failed.url, "studies")
    assert [button.label for button in app.button if button.key == "stop-study"] == ["Stop"]
    claims.release(failed, holder)
    assert claims.claim(failed, study_claim("1" * 64, holder), task="study other", holder=holder)
    assert state() == ["failed runs"]
    assert claims.claim(failed, mine, task="study wild", holder=holder, lease_seconds=-1.0)
    assert state() == ["failed runs"], "a claim without a heartbeat is void"


def test_studies_of_one_name_are_told_apart(open_page: OpenPage, fresh: Database) -> None:
    for digest, widths in (("3" * 64, [8]), ("4" * 64, [16])):
        record_study(fresh, name="quick", digest=digest, spec={**ONE_RUN, "widths": widths}, runs_asked=2)
    record_study(fresh, name="paper", digest="5" * 64, spec=ONE_RUN, runs_asked=2)
    app = open_page(fresh.url, "studies")
    assert not app.exception
    assert [code.value for code in app.code] == ["eft run paper.toml", "eft run paper"]
    assert app.dataframe[0].value["study"].tolist() == ["paper", "quick-2", "quick-1"]
    assert [code.value for code in open_page(fresh.url, "studies", open="quick-1").code] == ["eft run quick-1.toml"]


def test_no_share_is_shown_of_a_study_that_an_older_version_recorded(
    open_page: OpenPage, half_finished: Database
) -> None:
    with half_finished.session() as session:
        session.execute(sa.text("UPDATE studies SET runs_asked = NULL"))
    app = open_page(half_finished.url, "studies")
    assert not app.exception
    shown = app.dataframe[0].value
    assert shown["predictions"].tolist() == [1]
    assert shown[["asked for", "recorded"]].isna().all(axis=None)
    assert "eft run half.toml" in text_of(app)


def test_studies_page_of_an_empty_database(open_page: OpenPage, sqlite_template: Path) -> None:
    assert "eft run quick" in text_of(open_page(f"sqlite:///{sqlite_template}", "studies"))
