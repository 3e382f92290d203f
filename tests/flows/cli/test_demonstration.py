"""`eft demo`: recorded results open in the explorer without being computed, and are what their study describes."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.reading import queries
from db.session import Database
from db.settings import bundled_studies, data_home
from flows.cli import main
from flows.study.expansion import load_study


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of databases on which the explorer was opened, by two commands one after another."""
    served: list[str] = []
    monkeypatch.setattr("ui.launch.serve", lambda url, port: served.append(url))
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(["demo", str(tmp_path / "demo")])
        assert ended.value.code == 0
    return served


def test_the_explorer_is_opened_on_recorded_results(opened: list[str], tmp_path: Path) -> None:
    assert opened == [f"sqlite:///{tmp_path / 'demo' / 'results.db'}"] * 2
    assert data_home() == tmp_path / "demo"  # what the explorer starts lies beside it
    database = Database(opened[0], read_only=True)
    runs = queries.runs(database)
    assert set(runs["status"]) == {"succeeded"}
    assert not runs["superseded"].any(), "export studies/demo.zip anew, as studies/demo.toml says"
    (study,) = queries.select(database, "SELECT digest FROM studies")["digest"]
    assert study == load_study(bundled_studies()["demo"]).digest
    windows = queries.select(database, "SELECT activation, reference_kind, count(*) AS n FROM v_windows GROUP BY 1, 2")
    assert set(windows["activation"]) == {"tanh", "erf", "sin", "relu", "gelu", "silu"}
    assert set(windows["reference_kind"]) == {"simulation", "theory", "measurement"}
    assert queries.select(database, "SELECT count(*) FROM v_width_windows").iloc[0, 0] > 0
    database.dispose()
