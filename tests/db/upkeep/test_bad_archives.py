"""Archives that are damaged, forged or hostile: one message each, no traceback, and nothing of them stays."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import itertools
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from db.session import Database
from db.upkeep.archive import TABLES
from db.upkeep.exporting import export_archive
from db.upkeep.importing import import_archive
from eftcore.errors import InputError
from eftcore.identity import digest_of

Members = dict[str, bytes]


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
        good.update(_members(tmp_path / "good.zip"))
    return dict(good)


def _members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def empty(sqlite_template: Path, tmp_path: Path) -> Database:
    path = tmp_path / "empty.db"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{path}")
    yield database
    database.dispose()


def _zip(members: Members, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _sealed(members: Members) -> Members:
    """With checksums and counts that fit, as a forger would make them."""
    manifest = json.loads(members["manifest.json"])
    for moved in TABLES:
        data = members[f"{moved.name}.parquet"]
        manifest["sha256"][moved.name] = hashlib.sha256(data).hexdigest()
        with contextlib.suppress(pa.ArrowException, OSError):
            manifest["rows"][moved.name] = pq.ParquetFile(io.BytesIO(data)).metadata.num_rows
    return {**members, "manifest.json": json.dumps(manifest).encode()}


def _table(members: Members, name: str) -> pa.Table:
    return pq.read_table(io.BytesIO(members[f"{name}.parquet"]))


def _with(members: Members, name: str, table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return _zip(_sealed({**members, f"{name}.parquet": file.getvalue()}))


def _forged(name: str, column: str, value: Any, kind: pa.DataType | None = None, row: int = 0):
    """One value of one row is another one; with ``kind``, the whole column is of another type."""

    def make(members: Members) -> bytes:
        table = _table(members, name)
        position = table.schema.get_field_index(column)
        values = table.column(column).to_pylist()
        old = values[row]
        values[row] = value(old) if callable(value) else value
        if kind is not None:
            values = [values[row]] * len(values)
        array = pa.array(values, kind or table.schema.field(position).type)
        return _with(members, name, table.set_column(position, column, array))

    return make


def _json(name: str, column: str, change: Callable[[Any], Any], row: int = 0):
    def changed(text: str) -> str:
        value = copy.deepcopy(json.loads(text))
        return json.dumps(change(value))

    return _forged(name, column, changed, row=row)


def _rows(name: str, change: Callable[[pa.Table], pa.Table]):
    return lambda members: _with(members, name, change(_table(members, name)))


def _more(table: pa.Table, column: str) -> pa.Table:
    """One more in every row that has a number there."""
    position = table.schema.get_field_index(column)
    values = [None if value is None else value + 1 for value in table.column(column).to_pylist()]
    return table.set_column(position, column, pa.array(values, table.schema.field(position).type))


def _by_another(table: pa.Table) -> pa.Table:
    """Widths that follow from a prediction without the next order, it says."""
    references = set(table.column("reference_run_id").to_pylist())
    other = next(run for run in table.column("prediction_run_id").to_pylist() if run not in references)
    position = table.schema.get_field_index("reference_run_id")
    return table.set_column(position, "reference_run_id", pa.array([other] * len(table), pa.string()))


def _manifest(change: Callable[[dict[str, Any]], Any]):
    def make(members: Members) -> bytes:
        manifest = json.loads(members["manifest.json"])
        changed = change(manifest)
        return _zip({**members, "manifest.json": json.dumps(manifest if changed is None else changed).encode()})

    return make


def _said_to_be_of_format_3(members: Members) -> bytes:
    """With the tables of that format, but not its columns."""
    manifest = {**json.loads(members["manifest.json"]), "format": 3}
    later = ("kernel_quantiles", "width_windows", "module_checks", "checked_blocks")
    for part, name in itertools.product(("rows", "sha256"), later):
        del manifest[part][name]
    older = {name: data for name, data in members.items() if PurePath(name).stem not in later}
    return _zip({**older, "manifest.json": json.dumps(manifest).encode()})


def _member(name: str, data: bytes | None):
    def make(members: Members) -> bytes:
        others = {key: value for key, value in members.items() if key != name}
        return _zip(others if data is None else {**others, name: data})

    return make


def _garbled(offset: int):
    def make(members: Members) -> bytes:
        whole = bytearray(_zip(members))
        whole[offset : offset + 8] = b"\xff" * 8
        return bytes(whole)

    return make


def _encrypted(members: Members) -> bytes:
    whole = bytearray(_zip(members))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = whole.find(mark)
        while start >= 0:
            whole[start + place] |= 1
            start = whole.find(mark, start + 4)
    return bytes(whole)


def _lying_size(members: Members) -> bytes:
    """The directory says that the manifest is small; it is not."""
    whole = bytearray(_zip({**members, "manifest.json": b" " * 500_000}))
    start = whole.rfind(b"PK\x01\x02")
    whole[start + 24 : start + 28] = struct.pack("<I", 100)
    return bytes(whole)


def _twice(members: Members) -> bytes:
    file = io.BytesIO(_zip(members))
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("runs.parquet", members["runs.parquet"])
    return file.getvalue()


def _quantile_of_a_prediction(members: Members) -> bytes:
    kinds, digests = (_table(members, "runs").column(name).to_pylist() for name in ("kind", "digest"))
    return _forged("kernel_quantiles", "run_id", digests[kinds.index("prediction")])(members)


def _check_of_a_prediction(table: str):
    def make(members: Members) -> bytes:
        kinds, digests = (_table(members, "runs").column(name).to_pylist() for name in ("kind", "digest"))
        return _forged(table, "run_id", digests[kinds.index("prediction")])(members)

    return make


def _deep(text: str) -> str:
    return "{" + '"a":{' * 100_000 + "}" * 100_001


def _other_kernel(members: Members) -> bytes:
    """A kernel with a digest of its own that is no kernel: not positive semi-definite."""
    matrix = [[1.0, 3.0], [3.0, 1.0]]
    table = _table(members, "input_kernels")
    row = {**table.to_pylist()[0], "matrix": json.dumps(matrix), "digest": digest_of({"matrix": matrix})}
    return _with(members, "input_kernels", pa.Table.from_pylist([row], schema=table.schema))


NEWER = "newer than this program"
BAD: dict[str, tuple[Callable[[Members], bytes], str]] = {
    # the file
    "nothing": (lambda members: b"", "not an archive"),
    "text": (lambda members: b"not a zip", "not an archive"),
    "cut in half": (lambda members: _zip(members)[: len(_zip(members)) // 2], "not an archive"),
    "end garbled": (lambda members: _zip(members)[:-30] + bytes(30), "not an archive"),
    "start garbled": (_garbled(0), "not an archive|damaged"),
    "middle garbled": (_garbled(3000), "damaged"),
    "compressed": (lambda members: _zip(members, zipfile.ZIP_DEFLATED), "compressed"),
    "packed by lzma": (lambda members: _zip(members, zipfile.ZIP_LZMA), "compressed"),
    "encrypted": (_encrypted, "encrypted"),
    "bomb": (lambda m: _zip({**m, "runs.parquet": bytes(50_000_000)}, zipfile.ZIP_DEFLATED), "compressed"),
    "a name twice": (_twice, "a name twice|holds"),
    "a path that leads out": (_member("../../evil.parquet", b"x"), "holds '../../evil.parquet'"),
    "a table too few": (_member("runs.parquet", None), "runs.parquet is missing"),
    "no manifest": (_member("manifest.json", None), "manifest.json is missing"),
    # the manifest
    "manifest of spaces": (_member("manifest.json", b" " * 30_000_000), "manifest has 30000000 bytes"),
    "manifest that lies of its size": (_lying_size, "damaged|not an archive"),
    "manifest no JSON": (_member("manifest.json", b"{"), "not an archive"),
    "manifest no UTF-8": (_member("manifest.json", b'{"format": "\xff"}'), "not an archive"),
    "manifest a list": (_manifest(lambda m: [m]), "no format"),
    "manifest a number": (_manifest(lambda m: 2), "no format"),
    "manifest nested": (_member("manifest.json", b"[" * 90_000), "not an archive"),
    "newer format": (_manifest(lambda m: m.update(format=12)), NEWER),
    "format of text": (_manifest(lambda m: m.update(format="2")), "no format"),
    "format true": (_manifest(lambda m: m.update(format=True)), "no format"),
    "format 0": (_manifest(lambda m: m.update(format=0)), "no archive format 0"),
    "format 9 said of 11": (
        _manifest(lambda m: m.update(format=9)),
        "holds '.*.parquet'",
    ),
    "format 3 said of 5": (_said_to_be_of_format_3, "worker_seconds, of a later format"),
    "no checksums": (_manifest(lambda m: m.pop("sha256") and None), "does not list our tables"),
    "checksums a list": (_manifest(lambda m: m.update(sha256=[])), "does not list our tables"),
    "another table": (_manifest(lambda m: m["rows"].update(x=1)), "does not list our tables"),
    "rows below zero": (_manifest(lambda m: m["rows"].update(runs=-1)), "has -1 rows"),
    "rows that are not there": (_manifest(lambda m: m["rows"].update(runs=10**8)), "rows, its manifest says"),
    "checksum of another": (_manifest(lambda m: m["sha256"].update(runs="0" * 64)), "checksum differs"),
    # the tables
    "table no Parquet": (lambda m: _zip(_sealed({**m, "runs.parquet": b"PAR1xPAR1"})), "damaged"),
    "table empty": (lambda m: _zip(_sealed({**m, "runs.parquet": b""})), "damaged"),
    "column unknown": (_rows("runs", lambda t: t.append_column("x", pa.array([1] * len(t)))), "update the program"),
    "column missing": (_rows("runs", lambda t: t.drop_columns(["kind"])), "lacks kind"),
    "column twice": (_rows("runs", lambda t: t.append_column("kind", t.column("kind"))), "twice"),
    "depth of text": (_forged("model_configurations", "depth", "abc", pa.string()), "of type string"),
    "depth a fraction": (_forged("model_configurations", "depth", 8.5, pa.float64()), "of type double"),
    "matrix of numbers": (_forged("input_kernels", "matrix", 1.0, pa.float64()), "of type double"),
    # values
    "depth another": (_forged("model_configurations", "depth", 9), "does not follow"),
    "depth below one": (_forged("model_configurations", "depth", -1), "depth = -1"),
    "depth too large": (_forged("model_configurations", "depth", 2**40), "out of range"),
    "epsilon not a number": (_forged("model_configurations", "epsilon", float("nan")), "finite"),
    "activation with markup": (_forged("model_configurations", "activation", "<script>(x)"), "is no name"),
    "activation changed": (_forged("model_configurations", "activation", "erf"), "does not follow"),
    "parameters of an activation": (_forged("model_configurations", "activation", "softplus(x=1)"), "unknown param"),
    "hidden neurons of one matrix": (_forged("model_configurations", "hidden_ratio", 1.0), "does not follow"),
    "another block": (_forged("model_configurations", "block", "two_matrix"), "does not follow"),
    "no such block": (_forged("model_configurations", "block", "three"), "block = 'three'"),
    "another normalisation": (_forged("model_configurations", "normalisation", "rms"), "does not follow"),
    "total time another": (_forged("model_configurations", "total_time", 77.0), "does not follow"),
    "kernel that is none": (_other_kernel, "not positive semi-definite"),
    "kernel changed": (_json("input_kernels", "matrix", lambda m: [[3.0, 0.6], [0.6, 2.0]]), "does not follow"),
    "kernel no matrix": (_json("input_kernels", "matrix", lambda m: {"a": 1}), "another kind"),
    "kernel of text": (_json("input_kernels", "matrix", lambda m: [["a", "b"], ["c", "d"]]), "matrix"),
    "kernel nested": (_forged("input_kernels", "matrix", lambda t: "[" * 100_000), "damaged"),
    "kernel no JSON": (_forged("input_kernels", "matrix", "{"), "damaged"),
    "label with a NUL": (_forged("input_kernels", "label", "a\0b"), "no text"),
    "label of a megabyte": (_forged("input_kernels", "label", "x" * 1_000_001), "too long"),
    "study name that leads out": (_forged("studies", "name", "../../etc/passwd"), "no study file may have"),
    "study name with a line": (_forged("studies", "name", "a\nb"), "no study file may have|no text"),
    "study name of an option": (_forged("studies", "name", "--db"), "no study file may have"),
    "study name empty": (_forged("studies", "name", ""), "no study file may have"),
    "study name too long": (_forged("studies", "name", "a" * 81), "no study file may have"),
    "study that asks for nothing": (_forged("studies", "runs_asked", 0), "runs_asked = 0: must be at least 1"),
    "digest no digest": (_forged("studies", "digest", "zz"), "no digest"),
    "digest of a run another": (_forged("runs", "digest", "0" * 64), "does not follow"),
    "row twice": (_rows("studies", lambda t: pa.concat_tables([t, t])), "twice"),
    "status unknown": (_forged("runs", "status", "done"), "must be one of"),
    "status unfinished": (_forged("runs", "status", "running"), "finished"),
    "kind unknown": (_forged("runs", "kind", "guess"), "must be one of"),
    "algorithm of tomorrow": (_forged("runs", "algorithm_version", 999), "update the program"),
    "algorithm of before": (_forged("runs", "algorithm_version", 0), "algorithm_version = 0"),
    "spec with a field more": (_json("runs", "spec", lambda s: {**s, "extra": 1}), "extra"),
    "spec nested": (_forged("runs", "spec", _deep), "damaged"),
    "spec changed": (_json("runs", "spec", lambda s: {**s, "depths": [0, 8]}), "does not follow"),
    "run of no configuration": (_forged("runs", "configuration_id", "1" * 64), "has no such row"),
    "run that extends nothing": (_forged("runs", "extends_run_id", "1" * 64), "has no such row"),
    "samples another": (_rows("runs", lambda t: _more(t, "samples")), "does not follow"),
    "width another": (_rows("runs", lambda t: _more(t, "width")), "does not follow"),
    "time of the pharaohs": (_forged("runs", "started_at", __import__("datetime").datetime(1, 1, 1)), "no time"),
    "trajectory too short": (_forged("kernel_trajectories", "data", b"12345678"), "bytes"),
    "trajectory of more layers": (_forged("kernel_trajectories", "n_layers", 3), "does not follow"),
    "trajectory of nobody": (_forged("kernel_trajectories", "run_id", "1" * 64), "has no such row"),
    "component unknown": (_forged("trajectory_values", "component", "x; DROP"), "component"),
    "layer below zero": (_forged("trajectory_values", "layer", -1), "layer = -1"),
    "value and its mark": (_forged("trajectory_values", "value_nonfinite", "nan"), "does not take|CHECK"),
    "comparison with itself": (
        _rows("comparisons", lambda t: t.set_column(1, "reference_run_id", t.column("prediction_run_id"))),
        "does not take|CHECK|no such row",
    ),
    "tolerance of two": (_forged("validity_windows", "tolerance", 2.0), "between 0 and 1"),
    "window turned round": (_forged("validity_windows", "certified_until", 1e9), "no interval|does not take"),
    "quantile of nobody": (_forged("kernel_quantiles", "run_id", "1" * 64), "has no such row"),
    "quantile of a prediction": (_quantile_of_a_prediction, "is no simulation or check that succeeded"),
    "quantile of a pair": (_forged("kernel_quantiles", "component", "01"), "no diagonal entry"),
    "quantile of an entry written otherwise": (_forged("kernel_quantiles", "component", "0-0"), "how a component"),
    "quantile at another probability": (_forged("kernel_quantiles", "probability", 0.3), "must be one of 0.005"),
    "quantile of a layer below zero": (_forged("kernel_quantiles", "layer", -1), "layer = -1"),
    "quantile below zero": (_forged("kernel_quantiles", "value", -1.0), "between its bounds"),
    "quantile beside its bounds": (_forged("kernel_quantiles", "high", 1e-9, row=1), "between its bounds"),
    "quantile without a number": (_forged("kernel_quantiles", "value", None), "value: is missing"),
    "width below one": (_forged("width_windows", "width_low", 0.5), "no interval of widths"),
    "widths turned round": (_forged("width_windows", "width_low", 1e9), "no interval of widths"),
    "width that is never": (_forged("width_windows", "status", "never"), "no interval of widths"),
    "width of no tolerance": (_forged("width_windows", "tolerance", 1.0), "between 0 and 1"),
    "width of no layer": (_forged("width_windows", "layer", -1), "layer = -1"),
    "width by a theory without the next order": (
        _rows("width_windows", _by_another),
        "has no next order",
    ),
    "error of no quantity": (_forged("error_metrics", "quantity", "K7"), "must be one of"),
}


BAD_CHECKS: dict[str, tuple[Callable[[Members], bytes], str]] = {
    "check of nobody": (_forged("module_checks", "run_id", "1" * 64), "has no such row"),
    "check of a prediction": (_check_of_a_prediction("module_checks"), "is no check that succeeded"),
    "block of a prediction": (_check_of_a_prediction("checked_blocks"), "is no check"),
    "check of another module": (_forged("module_checks", "module", "Other"), "does not follow"),
    "check of another file": (_forged("module_checks", "factory_digest", "1" * 64), "does not follow"),
    "check of no probability": (_forged("module_checks", "p_value", 1.5), "between 0 and 1"),
    "check of no layer": (_forged("module_checks", "first_deviating_layer", 5), "is the layer of no block"),
    "block of no layer": (_forged("checked_blocks", "layer", 0), "is the layer of no block"),
    "block of no probability": (_forged("checked_blocks", "p_value", -1.0), "between 0 and 1"),
    "block with a score that is none": (_forged("checked_blocks", "largest_z", float("inf")), "finite"),
}


def test_the_corpus_is_large():
    assert len(BAD) >= 45


def test_the_good_one_is_taken(members: Members, empty: Database, tmp_path: Path):
    path = tmp_path / "good.zip"
    path.write_bytes(_zip(_sealed(members)))
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
    members, before = _members(tmp_path / "good.zip"), count_rows(empty)
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
    path.write_bytes(_zip(members))
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
    path.write_bytes(_forged("trajectory_values", "value", 123.0)(members))
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
    row = _table(members, "runs").column("kind").to_pylist().index("measurement")
    path = tmp_path / "forged.zip"
    path.write_bytes(_json("runs", "spec", change, row=row)(members))
    with pytest.raises(InputError, match=words):
        import_archive(empty, path)
