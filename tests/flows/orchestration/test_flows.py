"""The other flows: one configuration, top-ups, checks of the theory, stale sweeps; links, names, artifacts, limits."""

from __future__ import annotations

import asyncio
import base64
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from db.reading import queries
from db.session import Database
from db.settings import default_url
from db.upkeep import migrate
from db.writing import claims, repository
from eftcore.errors import InputError
from eftcore.precision import Precision
from flows.orchestration import gpu
from flows.study.expansion import load_study
from flows.study.requests import ConfigurationRequest, StudyRequest, TheoremRequest, TopUpRequest
from flows.work.once import compute_missing
from flows.work.store import Stored, default_store
from tests.flows import warm


@pytest.fixture
def client(results: Path):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as made:
        yield made


def _frame(query: Any, **filters: Any):
    db = Database(default_url(), read_only=True)
    try:
        return query(db, **filters)
    finally:
        db.dispose()


def test_a_configuration_is_predicted_simulated_and_published(client: Any):
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterId

    from flows.run import run_configuration

    request = ConfigurationRequest(activation="erf", epsilon=0.5, total_time=1.0, width=8, samples=512)
    state = run_configuration(request, return_state=True)
    summary = state.result()
    assert (summary.failures, summary.computed) == ([], 3 + 1 + 1 + 3 + 1)

    runs = _frame(queries.runs)
    assert runs["status"].tolist() == ["succeeded"] * 4
    (flow_run_id,) = runs["flow_run_id"].unique()
    run = client.read_flow_run(flow_run_id)
    assert run.name == request.title == "erf, C_W=2, C_b=0, eps=0.5, T=1, N=2, K=2, rho=0.3"
    assert runs["task_run_id"].notna().all()

    name = request.plan().name
    found = client.read_artifacts(
        artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[f"study-{name}", f"windows-{name}"])),
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
    )
    kinds = {artifact.type: artifact for artifact in found}
    assert kinds.keys() == {"table", "markdown"}
    assert "g_only" in kinds["table"].data
    text = str(kinds["markdown"].data)
    assert "http://127.0.0.1:8501/run?simulation=" in text
    (_, picture) = text.split("data:image/png;base64,")
    assert base64.b64decode(picture.split(")")[0]).startswith(b"\x89PNG")
    assert len(text) < 200_000


