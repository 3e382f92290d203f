"""What Prefect costs on top of the work, and a sweep of many configurations: `python -m benchmarks.orchestration`.

Overhead: shards of about a second as tasks of one flow run with one worker; the time from the start of the first to the
end of the last, over the time that the simulations themselves took (they measure it, so other load meets both). Sweep:
theory of every closure and a small paired ensemble for each of ``--configurations`` configurations from one study file,
with the memory of the command and of Prefect's server as configurations are recorded.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

import eftcore as eft
from db.settings import default_url
from db.upkeep import migrate
from flows.orchestration import surroundings
from flows.work import computations
from flows.work.store import ResultStore, default_store

if TYPE_CHECKING:
    from flows.orchestration.dispatch import Outcome

SHARDS = 12
SECONDS = 1.0
SWEEP = """
name = "sweep"
widths = [32]
samples = 512
closures = ["mean", "source_only", "g_only", "sigma", "wick"]
recorded_depths = 25

[model]
activation = ["tanh", "erf", "relu", "gelu", "linear"]
weight_variance = [1.0, 1.25, 1.5, 1.75, 2.0]
bias_variance = [0.0, 0.1, 0.2, 0.3]
epsilon = 0.2
total_time = 1.0

[[kernel]]
kind = "equicorrelated"
n_inputs = 2
variance = 1.0
correlation = {correlations}
"""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configurations", type=int, default=500, help="a multiple of 100")
    parser.add_argument("--runners", nargs="*", default=["threads", "processes", "dask"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EFT_HOME"] = folder
        surroundings.configure(Path(folder))
        with surroundings.api():
            overhead(options.runners)
        if options.configurations:
            sweep(Path(folder), options.configurations)


def overhead(runners: list[str]) -> None:
    """What lies between the shards, per shard and as a share of the work."""
    spec = _ensemble()
    store = ResultStore(Path(tempfile.mkdtemp(dir=os.environ["PREFECT_HOME"])))
    for shard, networks in ((0, 64), (1, 4096)):  # the first compiles
        computations.simulate(store, spec, shard=shard, samples=networks, device="cpu")
    _, provenance = computations.load_sample(store, computations.shard_digest(spec.digest, 1, 4096))
    networks = int(4096 * SECONDS / provenance["worker_seconds"])
    for runner in runners:
        wall, simulated = _flow(spec, networks, runner)
        between = (wall - sum(simulated)) / SHARDS
        print(
            f"{runner:10} {SHARDS} shards of {sum(simulated) / SHARDS:.2f} s:"
            f" {1000 * between:.0f} ms more each, {100 * (wall / sum(simulated) - 1):.1f} %"
        )


def _ensemble() -> eft.EnsembleSpec:
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=200)
    kernel = eft.InputKernel.equicorrelated(n_inputs=4, variance=2.0, correlation=0.3)
    return eft.EnsembleSpec(model=model, kernel=kernel, width=64, estimator="plain")


def _flow(spec: eft.EnsembleSpec, networks: int, runner: str) -> tuple[float, list[float]]:
    """Seconds from the start of the first shard to the end of the last, and those of each shard's simulation."""
    from prefect import flow

    from flows.orchestration import tasks
    from flows.orchestration.runners import dispatching
    from flows.study.requests import Resources

    os.environ["EFT_HOME"] = tempfile.mkdtemp(dir=os.environ["PREFECT_HOME"])
    migrate.upgrade(default_url())
    digests = {shard: computations.shard_digest(spec.digest, shard, networks) for shard in range(SHARDS)}

    @flow(persist_result=False)
    def simulate_all() -> float:
        with dispatching(Resources(runner=runner, workers=1)) as dispatcher:

            def one(shard: int) -> Outcome:
                inputs = {"spec": spec.model_dump(mode="json"), "shard": shard, "samples": networks, "device": "cpu"}
                named = tasks.simulate.with_options(task_run_name=f"shard {shard}")
                return dispatcher.run(named, {"digest": digests[shard], **inputs})

            assert all(outcome.end == "computed" for outcome in dispatcher.each(one, range(SHARDS)))
            return time.time()

    end = simulate_all()
    records = [computations.load_sample(default_store(), digest)[1] for digest in digests.values()]
    start = min(datetime.fromisoformat(record["started_at"]).timestamp() for record in records)
    return end - start, [record["worker_seconds"] for record in records]


def sweep(home: Path, configurations: int) -> None:
    """One study file of so many configurations, and again: times, memory over time, and what grows on the disk."""
    environment = {**os.environ, "EFT_HOME": str(home / "sweep")}
    correlations = [round(0.8 * k / max(1, configurations // 100), 3) for k in range(configurations // 100)]
    study = home / "sweep.toml"
    study.write_text(SWEEP.format(correlations=correlations))
    eft_command = [sys.executable, "-m", "flows.cli"]
    subprocess.run([*eft_command, "db", "upgrade"], env=environment, check=True, stdout=subprocess.DEVNULL)
    for title in ("first", "again"):
        before, start = _stored(home), time.perf_counter()
        said = home / "said.txt"
        with said.open("w") as out:
            command = [*eft_command, "run", str(study)]
            run = subprocess.Popen(command, env=environment, text=True, stdout=out, stderr=subprocess.PIPE)
        assert run.stderr is not None
        recorded, ours, servers = [0], [], []  # megabytes after so many configurations
        for line in run.stderr:
            if match := _RECORDED.search(line):
                server = surroundings.local_server().running()
                assert server is not None
                recorded.append(recorded[-1] + 1 + int(match["more"] or 0))
                ours.append(_megabytes(run.pid))
                servers.append(_megabytes(server.pid))
        _, status, used = os.wait4(run.pid, 0)
        assert status == 0
        (counts,) = [line for line in said.read_text().splitlines() if line.startswith("Study sweep")]
        seconds = time.perf_counter() - start
        print(f"{title}: {seconds:.0f} s, of processor {used.ru_utime + used.ru_stime:.0f} s. {counts}")
        print(f"  command: at most {used.ru_maxrss / 1e3:.0f} MB")
        for name, megabytes in (("command", ours), ("server", servers)):
            counted = recorded[1:]
            shown = ", ".join(f"{size:.0f} ({count})" for count, size in zip(counted, megabytes, strict=True))
            half = len(megabytes) // 2
            growth = 1000 * np.polyfit(counted[half:], megabytes[half:], 1)[0] if len(megabytes) - half > 1 else np.nan
            print(f"  {name}: MB (after so many configurations) {shown}; second half {growth:.0f} kB for each")
        for what, amount in _stored(home).items():
            print(f"  {what}: {(amount - before[what]) / configurations:.2f} for each configuration")


_RECORDED = re.compile(r"\] record: .*?(?: and (?P<more>\d+) more)?: \d* ?(?:computed|cached)")


def _stored(home: Path) -> dict[str, float]:
    """Kilobytes of Prefect's database and of ours, and of the store; number of its files."""

    def kilobytes(paths: Iterable[Path]) -> float:
        return sum(path.stat().st_size for path in paths) / 1e3

    results = list((home / "sweep" / "arrays").glob("*/*.npz"))
    return {
        "kB of Prefect's database": kilobytes(Path(os.environ["PREFECT_HOME"]).glob("prefect.db")),
        "kB of results.db": kilobytes((home / "sweep").glob("results.db")),
        "kB of stored results": kilobytes(results),
        "stored results": float(len(results)),
    }


def _megabytes(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6


if __name__ == "__main__":
    main()
