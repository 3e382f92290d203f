"""Running a study from a shell: starting Prefect's server, showing progress, printing a summary."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from db.reading.queries import runs, windows
from db.session import Database
from db.settings import data_home, default_url
from flows import tables
from flows.orchestration import stopping, surroundings
from flows.study import sizes
from flows.study.requests import Resources, StudyRequest, TopUpRequest
from flows.work import progress

if TYPE_CHECKING:
    from flows.orchestration.execution import Summary


def run_study(request: StudyRequest, resources: Resources) -> Summary:
    """Run the flow and return its summary, which lists tasks that failed; these raise no error.

    Raises EnvironmentProblem when no Prefect server can be started or reached, or it is lost and does not come back.
    """
    return _run(lambda run: run.run_study(request, resources), tag=request.title)


def top_up(request: TopUpRequest, resources: Resources) -> Summary:
    """Like run_study, with larger simulations."""
    return _run(lambda run: run.top_up(request, resources), tag=request.title)


def _run(flow: Callable[[Any], Summary], *, tag: str) -> Summary:
    """Call a flow of flows.run, which is imported once Prefect's settings and server are ready."""
    surroundings.configure(data_home())
    console = tables.console(stderr=True)
    with contextlib.ExitStack() as stack:
        with console.status("starting Prefect"):
            stack.enter_context(surroundings.api(give_up=stopping.end_command))
            from prefect import tags

            from flows import run
        stack.enter_context(progress.shown(console))
        stack.enter_context(tags("eft", f"study:{tag}"))
        try:
            return flow(run)
        except run.StudyFailed as failed:
            return failed.summary


def dry_run(request: StudyRequest, *, as_json: bool) -> None:
    """Print what ``run_study`` would compute and what is stored already, and the expected time by earlier runs."""
    surroundings.configure(data_home())
    from flows import run
    from flows.work import superseded

    plan = superseded.requested_study(request)
    if warning := sizes.warning(plan):
        print(warning, file=sys.stderr)
    planned = run.plan_study(plan)
    certain = [task for task in planned if not task.at_most]
    left = [task for task in certain if not task.cached]
    further = [task for task in planned if task.at_most]
    seconds = _expected_seconds(sum(task.work for task in left))
    at_most = _expected_seconds(sum(task.work for task in (*left, *further)))
    if as_json:
        rows = [{"task": task.label, "cached": task.cached, "at_most": task.at_most} for task in planned]
        totals = {"expected_seconds": seconds, "at_most_seconds": at_most, "superseded": plan.superseded}
        tables.print_json({"study": request.study, "tasks": rows, **totals})
        return
    for task in planned:
        print(f"{'perhaps' if task.at_most else 'cached ' if task.cached else 'compute'}  {task.label}")
    if not left:
        expectation = "nothing to compute"
    elif not any(task.work for task in (*left, *further)):
        expectation = "no simulation among them"
    elif seconds is None or at_most is None:
        expectation = "no simulation is recorded yet to judge the time by"
    else:
        cap = f" ({at_most:.0f} s if no target is met before its cap)" if further else ""
        expectation = f"about {seconds:.0f} s{cap} of simulation, at the median speed of the simulations recorded here"
    print(f"Study {request.study}: {len(certain) - len(left)} tasks cached, {len(left)} to compute; {expectation}.")
    if plan.superseded:
        print(f"{superseded.in_words(plan.superseded)}. {_renewal()}")


def _renewal() -> str:
    command = shlex.join(["eft", *(word for word in sys.argv[1:] if word != "--dry-run"), "--renew"])
    return f"What is superseded counts as done; to compute it anew: {command}"


def _expected_seconds(work: float) -> float | None:
    """Expected time for this number of neuron updates; None where no earlier run is recorded."""
    frame = runs(Database(default_url(), read_only=True), kind="simulation", status="succeeded", limit=100)
    spent = frame["worker_seconds"] / (frame["samples"] * frame["depth"] * frame["width"] * frame["n_inputs"])
    return float(spent.median() * work) if spent.notna().any() else None


def report(summary: Summary, *, as_json: bool) -> None:
    """Print the validity windows of the study, the numbers of cached and failed tasks, and further commands."""
    found = windows(Database(default_url(), read_only=True), study=summary.study)
    if as_json:
        counts = {name: getattr(summary, name) for name in ("cached", "computed", "skipped")}
        failures = [{"task": failure.label, "cause": failure.cause} for failure in summary.failures]
        tables.print_json(
            {
                "study": summary.study,
                "tasks": counts,
                "superseded": summary.superseded,
                "failures": failures,
                "precision": tables.records(tables.precision_table(summary.precision.values())),
                "windows": tables.records(found),
            }
        )
        return
    tables.print_windows(found)
    if summary.precision:
        tables.print_precision(summary.precision.values())
    print(f"Study {summary.study}: {summary}.")
    if summary.superseded:
        print(_renewal())
    for failure in summary.failures:
        print(f"failed: {failure.label}: {failure.cause}", file=sys.stderr)
    if not summary.failures:
        print('Next: `make ui` or `eft ui` for the explorer, `eft windows`, `eft sql "SELECT * FROM v_windows"`.')
