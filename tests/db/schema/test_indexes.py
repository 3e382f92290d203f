"""The documented queries find their rows by an index: the plans of both databases say so."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

QUERIES = {
    "one run": ("SELECT * FROM v_runs WHERE run_id = 3", "runs"),
    "runs at work": ("SELECT * FROM v_runs WHERE status = 'running'", "runs"),
    "windows at one tolerance": (
        "SELECT * FROM v_windows WHERE quantity = 'V4' AND tolerance = 0.1",
        "validity_windows",
    ),
    "windows of a simulation": ("SELECT * FROM v_windows WHERE simulation_run_id = 3", "comparisons validity_windows"),
    "errors of a simulation": ("SELECT * FROM v_errors WHERE simulation_run_id = 3", "comparisons error_metrics"),
    "windows of two references": (
        "SELECT * FROM v_windows WHERE reference_run_id IN (3, 4)",
        "comparisons validity_windows",
    ),
    "errors of two references": (
        "SELECT * FROM v_errors WHERE reference_run_id IN (3, 4)",
        "comparisons error_metrics",
    ),
    "errors of the newest simulation": (
        "SELECT * FROM v_errors WHERE simulation_run_id = (SELECT max(run_id) FROM v_runs WHERE kind = 'simulation')",
        "comparisons error_metrics",
    ),
    "windows against theories": (
        "SELECT * FROM v_theory_windows WHERE quantity = 'V4' AND tolerance = 0.1",
        "validity_windows",
    ),
    "windows against a theory": (
        "SELECT * FROM v_theory_windows WHERE reference_run_id = 3",
        "comparisons validity_windows",
    ),
    "errors against a theory": (
        "SELECT * FROM v_theory_errors WHERE reference_run_id = 3",
        "comparisons error_metrics",
    ),
    "windows of a study": (
        "SELECT * FROM v_study_windows WHERE study = 'x' AND quantity = 'V4' AND tolerance = 0.1",
        "validity_windows study_runs",
    ),
    "errors of a simulation by study": (
        "SELECT * FROM v_study_errors WHERE simulation_run_id = 3",
        "comparisons error_metrics study_runs",
    ),
    "one trajectory": (
        "SELECT * FROM v_trajectories WHERE simulation_run_id = 3 AND quantity = 'V4' AND component = '00,00'",
        "trajectory_values",
    ),
    "arrays of a run": ("SELECT * FROM kernel_trajectories WHERE run_id = 3", "kernel_trajectories"),
    "precision of a run": ("SELECT * FROM v_precision WHERE simulation_run_id = 3", "simulation_precision"),
    "quantiles of a run": (
        "SELECT * FROM v_quantiles WHERE simulation_run_id = 3 AND component = '00'",
        "kernel_quantiles",
    ),
    "quantiles of a check": (
        "SELECT * FROM v_quantiles WHERE reference_run_id = 3 AND component = '00'",
        "kernel_quantiles",
    ),
    "trajectory of a check": (
        "SELECT * FROM v_trajectories WHERE reference_run_id = 3 AND quantity = 'V4' AND component = '00,00'",
        "trajectory_values",
    ),
    "blocks of a check": ("SELECT * FROM v_checks WHERE check_run_id = 3", "checked_blocks module_checks"),
    "members of a study": ("SELECT run_id FROM study_runs WHERE study_id = 1", "study_runs"),
    "studies of a run": ("SELECT study_id FROM study_runs WHERE run_id = 3", "study_runs"),
    "what extends a run": ("SELECT id FROM runs WHERE extends_run_id = 3", "runs"),
    "ensemble": ("SELECT id FROM runs WHERE ensemble_digest = 'x'", "runs"),
    "claims of a worker": ("SELECT digest FROM claims WHERE holder = 'me'", "claims"),
}


@pytest.mark.parametrize(("query", "tables"), QUERIES.values(), ids=QUERIES)
def test_rows_are_found_by_an_index(db, backend, query, tables):
    with db.reading() as session:
        if backend == "sqlite":
            plan = [row.detail for row in session.execute(sa.text(f"EXPLAIN QUERY PLAN {query}"))]
            names = _names(query)
            scans = [line for line in plan if line.startswith("SCAN")]
            scanned = {names.get(line.split()[1], line.split()[1]) for line in scans}
        else:
            # an empty table is scanned whatever the indexes, unless that is forbidden
            session.execute(sa.text("SET LOCAL enable_seqscan = off"))
            plan = [row[0] for row in session.execute(sa.text(f"EXPLAIN {query}"))]
            scanned = {line.split("Seq Scan on ")[1].split()[0] for line in plan if "Seq Scan on" in line}
    assert not scanned & set(tables.split()), "\n".join(plan)


def _names(query: str) -> dict[str, str]:
    """SQLite's plans name tables by their aliases in the views."""
    aliases = {"v_runs": {"r": "runs"}, "v_precision": {"q": "simulation_precision"}}
    aliases["v_quantiles"] = {"q": "kernel_quantiles"}
    aliases["v_checks"] = {"b": "checked_blocks", "m": "module_checks"}
    for name in ("v_windows", "v_theory_windows", "v_study_windows"):
        aliases[name] = {"w": "validity_windows", "x": "comparisons", "m0": "study_runs", "m1": "study_runs"}
    for name in ("v_errors", "v_theory_errors", "v_study_errors"):
        aliases[name] = {"e": "error_metrics", "x": "comparisons", "m0": "study_runs", "m1": "study_runs"}
    aliases["v_trajectories"] = {"v": "trajectory_values", "t": "trajectory_values"}
    return next((named for view, named in aliases.items() if view in query), {})
