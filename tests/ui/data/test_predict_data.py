"""Instant predictions: the numbers of eft.predict, windows that the truncation cannot change, and uploads."""

from __future__ import annotations

import importlib
import io
import re
from dataclasses import replace

import numpy as np
import pytest

import eftcore as eft
from eftcore.errors import InputError
from ui.data.costs import expected_seconds, quick_part
from ui.data.predict import (
    kernel_from_table,
    layers_of,
    predictions,
    stages_of,
    table_from_upload,
    trajectories_frame,
    values_frame,
    windows_frame,
)

MODEL = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=100)
KERNEL = eft.InputKernel.equicorrelated(n_inputs=2, variance=2.0, correlation=0.3)


@pytest.fixture(scope="module")
def quick() -> dict[str, eft.Theory]:
    return dict(predictions(MODEL, KERNEL, ("g_only", "sigma")))


def test_closures_are_those_of_predict(quick: dict[str, eft.Theory]) -> None:
    assert list(quick) == ["mean", "source_only", "g_only", "sigma"]
    for name, theory in quick.items():
        wanted = eft.predict(MODEL, KERNEL, name, depths=theory.spec.depths)
        for attribute in ("mean", "covariance", "correction"):
            mine, true = getattr(theory, attribute), getattr(wanted, attribute)
            assert (mine is None) == (true is None)
            if mine is not None:
                assert mine == pytest.approx(true, rel=1e-4, abs=1e-6)


def test_closures_share_k0_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    solved: list[int] = []

    def counted(*arguments: object) -> object:
        solved.append(1)
        return solve(*arguments)

    module = importlib.import_module("eftcore.theory.mean_field")
    solve = module._solve
    monkeypatch.setattr(module, "_solve", counted)
    together = dict(predictions(MODEL, KERNEL, ("g_only", "sigma")))
    shared = len(solved)
    for name in ("source_only", "g_only", "sigma"):
        alone = eft.predict_spec(together[name].spec)
        for attribute in ("mean", "covariance", "correction", "source"):
            mine, other = getattr(together[name], attribute), getattr(alone, attribute)
            assert (mine is None) == (other is None)
            assert mine is None or np.array_equal(mine, other)
        assert alone.numerical_error == together[name].numerical_error
    assert shared < len(solved) - shared


def test_a_prediction_that_there_is_not_says_why_and_the_others_come() -> None:
    wild = eft.ResNet(activation="relu", weight_variance=50.0, epsilon=1.0, depth=800)
    found = dict(predictions(wild, eft.InputKernel.explicit([[1.0]]), ("g_only", "exact")))
    assert {name: type(part) for name, part in found.items()} == {"g_only": InputError, "exact": InputError}


def test_long_predictions_are_split_off() -> None:
    stages = stages_of(MODEL, next_order=True)
    assert stages == ("g_only", "sigma", "exact", "next")
    assert quick_part(MODEL, KERNEL, stages, 10.0) == (stages, ())
    many = eft.InputKernel.equicorrelated(n_inputs=16, variance=2.0, correlation=0.3)
    deep = eft.ResNet(activation="gelu", weight_variance=2.0, epsilon=0.1, depth=500)
    assert quick_part(deep, many, stages, 10.0) == (("g_only",), ("sigma", "exact", "next"))
    assert expected_seconds(deep, many, ["exact"]) > 60
    two = MODEL.model_copy(update={"block": "two_matrix"})
    assert stages_of(two, next_order=False) == ("g_only", "exact")
    assert all(expected_seconds(model, many, ["exact"]) > 0 for model in (two, deep, MODEL))


def test_frame_holds_the_entries_asked_for(quick: dict[str, eft.Theory]) -> None:
    frame = trajectories_frame(quick, None, ["01", "00,11"])
    g_only = frame[(frame["closure"] == "g_only") & (frame["quantity"] == "V4")]
    assert g_only["component"].unique().tolist() == ["00,11"]
    covariance = quick["g_only"].covariance
    assert covariance is not None
    assert g_only["predicted"].to_numpy() == pytest.approx(covariance[:, 0, 2])
    assert frame["simulated"].isna().all()


