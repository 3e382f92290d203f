"""Archives that are damaged, forged or hostile: one message each, no traceback, and nothing of them stays."""

from __future__ import annotations

import hashlib
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from db.session import Database
from db.upkeep.exporting import export_archive
from db.upkeep.importing import import_archive
from eftcore.errors import InputError
from tests.db.upkeep.forging import (
    Members,
    a_member_twice,
    by_another,
    check_of_a_prediction,
    deep,
    encrypted,
    forged,
    garbled,
    json_changed,
    lying_size,
    manifest_changed,
    member_replaced,
    members_of,
    one_more,
    other_kernel,
    quantile_of_a_prediction,
    rows_changed,
    said_to_be_of_format_3,
    sealed,
    table_of,
    zipped,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Where the members of a good archive are kept."""
    return {}


@pytest.fixture
def members(good: Members, sqlite_db: Database, record_all, record_next_order, tmp_path: Path) -> Members:
    """A good archive of one study, member by member."""
    if not good:
        record_all(sqlite_db, "first", closures=("mean", "g_only"))
        record_next_order(sqlite_db)
        export_archive(sqlite_db, tmp_path / "good.zip")
        good.update(members_of(tmp_path / "good.zip"))
    return dict(good)


@pytest.fixture
def empty(sqlite_template: Path, tmp_path: Path) -> Database:
    path = tmp_path / "empty.db"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{path}")
    yield database
    database.dispose()


NEWER = "newer than this program"
BAD: dict[str, tuple[Callable[[Members], bytes], str]] = {
    # the file
    "nothing": (lambda members: b"", "not an archive"),
    "text": (lambda members: b"not a zip", "not an archive"),
    "cut in half": (lambda members: zipped(members)[: len(zipped(members)) // 2], "not an archive"),
    "end garbled": (lambda members: zipped(members)[:-30] + bytes(30), "not an archive"),
    "start garbled": (garbled(0), "not an archive|damaged"),
    "middle garbled": (garbled(3000), "damaged"),
    "compressed": (lambda members: zipped(members, zipfile.ZIP_DEFLATED), "compressed"),
    "packed by lzma": (lambda members: zipped(members, zipfile.ZIP_LZMA), "compressed"),
    "encrypted": (encrypted, "encrypted"),
    "bomb": (lambda m: zipped({**m, "runs.parquet": bytes(50_000_000)}, zipfile.ZIP_DEFLATED), "compressed"),
    "a name twice": (a_member_twice, "a name twice|holds"),
    "a path that leads out": (member_replaced("../../evil.parquet", b"x"), "holds '../../evil.parquet'"),
    "a table too few": (member_replaced("runs.parquet", None), "runs.parquet is missing"),
    "no manifest": (member_replaced("manifest.json", None), "manifest.json is missing"),
    # the manifest
    "manifest of spaces": (member_replaced("manifest.json", b" " * 30_000_000), "manifest has 30000000 bytes"),
    "manifest that lies of its size": (lying_size, "damaged|not an archive"),
    "manifest no JSON": (member_replaced("manifest.json", b"{"), "not an archive"),
    "manifest no UTF-8": (member_replaced("manifest.json", b'{"format": "\xff"}'), "not an archive"),
    "manifest a list": (manifest_changed(lambda m: [m]), "no format"),
    "manifest a number": (manifest_changed(lambda m: 2), "no format"),
    "manifest nested": (member_replaced("manifest.json", b"[" * 90_000), "not an archive"),
    "newer format": (manifest_changed(lambda m: m.update(format=12)), NEWER),
    "format of text": (manifest_changed(lambda m: m.update(format="2")), "no format"),
    "format true": (manifest_changed(lambda m: m.update(format=True)), "no format"),
    "format 0": (manifest_changed(lambda m: m.update(format=0)), "no archive format 0"),
    "format 9 said of 11": (
        manifest_changed(lambda m: m.update(format=9)),
        "holds '.*.parquet'",
    ),
    "format 3 said of 5": (said_to_be_of_format_3, "worker_seconds, of a later format"),
    "no checksums": (manifest_changed(lambda m: m.pop("sha256") and None), "does not list our tables"),
    "checksums a list": (manifest_changed(lambda m: m.update(sha256=[])), "does not list our tables"),
    "another table": (manifest_changed(lambda m: m["rows"].update(x=1)), "does not list our tables"),
    "rows below zero": (manifest_changed(lambda m: m["rows"].update(runs=-1)), "has -1 rows"),
    "rows that are not there": (manifest_changed(lambda m: m["rows"].update(runs=10**8)), "rows, its manifest says"),
    "checksum of another": (manifest_changed(lambda m: m["sha256"].update(runs="0" * 64)), "checksum differs"),
    # the tables
    "table no Parquet": (lambda m: zipped(sealed({**m, "runs.parquet": b"PAR1xPAR1"})), "damaged"),
    "table empty": (lambda m: zipped(sealed({**m, "runs.parquet": b""})), "damaged"),
    "column unknown": (
        rows_changed("runs", lambda t: t.append_column("x", pa.array([1] * len(t)))),
        "update the program",
    ),
    "column missing": (rows_changed("runs", lambda t: t.drop_columns(["kind"])), "lacks kind"),
    "column twice": (rows_changed("runs", lambda t: t.append_column("kind", t.column("kind"))), "twice"),
    "depth of text": (forged("model_configurations", "depth", "abc", pa.string()), "of type string"),
    "depth a fraction": (forged("model_configurations", "depth", 8.5, pa.float64()), "of type double"),
    "matrix of numbers": (forged("input_kernels", "matrix", 1.0, pa.float64()), "of type double"),
    # values
    "depth another": (forged("model_configurations", "depth", 9), "does not follow"),
    "depth below one": (forged("model_configurations", "depth", -1), "depth = -1"),
    "depth too large": (forged("model_configurations", "depth", 2**40), "out of range"),
    "epsilon not a number": (forged("model_configurations", "epsilon", float("nan")), "finite"),
    "activation with markup": (forged("model_configurations", "activation", "<script>(x)"), "is no name"),
    "activation changed": (forged("model_configurations", "activation", "erf"), "does not follow"),
    "parameters of an activation": (forged("model_configurations", "activation", "softplus(x=1)"), "unknown param"),
    "hidden neurons of one matrix": (forged("model_configurations", "hidden_ratio", 1.0), "does not follow"),
    "another block": (forged("model_configurations", "block", "two_matrix"), "does not follow"),
    "no such block": (forged("model_configurations", "block", "three"), "block = 'three'"),
    "another normalisation": (forged("model_configurations", "normalisation", "rms"), "does not follow"),
    "total time another": (forged("model_configurations", "total_time", 77.0), "does not follow"),
    "kernel that is none": (other_kernel, "not positive semi-definite"),
    "kernel changed": (json_changed("input_kernels", "matrix", lambda m: [[3.0, 0.6], [0.6, 2.0]]), "does not follow"),
    "kernel no matrix": (json_changed("input_kernels", "matrix", lambda m: {"a": 1}), "another kind"),
    "kernel of text": (json_changed("input_kernels", "matrix", lambda m: [["a", "b"], ["c", "d"]]), "matrix"),
    "kernel nested": (forged("input_kernels", "matrix", lambda t: "[" * 100_000), "damaged"),
    "kernel no JSON": (forged("input_kernels", "matrix", "{"), "damaged"),
    "label with a NUL": (forged("input_kernels", "label", "a\0b"), "no text"),
    "label of a megabyte": (forged("input_kernels", "label", "x" * 1_000_001), "too long"),
    "study name that leads out": (forged("studies", "name", "../../etc/passwd"), "no study file may have"),
    "study name with a line": (forged("studies", "name", "a\nb"), "no study file may have|no text"),
    "study name of an option": (forged("studies", "name", "--db"), "no study file may have"),
    "study name empty": (forged("studies", "name", ""), "no study file may have"),
    "study name too long": (forged("studies", "name", "a" * 81), "no study file may have"),
    "study that asks for nothing": (forged("studies", "runs_asked", 0), "runs_asked = 0: must be at least 1"),
    "digest no digest": (forged("studies", "digest", "zz"), "no digest"),
    "digest of a run another": (forged("runs", "digest", "0" * 64), "does not follow"),
    "row twice": (rows_changed("studies", lambda t: pa.concat_tables([t, t])), "twice"),
    "status unknown": (forged("runs", "status", "done"), "must be one of"),
    "status unfinished": (forged("runs", "status", "running"), "finished"),
    "kind unknown": (forged("runs", "kind", "guess"), "must be one of"),
    "algorithm of tomorrow": (forged("runs", "algorithm_version", 999), "update the program"),
    "algorithm of before": (forged("runs", "algorithm_version", 0), "algorithm_version = 0"),
    "spec with a field more": (json_changed("runs", "spec", lambda s: {**s, "extra": 1}), "extra"),
    "spec nested": (forged("runs", "spec", deep), "damaged"),
    "spec changed": (json_changed("runs", "spec", lambda s: {**s, "depths": [0, 8]}), "does not follow"),
    "run of no configuration": (forged("runs", "configuration_id", "1" * 64), "has no such row"),
    "run that extends nothing": (forged("runs", "extends_run_id", "1" * 64), "has no such row"),
    "samples another": (rows_changed("runs", lambda t: one_more(t, "samples")), "does not follow"),
    "width another": (rows_changed("runs", lambda t: one_more(t, "width")), "does not follow"),
    "time of the pharaohs": (forged("runs", "started_at", __import__("datetime").datetime(1, 1, 1)), "no time"),
    "trajectory too short": (forged("kernel_trajectories", "data", b"12345678"), "bytes"),
    "trajectory of more layers": (forged("kernel_trajectories", "n_layers", 3), "does not follow"),
    "trajectory of nobody": (forged("kernel_trajectories", "run_id", "1" * 64), "has no such row"),
    "component unknown": (forged("trajectory_values", "component", "x; DROP"), "component"),
    "layer below zero": (forged("trajectory_values", "layer", -1), "layer = -1"),
    "value and its mark": (forged("trajectory_values", "value_nonfinite", "nan"), "does not take|CHECK"),
    "comparison with itself": (
        rows_changed("comparisons", lambda t: t.set_column(1, "reference_run_id", t.column("prediction_run_id"))),
        "does not take|CHECK|no such row",
    ),
    "tolerance of two": (forged("validity_windows", "tolerance", 2.0), "between 0 and 1"),
    "window turned round": (forged("validity_windows", "certified_until", 1e9), "no interval|does not take"),
    "quantile of nobody": (forged("kernel_quantiles", "run_id", "1" * 64), "has no such row"),
    "quantile of a prediction": (quantile_of_a_prediction, "is no simulation or check that succeeded"),
    "quantile of a pair": (forged("kernel_quantiles", "component", "01"), "no diagonal entry"),
    "quantile of an entry written otherwise": (forged("kernel_quantiles", "component", "0-0"), "how a component"),
    "quantile at another probability": (forged("kernel_quantiles", "probability", 0.3), "must be one of 0.005"),
    "quantile of a layer below zero": (forged("kernel_quantiles", "layer", -1), "layer = -1"),
    "quantile below zero": (forged("kernel_quantiles", "value", -1.0), "between its bounds"),
    "quantile beside its bounds": (forged("kernel_quantiles", "high", 1e-9, row=1), "between its bounds"),
    "quantile without a number": (forged("kernel_quantiles", "value", None), "value: is missing"),
    "width below one": (forged("width_windows", "width_low", 0.5), "no interval of widths"),
    "widths turned round": (forged("width_windows", "width_low", 1e9), "no interval of widths"),
    "width that is never": (forged("width_windows", "status", "never"), "no interval of widths"),
    "width of no tolerance": (forged("width_windows", "tolerance", 1.0), "between 0 and 1"),
    "width of no layer": (forged("width_windows", "layer", -1), "layer = -1"),
    "width by a theory without the next order": (
        rows_changed("width_windows", by_another),
        "has no next order",
    ),
    "error of no quantity": (forged("error_metrics", "quantity", "K7"), "must be one of"),
}
BAD_CHECKS: dict[str, tuple[Callable[[Members], bytes], str]] = {
    "check of nobody": (forged("module_checks", "run_id", "1" * 64), "has no such row"),
    "check of a prediction": (check_of_a_prediction("module_checks"), "is no check that succeeded"),
    "block of a prediction": (check_of_a_prediction("checked_blocks"), "is no check"),
    "check of another module": (forged("module_checks", "module", "Other"), "does not follow"),
    "check of another file": (forged("module_checks", "factory_digest", "1" * 64), "does not follow"),
    "check of no probability": (forged("module_checks", "p_value", 1.5), "between 0 and 1"),
    "check of no layer": (forged("module_checks", "first_deviating_layer", 5), "is the layer of no block"),
    "block of no layer": (forged("checked_blocks", "layer", 0), "is the layer of no block"),
    "block of no probability": (forged("checked_blocks", "p_value", -1.0), "between 0 and 1"),
    "block with a score that is none": (forged("checked_blocks", "largest_z", float("inf")), "finite"),
}


def test_the_corpus_is_large():
    assert len(BAD) >= 45


def test_the_good_one_is_taken(members: Members, empty: Database, tmp_path: Path):
    path = tmp_path / "good.zip"
    path.write_bytes(zipped(sealed(members)))
    assert import_archive(empty, path)["runs"] == 4


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_archive_gives_one_message_and_leaves_nothing(
    kind: str, members: Members, empty: Database, tmp_path: Path, count_rows
):
    make, word = BAD[kind]
    path = tmp_path / "bad.zip"
    path.write_bytes(make(members))
    before = count_rows(empty)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=word) as caught:
            import_archive(empty, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert len(said) < 600 + len(str(path))
    assert count_rows(empty) == before
    assert peak < 30e6, f"{peak / 1e6:.0f} MB to find out"
    assert {item.suffix for item in tmp_path.iterdir()} <= {".zip", ".db", ".db-wal", ".db-shm"}


def test_a_bad_check_gives_one_message_and_leaves_nothing(
    sqlite_db: Database, empty: Database, record_checked, tmp_path: Path, count_rows
):
    record_checked(sqlite_db)
    export_archive(sqlite_db, tmp_path / "good.zip")
    members, before = members_of(tmp_path / "good.zip"), count_rows(empty)
    for make, word in BAD_CHECKS.values():
        path = tmp_path / "bad.zip"
        path.write_bytes(make(members))
        with pytest.raises(InputError, match=word) as caught:
            import_archive(empty, path)
        assert "\n" not in str(caught.value)
        assert count_rows(empty) == before
    assert import_archive(empty, tmp_path / "good.zip")["checked_blocks"] == 4


def test_only_the_archive_that_was_meant(members: Members, empty: Database, tmp_path: Path, count_rows):
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(members))
    before = count_rows(empty)
    for wrong in ("0" * 64, "", "zz"):
        with pytest.raises(InputError, match="its sha256 is"):
            import_archive(empty, path, sha256=wrong)
    assert count_rows(empty) == before
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert import_archive(empty, path, sha256=f" {digest.upper()}\n")["runs"] == 4


def test_what_is_no_file_is_not_waited_for(empty: Database, tmp_path: Path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for wrong in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "none"):
        with pytest.raises(InputError, match="no such file"):
            import_archive(empty, wrong)


def test_numbers_forged_within_pass_and_the_design_says_so(members: Members, empty: Database, tmp_path: Path):
    """Its own checksums cannot tell: docs/design/security.md names the limit, and --sha256 the remedy."""
    path = tmp_path / "forged.zip"
    path.write_bytes(forged("trajectory_values", "value", 123.0)(members))
    assert import_archive(empty, path)["runs"] == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda spec: {**spec, "samples": spec["samples"][:1]}, "two different widths"),
        (lambda spec: {**spec, "exact": "no digest"}, "exact"),
        (lambda spec: {**spec, "exact": "0" * 64}, "does not follow"),
        (lambda spec: {**spec, "depths": [0, 8]}, "does not follow"),
    ],
)
def test_a_measurement_follows_from_what_it_names(
    sqlite_db: Database, empty: Database, record_measured, tmp_path: Path, change: Callable[[Any], Any], words: str
) -> None:
    record_measured(sqlite_db)
    export_archive(sqlite_db, tmp_path / "good.zip")
    with zipfile.ZipFile(tmp_path / "good.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    row = table_of(members, "runs").column("kind").to_pylist().index("measurement")
    path = tmp_path / "forged.zip"
    path.write_bytes(json_changed("runs", "spec", change, row=row)(members))
    with pytest.raises(InputError, match=words):
        import_archive(empty, path)
