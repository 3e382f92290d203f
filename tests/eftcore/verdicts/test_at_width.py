"""Windows in depth at one width: the definition, both limits, and agreement with windows in width."""

from __future__ import annotations

import numpy as np
import pytest

import eftcore as eft
from eftcore.errors import InputError
from eftcore.results import Theory
from eftcore.verdicts.at_width import windows_at_width
from eftcore.verdicts.widths import widths_of

MODEL = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=0.2, depth=25)
KERNEL = eft.InputKernel.explicit([[1.0]])
DEPTHS = tuple(range(26))


@pytest.fixture(scope="module")
def exact() -> Theory:
    return eft.predict(MODEL, KERNEL, "exact", next_order=True, truncation=1e-3, depths=DEPTHS)


def _windows(theory: Theory, exact: Theory, width: int, tolerance: float) -> dict[str, dict[str, object]]:
    rows = windows_at_width(theory, exact, width, [tolerance]).set_index("quantity")
    return {str(name): dict(row) for name, row in rows.iterrows()}


@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_the_ends_are_where_the_error_passes_the_tolerance(exact: Theory, width: int) -> None:
    assert exact.covariance_next is not None
    x0, x1 = exact.covariance[:, 0, 0], exact.covariance_next[:, 0, 0]
    error = np.abs(x1 / width) / np.abs(x0 + x1 / width)
    ends = exact.time[1:][error[1:] > 0.1]
    window = _windows(exact, exact, width, 0.1)["V4"]
    if not len(ends):
        assert window["status"] == "beyond"
        return
    assert window["certified_until"] < ends[0] <= window["refuted_from"]
    # what the expansion leaves out is 10 % of an error of 10 %, and the error grows from layer to layer
    assert window["refuted_from"] - window["certified_until"] < 0.4 * ends[0]


@pytest.mark.parametrize("closure", ["source_only", "g_only"])
def test_very_wide_networks_have_the_windows_of_infinite_ones(exact: Theory, closure: str) -> None:
    theory = eft.predict(MODEL, KERNEL, closure, depths=DEPTHS)
    wanted = eft.compare(theory, exact, [0.05]).windows.set_index("quantity")
    for quantity, window in _windows(theory, exact, 10**9, 0.05).items():
        assert window["finite_width"]
        assert window["status"] == wanted.loc[quantity, "status"]
        for name in ("certified_until", "refuted_from"):
            assert window[name] == pytest.approx(wanted.loc[quantity, name], nan_ok=True)


def test_windows_in_depth_and_in_width_agree(exact: Theory) -> None:
    widths = widths_of(exact, exact, [0.05]).query("quantity == 'V4' and time > 0")
    for width in (32, 128, 512):
        window = _windows(exact, exact, width, 0.05)["V4"]
        # n* grows with depth here: at a certified depth n* cannot lie above this width, at a refuted one not below
        certified = widths[widths["time"] <= np.nan_to_num(window["certified_until"])]
        assert (certified["width_low"] <= width).all()
        if window["status"] == "bounded":
            assert widths.loc[widths["time"] == window["refuted_from"], "width_high"].item() >= width


def test_without_the_next_order_finite_width_is_known_of_k0_alone(exact: Theory) -> None:
    plain = eft.predict(MODEL, KERNEL, "exact", truncation=1e-3, depths=DEPTHS)
    windows = _windows(plain, plain, 4, 0.05)
    assert {name: window["finite_width"] for name, window in windows.items()} == {"K0": True, "V4": False, "K1": False}
    assert windows["K0"]["status"] == "bounded"
    assert windows["V4"]["status"] == "beyond"
    added = windows_at_width(plain, plain, 4, [0.05], following=exact).set_index("quantity")
    assert added["finite_width"].all()
    assert added.loc["V4", "status"] == "bounded"


def test_what_is_not_known_decides_nothing(exact: Theory) -> None:
    unsure = eft.predict(MODEL, KERNEL, "exact", next_order=True, truncation=1e-3, depths=DEPTHS)
    unsure.details["truncation_error"] = {**unsure.details["truncation_error"], "D": np.inf}
    assert _windows(unsure, unsure, 64, 0.05)["V4"]["status"] == "too_noisy"
    assert _windows(exact, exact, 64, 0.05)["V4"]["status"] == "bounded"


def test_wrong_inputs_are_refused(exact: Theory) -> None:
    with pytest.raises(InputError, match="at least 1"):
        windows_at_width(exact, exact, 0)
    other = eft.predict(MODEL, KERNEL, "g_only", depths=[0, 25])
    with pytest.raises(InputError, match="other layers"):
        windows_at_width(other, exact, 64)
