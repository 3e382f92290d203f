"""How the server process is started."""

from __future__ import annotations

import tomllib

import pytest

from ui import launch


def test_the_server_listens_to_this_machine_only() -> None:
    assert "--server.address=127.0.0.1" in launch.command()
    assert "--server.port=8600" in launch.command(8600)
    assert not [argument for argument in launch.command() if "port" in argument]


def test_the_address_of_the_database_stays_out_of_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://user:secret@host/name"
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda *given: started.append(given))
    launch.serve(url, 8600)
    ((program, arguments, environment),) = started
    assert program == arguments[0]
    assert not [argument for argument in arguments if "secret" in argument]
    assert environment["EFT_DATABASE_URL"] == url


def test_no_folder_makes_streamlit_run_pages_without_the_app() -> None:
    assert not (launch.APP.parent / "pages").exists()


def test_settings_lie_beside_the_app_and_send_nothing() -> None:
    settings = tomllib.loads((launch.APP.parent / ".streamlit" / "config.toml").read_text())
    assert settings["browser"]["gatherUsageStats"] is False
    assert settings["server"] == {"headless": True, "fileWatcherType": "none"}
    assert settings["client"]["toolbarMode"] == "minimal"
