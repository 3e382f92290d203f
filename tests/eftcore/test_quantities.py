"""What the list of quantities says of results holds for the results."""

from __future__ import annotations

from dataclasses import fields

import eftcore as eft
from eftcore.quantities import QUANTITIES
from eftcore.results import KernelTrajectories

MODEL = eft.ResNet(activation="linear", weight_variance=1.0, epsilon=0.5, depth=4)
KERNEL = eft.InputKernel.explicit([[1.0, 0.2], [0.2, 1.5]])


def test_every_quantity_is_an_array_of_a_result() -> None:
    named = {field.name for field in fields(KernelTrajectories)}
    wanted = [quantity.attribute for quantity in QUANTITIES.values()]
    assert named.issuperset([*wanted, *(f"{name}_se" for name in wanted)])


def test_a_result_has_the_quantities_that_it_has() -> None:
    """And what it has is of the shape that the list says."""
    sample = eft.simulate(MODEL, KERNEL, width=8, samples=64, device="cpu")
    exact = eft.predict(MODEL, KERNEL, "exact", next_order=True)
    missing = {"simulation": {"D", "K2", "T"}, "exact": {"Sigma"}}
    for result, name in ((sample, "simulation"), (exact, "exact")):
        found = {quantity.name for quantity in QUANTITIES.values() if quantity.of(result) is not None}
        assert found == set(QUANTITIES) - missing[name]
        for quantity in found:
            values = QUANTITIES[quantity].of(result)
            assert values is not None
            entries = 2 if QUANTITIES[quantity].over == "inputs" else 3
            assert values.shape == QUANTITIES[quantity].shape(5, entries)
    assert all(quantity.standard_error_of(exact) is None for quantity in QUANTITIES.values())
