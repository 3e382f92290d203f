"""Recording a check of a user's module, and beside it the theory of what the module should be."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import eftcore as eft
from db.session import Database
from db.writing.checks import record_check
from db.writing.repository import record_comparison, record_prediction
from eftcore.errors import EftError
from eftcore.measure.kernels import CheckedKernels, measured_kernels
from flows.work.provenance import timed

TRUNCATION = 0.01
"""Relative error by what the exact closure leaves out; a few hundred networks know V4 less well."""


def record_beside_theory(db: Database, found: eft.Check, *, provenance: Mapping[str, Any]) -> int:
    """Record a check, and held against it the exact leading order of its spec, where there is one; returns the run id.

    Raises as db.writing.checks.record_check.
    """
    run_id = record_check(db, found, provenance=provenance)
    kernels = measured_kernels(found)
    with timed() as own:
        theory = _theory(kernels)
    if theory is not None:
        prediction = record_prediction(db, theory, provenance=own)
        # kernels that are averages over positions are not what theory is about
        if kernels.covariance is not None:
            comparison = eft.compare(theory, kernels)
            record_comparison(db, prediction_run_id=prediction, reference_run_id=run_id, comparison=comparison)
    return run_id


def _theory(kernels: CheckedKernels) -> eft.Theory | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the theory does not know well stands in its error
        try:
            return eft.predict(kernels.spec.model, kernels.spec.kernel, "exact", truncation=TRUNCATION)
        except EftError:
            return None
