"""The flows as Prefect deployments: triggered from Prefect's pages, its API or a schedule, with a checked form.

``prefect.yaml`` deploys the same flows to a work pool, for workers that run on other machines.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import serve as prefect_serve
from prefect.types.entrypoint import EntrypointType

from eftcore.errors import EnvironmentProblem
from flows import run

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

SWEEP_SECONDS = 600
"""Seconds between two runs of the flow that marks runs without a live worker as stale."""


def deployments() -> list[RunnerDeployment]:
    """One deployment, named ``eft``, of each flow."""
    every: list[tuple[Any, dict[str, Any]]] = [
        (run.run_study, {"description": "Run a whole study; give its name or the path of its file."}),
        (run.run_configuration, {"description": "Predict, simulate and compare one configuration."}),
        (run.top_up, {"description": "Make the simulations of a study larger."}),
        (run.verify_theorems, {"description": "Check the exact statements of the theory on one network."}),
        (
            run.sweep_stale,
            {
                "description": "Mark runs as stale that nobody gives signs of life for.",
                "interval": timedelta(seconds=SWEEP_SECONDS),
            },
        ),
    ]
    # the entrypoint is a module path: with a file path Prefect cannot resolve the types of the parameters
    shared: dict[str, Any] = {"name": "eft", "tags": ["eft"], "entrypoint_type": EntrypointType.MODULE_PATH}
    return [flow.to_deployment(**shared, **options) for flow, options in every]


def serve(limit: int) -> None:
    """Wait for triggered flow runs and execute them, ``limit`` at a time, until Ctrl-C.

    Raises EnvironmentProblem in a working directory that contains other packages named like those of this project.
    """
    _require_own_packages()
    prefect_serve(*deployments(), limit=limit, print_starting_message=False)


def _require_own_packages() -> None:
    """Raises EnvironmentProblem where the working directory contains packages named like ours.

    The processes of flow runs always look for modules in the working directory first.
    """
    ours = Path(__file__).parents[1]
    for name in ("eftcore", "db", "flows", "ui"):
        for beside in (Path.cwd() / name, Path.cwd() / f"{name}.py"):
            if beside.exists() and not beside.samefile(ours / name):
                raise EnvironmentProblem(
                    "Prefect would import it in place of ours",
                    place=beside,
                    remedy="start `eft serve` in another folder",
                )
