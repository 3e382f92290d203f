"""``eft run``, ``eft top-up`` and ``eft serve``: studies from the shell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import DatabaseOption, JsonOption, use_database

if TYPE_CHECKING:
    from flows.orchestration.execution import Summary
    from flows.study.requests import StudyRequest

study_app = typer.Typer()

RenewOption = Annotated[
    bool, typer.Option("--renew", help="Compute anew what an older version of an algorithm made; the old stays.")
]
StudyArgument = Annotated[
    str, typer.Argument(help="A study file, or a bundled study: quick, digits, paper-quick, paper.")
]
DeviceOption = Annotated[str, typer.Option(help="Where to simulate: auto, cpu or cuda.")]
RunnerOption = Annotated[str, typer.Option(help="Who computes: threads, processes or dask.")]
WorkersOption = Annotated[int | None, typer.Option(help="Tasks at a time; as many as processors by default.")]
AddressOption = Annotated[
    str | None, typer.Option(help="A running Dask scheduler, tcp://host:8786, in place of a cluster here.")
]
TimeoutOption = Annotated[
    float | None, typer.Option(help="Seconds after which one prediction or shard counts as failed.")
]


@study_app.command(epilog="Example: eft run quick --workers 2")
def run(
    study: StudyArgument,
    db: DatabaseOption = None,
    device: DeviceOption = "auto",
    runner: RunnerOption = "threads",
    workers: WorkersOption = None,
    dask_address: AddressOption = None,
    task_timeout: TimeoutOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be computed, and how long.")] = False,
    renew: RenewOption = False,
    json: JsonOption = False,
) -> None:
    """Run a study: predict, simulate, compare, record. What was computed before is not computed again."""
    from db.upkeep import migrate
    from flows import launch
    from flows.study.requests import Resources, StudyRequest

    given = {"device": device, "runner": runner, "workers": workers, "task_timeout": task_timeout}
    resources = Resources(**given, dask_address=dask_address)
    request = StudyRequest(study=study, renew=renew)
    migrate.require_current(use_database(db))
    if dry_run:
        launch.dry_run(request, as_json=json)
        return
    _carry_out(request, lambda: launch.run_study(request, resources), as_json=json)


@study_app.command(epilog="Example: eft top-up my-study.toml --precision V4=0.05 --max-samples 100000")
def top_up(
    study: StudyArgument,
    samples: Annotated[int | None, typer.Option(help="Networks for each simulation, in all.")] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="QUANTITY=ERROR", help="Relative standard error to reach: V4=0.01.")
    ] = None,
    max_samples: Annotated[int, typer.Option(help="With --precision: networks after which to stop anyway.")] = 10**6,
    db: DatabaseOption = None,
    device: DeviceOption = "auto",
    runner: RunnerOption = "threads",
    workers: WorkersOption = None,
    dask_address: AddressOption = None,
    renew: RenewOption = False,
    json: JsonOption = False,
) -> None:
    """Make the simulations of a study larger, by number or to a precision. Finished shards are kept."""
    from db.upkeep import migrate
    from flows import launch
    from flows.study.requests import Resources, TopUpRequest

    given = {"device": device, "runner": runner, "workers": workers, "dask_address": dask_address}
    resources = Resources(**given)
    aim = None
    if precision is not None:
        quantity, _, error = precision.partition("=")
        aim = {"quantity": quantity, "relative": error, "max_samples": max_samples}
    request = TopUpRequest(study=study, samples=samples, precision=aim, renew=renew)
    migrate.require_current(use_database(db))
    _carry_out(request, lambda: launch.top_up(request, resources), as_json=json)


def _carry_out(request: StudyRequest, start: Callable[[], Summary], *, as_json: bool) -> None:
    """Run a flow from the shell and print its summary."""
    from flows import launch
    from flows.orchestration import stopping
    from flows.work import recording
    from flows.work.superseded import requested_study

    recording.record_study(
        requested_study(request).record
    )  # reports a database that cannot be written before anything runs
    with stopping.stoppable():
        outcome = start()
    launch.report(outcome, as_json=as_json)
    if outcome.failures:
        raise typer.Exit(1)


@study_app.command(epilog="Example: eft serve --limit 2")
def serve(
    db: DatabaseOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Flow runs at a time.")] = 1,
) -> None:
    """Offer the flows as Prefect deployments: trigger them from Prefect's pages or API. Ctrl-C ends it."""
    from db.addresses import shown
    from db.settings import data_home
    from db.upkeep import migrate
    from flows.orchestration import surroundings

    migrate.require_current(use_database(db))
    surroundings.configure(data_home())
    with surroundings.api(whole=True) as url:
        from flows import deployments

        pages = shown(url).removesuffix("/api")
        print(f"Serving run-study, run-configuration, top-up, verify-theorems and sweep-stale at {pages}", flush=True)
        deployments.serve(limit)