def test_task_runs_have_names_that_people_read(results: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """Small pieces share a task, which is named after the first."""
    from flows.orchestration import groups, tasks
    from flows.run import run_study

    names: list[str] = []
    for made in (tasks.record, groups.together):
        monkeypatch.setattr(made, "with_options", _noting_names(names, made.with_options))
    assert run_study(StudyRequest(study=str(tiny))).failures == []
    about = "tanh, width 8, equicorrelated(N=2, K=1, rho=0.3)"
    assert names == [
        "predict g_only: tanh, equicorrelated(N=2, K=1, rho=0.3) and 1 more",
        f"simulate shard 1 of 1, 4096 networks: {about} and 1 more",
        f"merge 1 shards: {about} and 1 more",
        f"compare mean with the simulation: {about} and 3 more",
        f"record: {about} and 1 more",
    ]


def _noting_names(names: list[str], with_options: Any) -> Any:
    def noting(**options: Any) -> Any:
        names.append(options["task_run_name"])
        return with_options(**options)

    return noting


def test_a_top_up_keeps_shards_and_says_what_it_extends(results: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    from flows.run import run_study, top_up

    monkeypatch.setattr("eftcore.ensemble.shards.SHARD_WORK", 1)
    tiny.write_text(tiny.read_text().replace("samples = 4096", "samples = 128").replace("[8, 16]", "[8]"))
    assert run_study(StudyRequest(study=str(tiny))).failures == []
    kept = {path: path.stat().st_mtime_ns for path in results.glob("arrays/*/*.npz")}
    more = top_up(TopUpRequest(study=str(tiny), samples=192))
    assert (more.failures, more.cached) == ([], 2 + 2)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    runs = _frame(queries.runs, kind="simulation").set_index("samples")
    assert runs.loc[192, "extends_run_id"] == runs.loc[128, "run_id"]

    target = Precision(quantity="K0", relative=0.02, max_samples=50_000)
    precise = top_up(TopUpRequest(study=str(tiny), precision=target))
    assert precise.failures == []
    (attained,) = precise.precision.values()
    assert attained.met
    assert attained.samples > 192
    assert _frame(queries.runs, kind="simulation")["samples"].max() == attained.samples

    fewer = load_study(tiny).topped_up(samples=64)
    assert [item.samples for item in fewer.simulations.values()] == [128]


def test_theorems_hold_on_a_network(results: Path):
    from flows.run import verify_theorems

    checks = verify_theorems(TheoremRequest(activation="relu", epsilon=0.5, total_time=1.0, samples=500))
    assert len(checks) == 5
    assert all(check["passed"] for check in checks)


def test_a_theorem_that_does_not_hold_fails_its_flow(results: Path, monkeypatch: pytest.MonkeyPatch):
    from flows.orchestration import tasks
    from flows.run import TheoremViolated, verify_theorems

    broken = [{"name": "block law", "passed": False}, {"name": "ghost-free", "passed": True}]
    monkeypatch.setattr(tasks.verify, "fn", lambda request: broken)
    with pytest.raises(TheoremViolated, match=r"does not hold: block law$"):
        verify_theorems(TheoremRequest(activation="tanh"))


def test_a_sweep_marks_what_a_killed_process_left_and_spares_the_living(results: Path, tiny: Path):
    from flows.run import sweep_stale

    plan = load_study(tiny)
    first, second = plan.predictions.values()
    db = Database(default_url())
    gone = multiprocessing.get_context("spawn").Process(target=os.getpid)
    gone.start()
    gone.join()
    here, _, token = claims.new_holder().rsplit(":", 2)
    dead = repository.mark_running(db, first, holder=f"{here}:{gone.pid}:{token}", provenance={})
    alive = repository.mark_running(db, second, holder=claims.new_holder(), provenance={})
    db.dispose()
    assert sweep_stale() == [dead]
    assert dict(_frame(queries.runs)[["run_id", "status"]].to_numpy().tolist()) == {dead: "stale", alive: "running"}


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        (StudyRequest, {"study": "slow"}, "no such file or bundled study"),
        (TopUpRequest, {"study": "quick"}, "either samples"),
        (ConfigurationRequest, {"activation": "tahn"}, "tahn"),
        (ConfigurationRequest, {"activation": "tanh", "hidden_ratio": 2.0}, "two_matrix"),
        (ConfigurationRequest, {"activation": "tanh", "total_time": 0.015}, "whole"),
        (ConfigurationRequest, {"activation": "tanh", "closures": ["g-only"]}, "g_only"),
        (ConfigurationRequest, {"activation": "tanh", "widht": 3}, "widht: unknown field"),
        (TheoremRequest, {"activation": "tanh", "n_inputs": 3, "correlation": -0.9}, "correlation"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(model: Any, given: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        model(**given)


def _compute(folder: Path, begun: Any, end: Any) -> None:
    os.environ |= {"EFT_HOME": str(folder), "EFT_DATABASE_URL": "", "EFT_STORE": ""}
    store = default_store()

    def compute() -> None:
        begun.set()
        end.wait(30)
        with (folder / "log").open("a") as file:
            file.write("computed\n")
        store.save("ab" * 32, Stored(arrays={}, meta={}))

    assert compute_missing(store, {"ab" * 32: compute}) == {}


def test_processes_that_want_the_same_result_compute_it_once_also_after_kill_9(home: Path):
    migrate.upgrade(default_url())
    processes = warm.processes()
    begun, never, at_once = processes.Event(), processes.Event(), processes.Event()
    killed = processes.Process(target=_compute, args=(home, begun, never))
    killed.start()
    assert begun.wait(60)
    at_once.set()
    waiting = [processes.Process(target=_compute, args=(home, begun, at_once)) for _ in range(3)]
    for process in waiting:
        process.start()
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()  # until then it is not gone
    for process in waiting:
        process.join(60)
        assert process.exitcode == 0
    assert (home / "log").read_text() == "computed\n"


def test_one_task_at_a_time_uses_a_gpu(results: Path, monkeypatch: pytest.MonkeyPatch):
    from prefect import flow, task

    monkeypatch.setattr(gpu, "limit_name", lambda: "gpu-test-0")
    at_work, most, counting = [0], [0], threading.Lock()

    @task
    def use(number: int) -> None:
        with gpu.alone("cuda"):
            with counting:
                at_work[0] += 1
                most[0] = max(most[0], at_work[0])
            threading.Event().wait(0.2)
            with counting:
                at_work[0] -= 1

    @flow
    def several() -> None:
        for future in [use.submit(number) for number in range(3)]:
            future.result()

    several()
    assert most == [1]


def test_three_lines_of_python_also_within_an_event_loop(results: Path, tiny: Path, tmp_path: Path):
    import flows

    url = f"sqlite:///{tmp_path / 'own.db'}"

    async def notebook() -> flows.StudyResult:
        return flows.run_study(tiny, db=url, workers=2)

    result = asyncio.run(notebook())
    assert result.summary.failures == []
    assert set(result.windows["closure"]) == {"mean", "g_only"}
    assert set(result.runs["status"]) == {"succeeded"}
    assert len(result.errors) > 0
    assert default_url() != url
    assert default_store().there(result.runs.query("kind == 'prediction'")["digest"]) != set()


def test_work_that_is_stored_is_shown_as_cached_together(results: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    from flows.orchestration import dispatch
    from flows.run import run_study

    assert run_study(StudyRequest(study=str(tiny))).failures == []
    shown: list[tuple[str, str]] = []
    outcome = dispatch._outcome

    def noting(state: Any) -> Any:
        shown.append((state.name, state.message))
        return outcome(state)

    monkeypatch.setattr(dispatch, "_outcome", noting)
    assert run_study(StudyRequest(study=str(tiny))).cached == 2 + 2 * (1 + 1 + 2 + 1)
    assert shown == [("Cached", f"{count} results are there already") for count in (2, 2, 2, 4, 2)]
