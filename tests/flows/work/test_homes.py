"""Folders of results as people have them: odd names, no such user, shared by two users, not shared at all."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from db.settings import default_url
from db.upkeep import migrate
from eftcore.errors import EnvironmentProblem
from flows.orchestration import runners
from flows.study.requests import Resources
from tests.conftest import FaultLog
from tests.flows import warm
from tests.flows.conftest import COMMAND, FREE_PORT, TINY, Eft

ODD = ("results?a", "results?b", "100% #1", "50%20&mode=ro", "a@b:c ü")


def test_a_folder_may_have_any_name(eft: Eft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ODD:
        home = tmp_path / name
        monkeypatch.setenv("EFT_HOME", str(home))
        monkeypatch.setenv("EFT_DATABASE_URL", "")
        assert eft("db", "upgrade").code == 0
        assert (home / "results.db").is_file(), name
    assert {path.name for path in tmp_path.iterdir()} == set(ODD)


def test_the_address_shown_is_one_that_can_be_given(eft: Eft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EFT_HOME", str(tmp_path / "a?b#c%20d"))
    assert eft("db", "upgrade").code == 0
    shown = eft("db", "info").out.splitlines()[0].removeprefix("url: ")
    assert eft("db", "check", "--db", shown).out == "the database is sound\n"


def test_a_user_that_there_is_not(eft: Eft, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EFT_HOME", "~nosuch/results")
    for command in (("db", "upgrade"), ("run", "quick"), ("server", "status")):
        refused = eft(*command)
        assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
        assert "EFT_HOME = '~nosuch/results'" in refused.err


GROUP = 54321
ODD_HOME = "a?b#c%20d"
AsUser = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shared() -> Iterator[tuple[Path, AsUser]]:
    """A folder for a group, as `chmod 2775` makes it, with a study file; and the eft command as one of its users.

    Python may lie where root alone can enter. So the first user has the right to read everything, and the second one
    is root without any right over others.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("two users take root and setpriv")
    folder = Path(tempfile.mkdtemp(prefix="eft-shared-"))
    theory = TINY.replace("widths = [8, 16]\nsamples = 4096", "reference = 'sigma'")  # compiles nothing
    (folder / "tiny.toml").write_text(theory)
    os.chown(folder, 0, GROUP)
    folder.chmod(0o2775)
    in_group = ["setpriv", f"--regid={GROUP}", "--clear-groups"]
    readers = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
    users = {1: [*in_group, f"--reuid={GROUP}", *readers], 2: [*in_group, "--inh-caps=-all", "--bounding-set=-all"]}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EFT_", "PREFECT_"))}

    def as_user(number: int, *arguments: str, umask: int = 0o002) -> subprocess.CompletedProcess[str]:
        own = str(folder / f"home-{number}")
        return subprocess.run(
            [*users[number], *COMMAND, *arguments],
            env={**kept, "EFT_HOME": str(folder / ODD_HOME), "HOME": own, "XDG_CACHE_HOME": own},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            umask=umask,
        )

    try:
        yield folder, as_user
    finally:
        shutil.rmtree(folder)


def test_two_users_share_a_folder_of_any_name(shared: tuple[Path, AsUser], fault_log: FaultLog):
    """What one computed the other finds, and may add to; Prefect's own files lie there too, each user's apart."""
    folder, as_user = shared
    assert as_user(1, "db", "upgrade").returncode == 0
    first = as_user(1, "run", "tiny.toml")
    assert (first.returncode, first.stderr.count("Traceback")) == (0, 0), first.stderr
    assert {path.name for path in folder.iterdir()} <= {ODD_HOME, "tiny.toml", "home-1"}
    home = folder / ODD_HOME
    assert (home / "prefect" / "prefect.db").is_file()

    files = [home / "results.db", *home.glob("arrays/*/*")]
    assert len(files) == 1 + 3 + 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o664}
    second = as_user(2, "run", "tiny.toml", "--dry-run")
    assert second.returncode == 0, second.stderr
    assert ", 0 to compute" in second.stdout
    assert as_user(2, "gc").returncode == 0

    closed = min(home.glob("arrays/*/*.npz"))
    closed.chmod(0o600)
    refused = as_user(2, "run", "tiny.toml", "--dry-run")
    moment = "the second one may not read a result of the first one's"
    fault_log.note("two users", "sqlite", moment, consistent=refused.stdout == "", completes=second.returncode == 0)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert f"{closed}: cannot be read (Permission denied)" in refused.stderr


