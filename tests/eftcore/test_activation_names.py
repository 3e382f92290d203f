"""Names of activations: one text for each, the shortest, and digests that this text does not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eftcore as eft
from eftcore.activations import canonical_name, get_activation, unregister_activation
from eftcore.errors import InputError
from eftcore.identity import digest_of
from eftcore.specs import PredictionSpec


@pytest.mark.parametrize(
    "written",
    ["leaky_relu(slope=0.2)", "leaky_relu(slope=.2)", " leaky_relu ( slope = 2e-1 ) ", "leaky_relu(slope=0.200)",
     "leaky_relu(slope=0.20000000000000001)", "leaky_relu(slope=+0.2)"],
)  # fmt: skip
def test_spellings_of_one_activation_have_one_name(written: str) -> None:
    assert get_activation(written).name == "leaky_relu(slope=0.2)"
    assert canonical_name(written) == "leaky_relu(slope=0.2)"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("softplus(beta=2.0)", "softplus(beta=2)"),
        ("softplus(beta=1.0)", "softplus"),
        ("erf(scale=1e22)", "erf(scale=1e+22)"),
        ("erf(scale=1e-7)", "erf(scale=1e-07)"),
        ("leaky_relu(slope=-0.1)", "leaky_relu(slope=-0.1)"),
        ("tahn", "tahn"),
        ("softplus(gamma=2)", "softplus(gamma=2)"),
    ],
)
def test_a_name_is_short_and_an_unknown_one_stays(written: str, name: str) -> None:
    assert canonical_name(written) == name


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_a_name_is_the_shortest_text_that_reads_back(beta: float) -> None:
    activation = get_activation(f"softplus(beta={beta:.17g})")
    assert activation.parameters == {"beta": beta}
    assert get_activation(activation.name).parameters == {"beta": beta}
    assert get_activation(activation.name).name == activation.name
    assert len(activation.name) <= len(f"softplus(beta={beta!r})")


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="beta is given twice"):
        get_activation("softplus(beta=1, beta=2)")


KERNEL = eft.InputKernel.explicit([[1.0]])

DIGESTS = {
    "leaky_relu(slope=0.2)": "0a78e20e7f88f8fd3bcd3fd57f31405e32e7473fada26448f472c7986c339f0e",
    "softplus(beta=2)": "dff543378614fbc26597a814536b37300143c00b9d61af239a25baeb93313e92",
    "erf(scale=0.7)": "b1354cf8c1d21a2eb90db2784269a0cd62520510cdd11407bcb2192c8d93947d",
    "tanh": "e8d03bdf7acf8782973858a786b9dc60b144f6f41011fb6ae56de78efaf104f4",
}
"""Of a prediction, as given out when names had 17 digits."""


@pytest.mark.parametrize("name", DIGESTS)
def test_digests_that_were_given_out_stay(name: str) -> None:
    model = eft.ResNet(activation=name, weight_variance=2.0, epsilon=0.5, depth=4)
    spec = PredictionSpec(model=model, kernel=KERNEL).of_version(2)
    assert spec.digest == DIGESTS[name]
    assert spec.model.activation == name


def test_the_identity_of_a_parameter_has_17_digits() -> None:
    model = eft.ResNet(activation="leaky_relu(slope=.2)", weight_variance=2.0, epsilon=0.5, depth=4)
    assert model.identity()["activation"] == "leaky_relu(slope=0.20000000000000001)"
    assert digest_of(model.identity()) == digest_of(eft.ResNet(**model.model_dump()).identity())


def test_a_registered_activation_keeps_its_name() -> None:
    eft.register_activation("cubic_for_names", lambda x: np.asarray(x) ** 3)
    try:
        assert canonical_name("cubic_for_names") == "cubic_for_names"
        assert get_activation("cubic_for_names").identity()["name"] == "cubic_for_names"
    finally:
        unregister_activation("cubic_for_names")


def test_a_function_that_works_in_place_leaves_the_identities_of_others() -> None:
    mine = eft.register_activation("cubic_beside", lambda x: np.asarray(x) ** 3)
    try:
        before = mine.identity()
        eft.register_activation("in_place", lambda x: np.maximum(x, 0.0, out=x)).identity()
        assert mine.identity() == before
    finally:
        unregister_activation("cubic_beside")
        unregister_activation("in_place")