def test_windows_count_what_finite_width_adds_where_it_is_known(quick: dict[str, eft.Theory]) -> None:
    theories = {**quick, **dict(predictions(MODEL, KERNEL, ("exact",)))}
    exact = theories["exact"]
    table = windows_frame(theories, exact, 64).set_index(["closure", "quantity"])
    assert table.loc["exact"].index.tolist() == ["K0"], "the exact closure is its own reference but for finite width"
    assert table["for networks"].to_dict() == {
        key: "n = 64" if key[1] == "K0" else "n → ∞" for key in table.index.tolist()
    }
    assert table.loc[("sigma", "V4"), "τ = 0.05"] == "> 1"
    assert table.loc[("g_only", "K1"), "τ = 0.1"].startswith("< 0.")
    wide, thin = (windows_frame(theories, exact, width).set_index(["closure", "quantity"]) for width in (4096, 1))
    assert wide.loc[("mean", "K0"), "τ = 0.01"] == "> 1"
    assert thin.loc[("mean", "K0"), "τ = 0.01"] != "> 1"
    # a reference that is itself uncertain by more than the tolerance decides nothing
    rough = replace(exact, details={**exact.details, "truncation_error": {"V4": 0.2, "K1": 0.2}})
    row = windows_frame(theories, rough, 64).set_index(["closure", "quantity"]).loc[("sigma", "V4")]
    assert row["τ = 0.05"] == "not resolved"


def test_numbers_at_the_end(quick: dict[str, eft.Theory]) -> None:
    row = values_frame(quick, 64).set_index("closure").loc["g_only"]
    theory = quick["g_only"]
    assert theory.covariance is not None
    assert theory.correction is not None
    mean = theory.mean[-1, 0, 0] + theory.correction[-1, 0, 0] / 64
    assert float(row["E G[00] at n = 64"]) == pytest.approx(mean, rel=1e-5)
    assert float(row["s.d. of G[00]"]) == pytest.approx((theory.covariance[-1, 0, 0] / 64) ** 0.5, rel=1e-3)


def _npy(array: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array), allow_pickle=True)
    return file.getvalue()


def kernel_from_upload(name: str, content: bytes, *, gram: bool) -> eft.InputKernel:
    return kernel_from_table(table_from_upload(name, content), name, gram=gram)


def test_uploads_become_kernels() -> None:
    gram = [[2.0, 0.5], [0.5, 1.0]]
    assert kernel_from_upload("k.npy", _npy(gram), gram=True).matrix == ((2.0, 0.5), (0.5, 1.0))
    assert kernel_from_upload("x.csv", b"a,b\n1,1\n1,-1\n", gram=False).matrix == ((1.0, 0.0), (0.0, 1.0))
    assert kernel_from_upload("x.csv", "\ufeff1,1\n1,-1\n".encode(), gram=False).label == "x"


@pytest.mark.parametrize(
    ("name", "content", "gram"),
    [
        ("evil.npy", _npy(np.array([object()], dtype=object)), False),
        ("text.npy", b"import os", False),
        ("words.csv", b"a,b\nc,d\n", False),
        ("empty.csv", b"", False),
        ("asymmetric.csv", b"1,2\n3,4\n", True),
        ("negative.csv", b"1,2\n2,1\n", True),
        ("nan.csv", b"1,nan\nnan,1\n", True),
        ("complex.npy", _npy(np.array([[1 + 2j, 1], [1, 1 - 2j]])), False),
        ("many.npy", _npy(np.ones((17, 3))), False),
        ("large.npy", bytes(4_000_001), False),
    ],
)
@pytest.mark.filterwarnings("ignore:loadtxt. input contained no data")
def test_what_is_no_kernel_is_refused(name: str, content: bytes, gram: bool) -> None:
    with pytest.raises(InputError, match=rf"^{re.escape(name)}(: |\[| = )"):
        kernel_from_upload(name, content, gram=gram)


def test_depth_is_bounded() -> None:
    with pytest.raises(InputError, match="layers"):
        layers_of(1000.0, 0.001)
