"""Windows in depth and in width as people read them."""

from __future__ import annotations

import pytest

from eftcore.words import width_text, window_text

NAN = float("nan")


@pytest.mark.parametrize(
    ("status", "resolved", "certified", "refuted", "text"),
    [
        ("bounded", 0.02, 0.16, 0.28, "0.16 - 0.28"),
        ("bounded", NAN, 0.16, 0.28, "0.16 - 0.28"),
        ("bounded", 0.1, 0.16, 0.28, "0.16 - 0.28 (seen from 0.1)"),
        ("bounded", 0.02, NAN, 0.02, "< 0.02"),
        ("bounded", 0.5, None, 0.02, "< 0.02"),
        ("beyond", 0.02, 2.0, NAN, "> 2"),
        ("beyond", 0.8, 2.0, NAN, "> 2 (seen from 0.8)"),
        ("undecided", 0.02, 0.5, NAN, "> 0.5 ?"),
        ("undecided", 0.8, NAN, NAN, "undecided"),
        ("too_noisy", NAN, NAN, NAN, "not resolved"),
    ],
)
def test_each_status_has_its_own_text(status, resolved, certified, refuted, text):
    """Windows that older versions recorded have no time from which they are resolved."""
    window = {"resolved_from": resolved, "certified_until": certified, "refuted_from": refuted, "total_time": 2.0}
    assert window_text({**window, "status": status}) == text


@pytest.mark.parametrize(
    ("status", "width", "low", "high", "text"),
    [
        ("from", 16.2, 13.3, 20.4, "17 (14 - 21)"),
        ("from", 1.0, 1.0, 1.0, "1"),
        ("from", 1.4, 1.2, 1.9, "2"),
        ("never", None, None, None, "no width"),
        ("unknown", None, None, None, "not known"),
        ("between", None, 16.0, 64.0, "16 - 64"),
        ("above", None, 128.0, None, "> 128"),
        ("at_most", None, None, 8.0, "<= 8"),
    ],
)
def test_each_status_of_a_width_has_its_own_text(status, width, low, high, text):
    assert width_text({"status": status, "width": width, "width_low": low, "width_high": high}) == text
