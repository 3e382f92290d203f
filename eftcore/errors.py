"""The exceptions that callers are meant to catch."""

from __future__ import annotations


class EftError(Exception):
    """Base of every error this project raises on purpose."""


class InputError(EftError, ValueError):
    """Something the user gave is wrong: names the field, the value and the remedy."""


class EnvironmentProblem(EftError, RuntimeError):
    """The surroundings do not allow the work: database, disk, device."""


class OutOfMemory(EnvironmentProblem):
    """The device has too little memory left, perhaps because another program uses it too."""


class NumericsWarning(UserWarning):
    """A requested numerical tolerance was not met; the result carries its error estimate."""


class TruncationWarning(NumericsWarning):
    """The Wick orders that a prediction leaves out may matter."""


class StepWarning(TruncationWarning):
    """The powers of epsilon that forward Euler leaves out may matter."""
