"""What every kind of reference must answer, so that a theory can be compared with it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import eftcore as eft
from eftcore.errors import InputError
from eftcore.quantities import COMPARED
from eftcore.verdicts.bounds import Measured, Reference

MODEL = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.3, depth=4)
KERNEL = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)

simulate = partial(eft.simulate, kernel=KERNEL, width=8, device="cpu")
predict = partial(eft.predict, kernel=KERNEL)
MEASURED = {
    "simulation, paired": partial(simulate, samples=600, estimator="paired"),
    "simulation, plain": partial(simulate, samples=600, estimator="plain"),
    "simulation without groups": partial(simulate, samples=32),
}
THEORIES = {
    "theory": partial(predict, closure="g_only", step="exact"),
    "Wick series": partial(predict, closure="wick", order=6),
    "one-particle paths": partial(predict, closure="particle"),
}


@pytest.fixture(scope="module", params=MEASURED)
def measured(request: pytest.FixtureRequest) -> Measured:
    return MEASURED[request.param](MODEL)


@pytest.fixture(scope="module", params=[*MEASURED, *THEORIES])
def reference(request: pytest.FixtureRequest) -> Reference:
    return (MEASURED | THEORIES)[request.param](MODEL)


@pytest.mark.parametrize("quantity", COMPARED, ids=lambda quantity: quantity.name)
def test_measured_quantities_say_how_well_their_errors_are_known(measured, quantity):
    layers = len(measured.depth)
    value, error = quantity.estimate_of(measured)
    assert value.shape == error.shape
    assert len(value) == layers
    assert (error >= 0).all()
    freedom, reliable = measured.degrees_of_freedom(quantity.name), measured.reliable(quantity.name)
    assert freedom.shape == reliable.shape == (layers,)
    assert (freedom > 0).all()
    assert reliable.dtype == bool
    fluctuations = measured.group_fluctuations(quantity.name)
    if fluctuations is not None:
        assert fluctuations.ndim == 3
        assert fluctuations.shape[1] == layers
        np.testing.assert_allclose(fluctuations.sum(0), 0.0, atol=1e-9 * np.abs(fluctuations).max() + 1e-15)


def test_with_many_networks_alone_there_are_groups():
    few, many = (MEASURED[name](MODEL) for name in ("simulation without groups", "simulation, plain"))
    assert few.group_fluctuations("V4") is None
    assert many.group_fluctuations("V4") is not None


def test_a_theory_is_compared_with_it_in_every_quantity_that_both_have(reference):
    found = eft.compare(predict(MODEL, closure="g_only"), reference, tolerances=(0.05, 0.5))
    assert set(found.errors.quantity) == {"K0", "V4", "K1"}
    assert (found.errors.error_low <= found.errors.error_high).all()
    assert (found.errors.resolution >= 0).all()
    assert set(found.windows.status) <= {"bounded", "beyond", "undecided", "too_noisy"}
    known = eft.compare(predict(MODEL, closure="source_only"), reference)
    assert set(known.errors.quantity) == {"K0", "V4"}


def test_a_reference_of_other_networks_or_inputs_is_refused(reference):
    other = MODEL.model_copy(update={"weight_variance": 1.0})
    with pytest.raises(InputError, match="another network"):
        eft.compare(predict(other, closure="g_only"), reference)
    with pytest.raises(InputError, match="another network"):
        eft.compare(eft.predict(MODEL, eft.InputKernel.explicit([[1.0]]), "g_only"), reference)
