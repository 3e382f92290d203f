"""Studies that a page starts: `eft run` and `eft top-up` in processes of their own, which outlive the page.

Such a process does all that the command does in a shell, with the Prefect server that it starts or finds. It goes on
when the explorer ends, and what it computes is kept however it ends. The explorer itself only reads the database.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from db.errors import DatabaseMissing
from db.settings import data_home, default_url, require_changes
from db.upkeep import migrate
from db.writing import claims
from eftcore.errors import EnvironmentProblem, InputError

COMMAND = (
    *(sys.executable, "-P", "-c"),
    "import runpy, signal, sys; signal.pthread_sigmask(signal.SIG_SETMASK, ()); "
    f"sys.path.append({str(Path(__file__).parents[1])!r}); sys.argv[0] = 'eft'; "
    "runpy.run_module('flows.cli', run_name='__main__')",
)
"""Command that does what ``eft`` does. It receives the signals that the explorer's server keeps from its threads."""

_SAID_BYTES = 4000


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command that a page started.

    Attributes:
        title: what the page calls it, such as "quick".
        path: file or bundled name of its study.
        arguments: those of ``eft``.
        log: the file that receives what it says.
        started: when it was started.
    """

    title: str
    path: str
    arguments: tuple[str, ...]
    log: Path
    started: datetime
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.process.poll()

    @property
    def said(self) -> list[str]:
        """The last lines that it said, the newest last."""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _SAID_BYTES))
            return file.read().decode(errors="replace").strip().splitlines()

    @property
    def stopped(self) -> bool:
        """Whether it was ended by the signal that asks it to stop."""
        return self.code in (-signal.SIGTERM, 128 + signal.SIGTERM)

    def stop(self) -> None:
        """Ask it to end, as Ctrl-C does: it ends within seconds and keeps what is finished. Does nothing afterwards."""
        self.process.send_signal(signal.SIGTERM)


newest_jobs: dict[str, Job] = {}
"""Of each study file that pages started, by its path."""
_starting = threading.Lock()


def jobs() -> list[Job]:
    """The newest job of each study that pages of this server started, the newest first."""
    return sorted(newest_jobs.values(), key=lambda job: job.started, reverse=True)


def written(name: str, text: str) -> Path:
    """A study file in the folder of results, as a page writes it. Raises EnvironmentProblem where it cannot be."""
    path = data_home() / "studies" / f"{name}.toml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise EnvironmentProblem(
            f"cannot be written ({problem.strerror})", place=path, remedy="download the file instead"
        ) from None
    return path


def run(study: Path | str, *, title: str) -> Job:
    """Start ``eft run`` of a study file, or of a bundled study by its name. Raises as start()."""
    return _start(str(study), title, ("run", str(study)))


def top_up(study: Path | str, samples: int, *, title: str) -> Job:
    """Start ``eft top-up``, so that each simulation has this number of networks. Raises as start()."""
    return _start(str(study), title, ("top-up", str(study), "--samples", str(samples)))


def stop(holder: str) -> None:
    """Ask the process of a claim that executes a study to end, as Job.stop() does, whoever started it.

    Raises EnvironmentProblem where it is none of this machine, belongs to another user, or this explorer only reads.
    """
    require_changes()
    process = claims.process_of(holder)
    if process is None:
        raise EnvironmentProblem(
            "runs on another machine", place="study", value=holder.partition(":")[0], remedy="stop it there"
        )
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise EnvironmentProblem("was started by another user", place="process", value=process) from None


def _start(path: str, title: str, arguments: tuple[str, ...]) -> Job:
    """Start a command on the explorer's database, which is created where there is none.

    Raises InputError where a command with this study runs already, EnvironmentProblem where the database is of another
    version or cannot be reached, the command cannot be started, or this explorer only reads.
    """
    require_changes()
    with _starting:
        if path in newest_jobs and newest_jobs[path].code is None:
            raise InputError("is running already", place="study", value=title, remedy="stop it, or wait for its end")
        _prepare_database()
        log = data_home() / "studies" / f"{Path(path).stem}.log"
        environment = {**os.environ, "EFT_DATABASE_URL": default_url(), "EFT_HOME": str(data_home()), "COLUMNS": "200"}
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [*COMMAND, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,  # so that Ctrl-C in the explorer's terminal does not reach it
                )
        except OSError as problem:
            raise EnvironmentProblem(
                f"cannot be started ({problem.strerror})", place="eft", remedy=f"run `eft {' '.join(arguments)}`"
            ) from None
        threading.Thread(target=process.wait, name="eft-job", daemon=True).start()  # none that ended stays as a zombie
        job = Job(title=title, path=path, arguments=arguments, log=log, started=datetime.now(UTC), process=process)
        newest_jobs[path] = job
        return job


def _prepare_database() -> None:
    try:
        empty = migrate.current(default_url()) is None
    except DatabaseMissing:
        empty = True
    if empty:
        migrate.upgrade(default_url())
    migrate.require_current(default_url())
