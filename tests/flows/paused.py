"""A study in a process that waits before its second record; the tests start it with everything imported."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any


def run(study: str, environment: dict[str, str], said: Path, there: Any, go: Any) -> None:
    """``eft run``: it exits as that does and prints to ``said``; ``there`` is set while it waits for ``go``."""
    os.environ.update(environment)
    with said.open("w") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    from flows.cli import main
    from flows.orchestration import groups
    from flows.work import recording

    one_at_a_time, record, recorded = threading.Lock(), recording.record, []

    def wait(*given: Any, **named: Any) -> None:
        with one_at_a_time:
            if recorded:
                there.set()
                go.wait(120)
            record(*given, **named)
            recorded.append(1)

    recording.record = wait
    groups.IN_ONE_TRANSACTION = 1
    main(["run", study])