def test_a_store_that_goes_away_ends_the_run_which_goes_on_when_it_is_back(
    environment: dict[str, str], warm_under_way: subprocess.Popen[str], long: Path, fault_log: FaultLog
):
    store = Path(environment["EFT_HOME"]) / "arrays"
    while len(list(store.glob("*/*.npz"))) < 3:
        time.sleep(0.1)
    away = store.rename(store.with_name("away"))
    store.touch()
    _, said = warm_under_way.communicate(timeout=60)
    store.unlink()
    finished = {path: path.stat().st_mtime_ns for path in away.rename(store).glob("*/*.npz")}
    long.write_text(TINY)
    last = warm.run(environment, "run", str(long))
    kept = {path: path.stat().st_mtime_ns for path in finished} == finished
    told = warm_under_way.returncode == 1 and f"eft: {store}" in said
    completes = last.returncode == 0 and kept
    fault_log.note("store unreachable", "sqlite", "after three results", consistent=told and kept, completes=completes)
    assert told, said
    assert "Traceback" not in said
    assert completes, last.stderr


def test_files_are_for_whom_the_umask_says(shared: tuple[Path, AsUser]):
    folder, as_user = shared
    assert as_user(1, "db", "upgrade", umask=0o077).returncode == 0
    assert as_user(1, "db", "backup", str(folder / "copy.db"), umask=0o002).returncode == 0
    modes = [stat.S_IMODE((folder / name).stat().st_mode) for name in (f"{ODD_HOME}/results.db", "copy.db")]
    assert modes == [0o600, 0o664]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """Address of a Dask scheduler whose worker has another disk where we have our folder of results, as on a machine
    of its own."""
    from distributed import Client, LocalCluster

    home = tmp_path / "home"
    home.mkdir()
    apart = ["unshare", "--mount", "--map-root-user", "sh", "-euc"]
    if subprocess.run([*apart, f"mount -t tmpfs none '{home}'"], capture_output=True, check=False).returncode:
        pytest.skip("no mounts of its own for a process here")
    with LocalCluster(n_workers=0, scheduler_kwargs=FREE_PORT, silence_logs="CRITICAL") as made:
        work = f"mount -t tmpfs none '{home}'; exec '{sys.executable}' -m dask worker {made.scheduler_address}"
        with subprocess.Popen(
            [*apart, f"{work} --no-nanny --no-dashboard --death-timeout 60"],
            env={**os.environ, "EFT_HOME": str(home)},
            stderr=subprocess.DEVNULL,
        ) as process:
            with Client(made.scheduler_address, set_as_default=False) as client:
                client.wait_for_workers(1, timeout=60)
            yield made.scheduler_address
            process.terminate()


def _tasks_at_a_time(scheduler: str) -> int:
    with runners.dispatching(Resources(runner="dask", dask_address=scheduler)) as dispatcher:
        return dispatcher.workers


def test_a_folder_that_is_not_shared_is_told_though_its_name_is_the_same(elsewhere: str, home: Path):
    migrate.upgrade(default_url())
    with pytest.raises(
        EnvironmentProblem, match=rf"keeps results in {home}/arrays, which is not {home}/arrays of this"
    ):
        _tasks_at_a_time(elsewhere)
    assert list((home / "arrays").iterdir()) == []


def test_a_shared_folder_may_have_two_names(home: Path, tmp_path: Path):
    """Mounted at another place on the workers' machine."""
    from distributed import LocalCluster

    (tmp_path / "other-name").symlink_to(home)
    migrate.upgrade(default_url())
    made_with = {"n_workers": 1, "threads_per_worker": 1, "scheduler_kwargs": FREE_PORT, "silence_logs": "CRITICAL"}
    with LocalCluster(**made_with, env={"EFT_HOME": str(tmp_path / "other-name")}) as made:
        assert _tasks_at_a_time(made.scheduler_address) == 1
    assert list((home / "arrays").iterdir()) == []
