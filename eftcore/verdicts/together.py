"""What several validity windows say together.

Each window holds with 95 % confidence, so among many windows of theories that do hold a few are refuted by noise alone.
"""

from __future__ import annotations

from typing import Literal

from scipy.special import bdtrc

from eftcore.ensemble.bands import CONFIDENCE

State = Literal["beyond", "bounded", "undecided", "too_noisy", "mixed"]

CHANCE = 1 - CONFIDENCE
"""Probability from which on a number of refutations counts as noise, and that one true window is refuted."""


def refuted_by_chance(refuted: int, windows: int) -> float:
    """Probability that noise alone refutes so many of these windows, all of theories that hold (at most).

    It is a binomial tail with the probability 1 - 0.95 for each window, as if their references were independent.

    >>> round(refuted_by_chance(1, 26), 2), round(refuted_by_chance(6, 26), 4)
    (0.74, 0.0015)
    """
    return float(bdtrc(refuted - 1, windows, CHANCE)) if refuted else 1.0


def state_together(beyond: int, bounded: int, undecided: int, too_noisy: int) -> State:
    """The state of several windows, from how many have each status; a single window keeps its own.

    It is the status of more than half of them; "mixed" where none has so many, or where most are not refuted and yet
    more are than noise refutes in one of twenty cases.

    >>> [state_together(*counts) for counts in ((0, 1, 0, 25), (24, 1, 0, 1), (18, 8, 0, 0), (0, 1, 0, 0))]
    ['too_noisy', 'beyond', 'mixed', 'bounded']
    """
    counts: dict[State, int] = {
        "beyond": beyond,
        "bounded": bounded,
        "undecided": undecided,
        "too_noisy": too_noisy,
    }
    windows = sum(counts.values())
    most = max(counts, key=counts.__getitem__)
    if 2 * counts[most] <= windows:
        return "mixed"
    surely = refuted_by_chance(bounded, windows) < CHANCE
    return "mixed" if surely and most != "bounded" else most
