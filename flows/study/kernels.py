"""The ``[[kernel]]`` sections of a study file: where the input kernels come from.

Each section expands to one or more ``eftcore.InputKernel``. Whatever the source, a kernel's identity is its matrix:
moving a data file does not change the results that were computed from it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from eftcore.errors import InputError, Part, within
from eftcore.identity import Spec
from eftcore.inputs.fields import LONGEST_LABEL, printable
from eftcore.inputs.files import read_table
from eftcore.inputs.kernel import InputKernel, check_squares
from eftcore.inputs.sizes import MOST_INPUTS


def as_tuple(value: Any) -> Any:
    """A list as a tuple; a single value as a tuple of one value, which is a grid with one point."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True)]
Text = Annotated[str, Field(strict=True), AfterValidator(printable)]
ShortText = Annotated[str, Field(strict=True, max_length=LONGEST_LABEL), AfterValidator(printable)]

_grid = (BeforeValidator(as_tuple), Field(min_length=1))
Numbers = Annotated[tuple[Number, ...], *_grid]
Wholes = Annotated[tuple[Whole, ...], *_grid]
Texts = Annotated[tuple[Text, ...], *_grid]
"""One value, or a list of values that makes a grid."""


class Equicorrelated(Spec):
    """variance [(1 - correlation) I + correlation 1 1^T]; every field may be a list."""

    kind: Literal["equicorrelated"]
    n_inputs: Annotated[tuple[Annotated[Whole, Field(ge=1, le=MOST_INPUTS)], ...], *_grid]
    variance: Numbers
    correlation: Numbers

    def inputs(self) -> Counter[int]:
        """Number of kernels that the section gives, by number of inputs."""
        each = len(self.variance) * len(self.correlation)
        return Counter({n: each * repeated for n, repeated in Counter(self.n_inputs).items()})

    def kernels(self, folder: Path) -> tuple[InputKernel, ...]:
        """One kernel for each combination of the fields."""
        return tuple(
            InputKernel.equicorrelated(n_inputs=n, variance=variance, correlation=correlation)
            for n, variance, correlation in itertools.product(self.n_inputs, self.variance, self.correlation)
        )


class Explicit(Spec):
    """A matrix written out in the study file."""

    kind: Literal["explicit"]
    matrix: tuple[tuple[Number, ...], ...]
    label: ShortText = "explicit"

    def inputs(self) -> Counter[int]:
        """One kernel of so many inputs."""
        return Counter([len(self.matrix)])

    def kernels(self, folder: Path) -> tuple[InputKernel, ...]:
        """The matrix as a kernel."""
        return (InputKernel(matrix=[list(row) for row in self.matrix], label=self.label),)


class _RealInputs(Spec):
    """Inputs x_a with p features give K_ab = x_a . x_b / p; ``variance`` scales it to that mean diagonal."""

    variance: Annotated[Number, Field(gt=0)] | None = None

    def _kernel(self, rows: np.ndarray, label: str, *origin: Part) -> InputKernel:
        with within(*origin):
            check_squares(rows)
        if self.variance is not None:
            size = float(np.mean(rows**2))
            if size == 0:
                raise InputError(
                    "every input is zero", place="variance", value=self.variance, remedy="choose other inputs"
                )
            rows = rows * np.sqrt(self.variance / size)
            label = f"{label}, K={self.variance:g}"
        return InputKernel.from_data(rows, label=label)


class Digits(_RealInputs):
    """scikit-learn's bundled 8 x 8 images of handwritten digits, pixels in 0 .. 1.

    ``classes`` takes the first image of each class (a class named twice gives its second image too);
    ``indices`` takes images by their position among the 1797.
    """

    kind: Literal["digits"]
    classes: Annotated[tuple[Annotated[Whole, Field(ge=0, le=9)], ...], *_grid] | None = None
    indices: Annotated[tuple[Annotated[Whole, Field(ge=0, le=1796)], ...], *_grid] | None = None

    @model_validator(mode="after")
    def _one_choice(self) -> Digits:
        if (self.classes is None) == (self.indices is None):
            raise InputError(
                "one of two is needed",
                place="classes",
                remedy="give either classes (such as [0, 1, 8]) or indices (such as [10, 42])",
            )
        return self

    def inputs(self) -> Counter[int]:
        """One kernel of so many inputs."""
        return Counter([len(self.classes or self.indices or ())])

    def kernels(self, folder: Path) -> tuple[InputKernel, ...]:
        """One kernel of the chosen images."""
        from sklearn.datasets import load_digits

        images, classes = load_digits(return_X_y=True)
        if self.indices is not None:
            chosen = list(self.indices)
            label = _listed("digits images", chosen)
        else:
            assert self.classes is not None
            images_of = {wanted: iter(np.flatnonzero(classes == wanted).tolist()) for wanted in set(self.classes)}
            chosen = [next(images_of[wanted], -1) for wanted in self.classes]
            if -1 in chosen:
                short = self.classes[chosen.index(-1)]
                raise InputError(
                    f"{short} stands there {self.classes.count(short)} times, and there are"
                    f" {np.count_nonzero(classes == short)} images of it",
                    place="classes",
                    remedy="name it less often",
                )
            label = _listed("digits", self.classes)
        return (self._kernel(images[chosen] / 16.0, label, "indices" if self.classes is None else "classes"),)


class DataFile(_RealInputs):
    """A ``.npy`` or ``.csv`` file of real inputs, one row each; a relative path starts at the study file's folder.

    ``rows`` picks and orders rows, counted from 0; all of them when it is left out.
    """

    kind: Literal["file"]
    path: Text
    rows: Wholes | None = None
    label: ShortText | None = None

    def inputs(self) -> Counter[int]:
        """One kernel. Its number of inputs is that of ``rows`` or, before the file is read, taken as one."""
        return Counter([len(self.rows or (0,))])

    def kernels(self, folder: Path) -> tuple[InputKernel, ...]:
        """One kernel of the chosen rows. Raises InputError where the file is not a table (eftcore.inputs.files)."""
        path = folder / self.path
        with within("path"):
            data = read_table(path)
        if self.rows is not None:
            outside = [row for row in self.rows if not 0 <= row < len(data)]
            if outside:
                raise InputError(
                    f"{self.path} has rows 0 to {len(data) - 1}",
                    place=("rows", self.rows.index(outside[0])),
                    value=outside[0],
                    remedy="choose among these",
                )
            data = data[list(self.rows)]
        return (self._kernel(data, self.label or path.stem, "path", path),)


def _listed(what: str, chosen: Sequence[int]) -> str:
    """A label that lists what was chosen, abbreviated where the list is long."""
    most = 20
    named = " ".join(map(str, chosen[:most]))
    return f"{what} {named}" + (f" and {len(chosen) - most} more" if len(chosen) > most else "")


_KINDS = ("equicorrelated", "explicit", "digits", "file")


def _has_kind(section: Any) -> Any:
    if isinstance(section, dict) and section.get("kind") not in _KINDS:
        raise InputError(
            "unknown kind" if "kind" in section else "required field is missing",
            place="kind",
            value=section.get("kind", ...),
            remedy=f"give one of {', '.join(map(repr, _KINDS))}",
        )
    return section


KernelSection = Annotated[
    Equicorrelated | Explicit | Digits | DataFile, Field(discriminator="kind"), BeforeValidator(_has_kind)
]
