"""The flows: a whole study, one configuration, larger simulations, checks of the theory, and upkeep."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow, runtime
from prefect.context import TagsContext

from db.upkeep import migrate
from eftcore.errors import EftError
from flows.orchestration import artifacts, tasks
from flows.orchestration.execution import Execution, Summary
from flows.orchestration.runners import dispatching
from flows.study.expansion import Study
from flows.study.requests import (
    DEFAULT,
    Checked,
    ConfigurationRequest,
    Resources,
    StudyRequest,
    TheoremRequest,
    TopUpRequest,
)
from flows.work import recording
from flows.work.listing import DryRun, Planned
from flows.work.provenance import made_by
from flows.work.store import default_store
from flows.work.superseded import requested_study
from flows.work.waiting import patient


class StudyFailed(EftError):
    """Some tasks of a study failed; the others are finished and recorded."""

    def __init__(self, summary: Summary) -> None:
        super().__init__(str(summary), place="study", value=summary.study)
        self.summary = summary


class TheoremViolated(EftError):
    """An exact statement of the theory failed its check."""


@flow(name="run-study", flow_run_name="{request.title}", persist_result=False)
def run_study(request: Annotated[StudyRequest, Checked], resources: Annotated[Resources, Checked] = DEFAULT) -> Summary:
    """Run a whole study into the database that EFT_DATABASE_URL names.

    Raises:
        InputError: the study file is wrong; nothing ran.
        StudyFailed: some tasks failed, after retries where those could help.
    """
    return carry_out(request, resources)


@flow(name="run-configuration", flow_run_name="{request.title}", persist_result=False)
def run_configuration(
    request: Annotated[ConfigurationRequest, Checked], resources: Annotated[Resources, Checked] = DEFAULT
) -> Summary:
    """Predict, simulate and compare one configuration. As run_study."""
    return carry_out(request, resources)


@flow(name="top-up", flow_run_name="{request.title}", persist_result=False)
def top_up(request: Annotated[TopUpRequest, Checked], resources: Annotated[Resources, Checked] = DEFAULT) -> Summary:
    """Make the simulations of a study larger; their finished shards are kept. As run_study."""
    return carry_out(request, resources)


@flow(name="verify-theorems", flow_run_name="{request.title}", persist_result=False)
def verify_theorems(request: Annotated[TheoremRequest, Checked]) -> list[dict[str, Any]]:
    """Check the exact statements of the theory on one network; a record for each. Raises TheoremViolated."""
    checks = tasks.verify(request.model_dump(mode="json"))
    artifacts.publish_checks(request.title, checks)
    broken = [check["name"] for check in checks if not check["passed"]]
    if broken:
        raise TheoremViolated(f"does not hold: {', '.join(broken)}", place=request.title)
    return checks


@flow(name="sweep-stale", persist_result=False)
def sweep_stale() -> list[int]:
    """Mark as stale the runs whose process no longer renews its claim; returns their ids. Never touches a live run."""
    return recording.sweep_stale()


def carry_out(request: StudyRequest | ConfigurationRequest, resources: Resources) -> Summary:
    """Execute a study within the present flow run and publish its artifacts. Raises StudyFailed."""
    migrate.require_current()
    migrate.register_versions()
    store = default_store()
    store.place.require_usable()
    plan = requested_study(request)
    with (
        patient(),
        TagsContext(current_tags=set()),  # for each tag of a task Prefect would ask the server whether it may begin
        made_by(flow_run_id=str(runtime.flow_run.id)),
        dispatching(resources) as dispatcher,
    ):
        summary = Execution(plan, store, resources, dispatcher).execute()
        artifacts.publish_study(plan.name, str(summary))
    if summary.failures:
        raise StudyFailed(summary)
    return summary


def plan_study(plan: Study) -> list[Planned]:
    """The tasks of a study in the order in which ``run_study`` executes them; computes nothing."""
    store = default_store()
    store.place.require_there()
    dry_run = DryRun(plan, store)
    dry_run.go()
    return dry_run.tasks
