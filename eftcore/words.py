"""How verdicts are written for people, the same in the terminal, on pages and in reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

EARLY = 0.025
"""Fraction of T: a window that is resolved from a time below it counts as resolved from the start."""


def resolved_from(window: Mapping[Any, Any]) -> float:
    """Time from which a window says something, 0 where that is the start, or where it was recorded without one.

    >>> [resolved_from({"resolved_from": time, "total_time": 2.0}) for time in (0.8, 0.02)]
    [0.8, 0.0]
    """
    start = window.get("resolved_from")
    if start is None or math.isnan(start) or start <= EARLY * window["total_time"]:
        return 0.0
    return float(start)


def window_text(window: Mapping[Any, Any]) -> str:
    """A validity window t* in words, from status, resolved_from, certified_until, refuted_from and total_time of a row.

    >>> base = {"resolved_from": 0.01, "total_time": 2.0, "refuted_from": 0.28}
    >>> window_text({**base, "status": "bounded", "certified_until": 0.16})
    '0.16 - 0.28'
    >>> window_text({**base, "status": "bounded", "certified_until": None})
    '< 0.28'
    >>> window_text({**base, "status": "beyond", "certified_until": 2.0, "resolved_from": 0.8})
    '> 2 (seen from 0.8)'
    >>> window_text({**base, "status": "undecided", "certified_until": 0.4}), window_text({"status": "too_noisy"})
    ('> 0.4 ?', 'not resolved')
    """
    if window["status"] == "too_noisy":
        return "not resolved"
    certified = window["certified_until"]
    known = certified is not None and not math.isnan(certified)
    start = resolved_from(window)
    seen = f" (seen from {start:.4g})" if start and known else ""
    match window["status"]:
        case "bounded":
            refuted = window["refuted_from"]
            return f"{certified:.4g} - {refuted:.4g}{seen}" if known else f"< {refuted:.4g}"
        case "beyond":
            return f"> {window['total_time']:.4g}{seen}"
        case _:
            return f"> {certified:.4g} ?{seen}" if known else "undecided"
