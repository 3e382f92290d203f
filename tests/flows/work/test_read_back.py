"""Whatever lies in the folder of results is data: nothing that is read back chooses how it is read, or runs."""

from __future__ import annotations

import ast
import io
import pickle
import zipfile
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from eftcore.errors import EnvironmentProblem
from flows.study.expansion import load_study
from flows.work.store import ResultStore
from tests.flows import warm

ROOT = Path(__file__).parents[3]
PACKAGES = ("eftcore", "db", "flows", "ui")
UNSAFE = {"pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib", "yaml"}
SAFE = {("yaml", "safe_load")}
"""What such a module has that makes nothing but plain data."""
DIGEST = "ab" * 32


class Payload:
    """Creates a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def _records(folder: Path, names: list[str], mark: Path) -> None:
    """Prefect's stored results of these keys, which ask to be read with pickle."""
    from prefect.results import ResultRecord, ResultRecordMetadata
    from prefect.serializers import PickleSerializer

    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        metadata = ResultRecordMetadata(serializer=PickleSerializer(), storage_key=str(folder / name))
        record = ResultRecord(result=Payload(mark), metadata=metadata)
        (folder / name).write_bytes(record.serialize())


def test_a_planted_result_of_prefect_is_never_read(connected: dict[str, str], tiny: Path, tmp_path: Path):
    home, mark = Path(connected["EFT_HOME"]), tmp_path / "it-ran"
    first = warm.run(connected, "run", str(tiny))
    assert "12 computed" in first.stdout, first.stderr
    study = load_study(tiny)
    digests = {path.stem for path in home.glob("arrays/*/*.npz")} | set(study.predictions) | set(study.simulations)
    keys = [f"{task}-{digest}" for task in ("predict", "simulate", "merge", "compare", "record") for digest in digests]
    kept = {path.name for folder in ("results", "prefect/storage") for path in (home / folder).glob("*")}
    for folder in ("results", "prefect/storage"):
        _records(home / folder, sorted({*keys, *kept, uuid4().hex}), mark)
    hostile = {**connected, "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true"}
    again = warm.run(hostile, "run", str(tiny))
    assert "12 tasks cached, 0 computed" in again.stdout, again.stderr
    assert not mark.exists(), "a pickle from the folder of results was executed"
    assert not kept, "Prefect keeps no result"


def _npz(**members: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **members)  # type: ignore[arg-type]
    return file.getvalue()


def test_arrays_of_objects_in_our_own_store_are_refused(tmp_path: Path):
    store, mark = ResultStore(tmp_path / "arrays"), tmp_path / "it-ran"
    store.path(DIGEST).parent.mkdir(parents=True)
    meta = np.frombuffer(b"{}", dtype=np.uint8)
    objects = np.array([Payload(mark)], dtype=object)
    bare = io.BytesIO()
    np.save(bare, objects)
    pickled = pickle.dumps(Payload(mark))
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("meta.json.npy", pickled)
    for planted in (_npz(**{"meta.json": meta, "mean": objects}), bare.getvalue(), pickled, raw.getvalue()):
        store.path(DIGEST).write_bytes(planted)
        with pytest.raises(EnvironmentProblem, match="missing or damaged"):
            store.load(DIGEST)
    assert not mark.exists()


@pytest.mark.parametrize("meta", [b"\xff\xfe", b"not json", b"[1, 2]", b"3"])
def test_what_describes_a_stored_result_is_a_json_object(tmp_path: Path, meta: bytes):
    store = ResultStore(tmp_path / "arrays")
    store.path(DIGEST).parent.mkdir(parents=True)
    store.path(DIGEST).write_bytes(_npz(**{"meta.json": np.frombuffer(meta, dtype=np.uint8)}))
    with pytest.raises(EnvironmentProblem, match="missing or damaged"):
        store.load(DIGEST)


def _unsafe(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [item.name for item in node.names if item.name.split(".")[0] in UNSAFE]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE:
            found += [f"{node.module}.{item.name}" for item in node.names if (node.module, item.name) not in SAFE]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            if called in ("eval", "exec", "torch.load", "pd.read_pickle") or (
                called in ("np.load", "numpy.load") and options.get("allow_pickle") != "False"
            ):
                found.append(ast.unparse(node))
    return found


def test_no_module_of_ours_reads_a_format_that_can_run_code():
    found = {
        str(path.relative_to(ROOT)): unsafe
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if (unsafe := _unsafe(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert found == {}
