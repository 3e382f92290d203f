"""The exceptions that callers are meant to catch."""

from __future__ import annotations


class EftError(Exception):
    """Base of every error this project raises on purpose."""


class InputError(EftError, ValueError):
    """An input of the user is wrong; the message names the field, the value and the remedy."""


class EnvironmentProblem(EftError, RuntimeError):
    """The computer or a service does not allow the work: the database, the disk or the device."""


class OutOfMemory(EnvironmentProblem):
    """The device has too little memory left, perhaps because another program uses it too."""


class NumericsWarning(UserWarning):
    """A requested numerical tolerance was not met; the result carries its error estimate."""


class TruncationWarning(NumericsWarning):
    """The Wick orders that a prediction leaves out may matter."""


class StepWarning(TruncationWarning):
    """The powers of epsilon that forward Euler leaves out may matter."""
