"""A study in a process that is made to be killed; the tests start it with everything imported."""

from __future__ import annotations

import os
from typing import Any

from flows.requests import Resources


def carry_out(study: str, environment: dict[str, str], begun: Any) -> None:
    """Run a study as ``eft run`` does, after setting ``begun``."""
    os.environ.update(environment)
    from flows import launch

    begun.set()
    outcome = launch.run_study(study, Resources())
    assert outcome.failures == []
