"""``eft predict`` and ``eft design``: theory in the terminal, without a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eftcore.errors import InputError, within
from flows.cli.options import JsonOption

if TYPE_CHECKING:
    from eftcore import InputKernel, ResNet

theory_app = typer.Typer()

ActivationOption = Annotated[
    str,
    typer.Option(
        help="linear, tanh, erf, relu, leaky_relu, gelu, silu, softplus, sin or cos; with a parameter as in"
        " 'softplus(beta=2)'."
    ),
]
WeightOption = Annotated[float, typer.Option(help="C_W.")]
BiasOption = Annotated[float, typer.Option(help="C_b.")]
EpsilonOption = Annotated[float | None, typer.Option(help="Size of the residual branch; 0.05 by default.")]
ScaleOption = Annotated[str | None, typer.Option(help="In place of epsilon, a rule as 1/sqrt(L) or 1/L.")]
BlockOption = Annotated[str, typer.Option(help="one_matrix, the block of the paper, or two_matrix, that of an MLP.")]
NormalisationOption = Annotated[str | None, typer.Option(help="rms or layer, of what a branch is applied to.")]
RatioOption = Annotated[float, typer.Option(help="m / n, hidden neurons of two matrices per neuron.")]
HiddenWeightOption = Annotated[float, typer.Option(help="C_1 of the first of two matrices; C_W is that of the second.")]
HiddenBiasOption = Annotated[float, typer.Option(help="C_b1 of the hidden neurons of two matrices.")]
TotalTimeOption = Annotated[float | None, typer.Option(help="T = epsilon^2 L; 2 when neither is given.")]
InputsOption = Annotated[int, typer.Option(help="Equicorrelated inputs N.")]
VarianceOption = Annotated[float, typer.Option(help="Their variance.")]
CorrelationOption = Annotated[float, typer.Option(help="Their correlation.")]
DataOption = Annotated[
    Path | None, typer.Option(help=".npy or .csv file of real inputs, one row each, in place of the above.")
]


@theory_app.command(epilog="Example: eft predict --activation relu --epsilon 0.1 --total-time 1 --closure sigma")
def predict(
    context: typer.Context,
    activation: ActivationOption = "tanh",
    weight_variance: WeightOption = 2.0,
    bias_variance: BiasOption = 0.0,
    epsilon: EpsilonOption = None,
    residual_scale: ScaleOption = None,
    block: BlockOption = "one_matrix",
    normalisation: NormalisationOption = None,
    hidden_ratio: RatioOption = 1.0,
    hidden_weight_variance: HiddenWeightOption = 1.0,
    hidden_bias_variance: HiddenBiasOption = 0.0,
    depth: Annotated[int | None, typer.Option(help="Layers L; or give --total-time.")] = None,
    total_time: TotalTimeOption = None,
    inputs: InputsOption = 2,
    variance: VarianceOption = 2.0,
    correlation: CorrelationOption = 0.3,
    data: DataOption = None,
    closure: Annotated[
        str, typer.Option(help="mean, source_only, g_only, sigma, wick, particle (a sampling estimate) or exact.")
    ] = "g_only",
    order: Annotated[
        str | None, typer.Option(help="Highest order of the wick closure, or auto to raise it until V4 and K1 settle.")
    ] = None,
    step: Annotated[str | None, typer.Option(help="euler (as in the paper) or exact (every power of epsilon).")] = None,
    continuous: Annotated[bool, typer.Option("--continuous", help="The limit epsilon -> 0 at fixed t.")] = False,
    next_order: Annotated[
        bool, typer.Option("--next-order", help="With --closure exact, also D, K2 and T, the next order in 1/n.")
    ] = False,
    nodes: Annotated[int | None, typer.Option(help="Use the fixed Gauss-Hermite rule with this many nodes.")] = None,
    rtol: Annotated[float, typer.Option(help="Requested relative error of the integrals.")] = 1e-9,
    rows: Annotated[int, typer.Option(min=1, help="Steps between the first and the last row.")] = 8,
    json: JsonOption = False,
) -> None:
    """Predict one configuration: mean kernel K0, kernel covariance V4 and 1/n correction K1 over depth."""
    import eftcore as eft
    from eftcore.specs import default_depths
    from flows import tables
    from flows.cli.prediction import prediction_frame, prediction_notes

    model = _network(context.params, "depth")
    kernel = _inputs(inputs, variance, correlation, data)
    rule: dict[str, Any] = {} if nodes is None else {"quadrature": "gauss_hermite", "nodes": nodes}
    theory = eft.predict_spec(
        eft.PredictionSpec(
            model=model,
            kernel=kernel,
            closure=closure,
            order=int(order) if order is not None and order.isdecimal() else order,
            step=step,
            continuous=continuous,
            next_order=next_order,
            numerics=eft.Numerics(rtol=rtol, **rule),
            depths=default_depths(model.depth, rows),
        )
    )
    frame = prediction_frame(theory)
    if json:
        quality = {name: getattr(theory, name) for name in ("numerical_error", "converged", "details")}
        tables.print_json({"spec": theory.spec.identity(), **quality, "rows": tables.records(frame)})
    else:
        tables.print_frame(frame)
        print(prediction_notes(theory))


@theory_app.command(epilog="Example: eft design --activation relu --tolerance 0.05 --width 64 --layers 200")
def design(
    context: typer.Context,
    activation: ActivationOption = "tanh",
    weight_variance: WeightOption = 2.0,
    bias_variance: BiasOption = 0.0,
    epsilon: EpsilonOption = None,
    residual_scale: ScaleOption = None,
    block: BlockOption = "one_matrix",
    normalisation: NormalisationOption = None,
    hidden_ratio: RatioOption = 1.0,
    hidden_weight_variance: HiddenWeightOption = 1.0,
    hidden_bias_variance: HiddenBiasOption = 0.0,
    layers: Annotated[int | None, typer.Option("--layers", help="Layers L; or give --total-time.")] = None,
    total_time: TotalTimeOption = None,
    width: Annotated[int, typer.Option(help="Neurons n of the network.")] = 64,
    tolerance: Annotated[float, typer.Option(help="Relative error that is tolerated.")] = 0.05,
    inputs: InputsOption = 1,
    variance: VarianceOption = 1.0,
    correlation: CorrelationOption = 0.3,
    data: DataOption = None,
    study: Annotated[
        Path | None, typer.Option(help="Write a study file that checks the answer by simulation, to run with eft run.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say how deep a network of this width, and from which width on one of this depth, can be trusted to which theory.

    The answer comes from theory alone: the exact leading order in 1/n, its next order, and the closures beside them.
    """
    from flows import tables
    from flows.cli.design import designed, study_file

    model = _network(context.params, "layers")
    kernel = _inputs(inputs, variance, correlation, data)
    found = designed(model, kernel, width, tolerance)
    if study is not None:
        if data is not None:
            raise InputError("goes with equicorrelated inputs", place="--study", remedy="leave out --data")
        study.write_text(study_file(found, inputs, variance, correlation), encoding="utf-8")
    if json:
        tables.print_json(found.as_data())
        return
    print(found.heading)
    tables.print_frame(found.table())
    print(found.notes)
    if study is not None:
        print(f"study file: {study}; what it costs: eft db upgrade, then eft run {study} --dry-run")


def _network(given: dict[str, Any], length: str) -> ResNet:
    """The network of a command's options; ``length`` names the one for its number of layers."""
    import eftcore as eft
    from eftcore.inputs.layers import whole_layers

    fields = {name: value for name, value in given.items() if name in eft.ResNet.model_fields and name != "depth"}
    layers, total_time, rule = (given[name] for name in (length, "total_time", "residual_scale"))
    if layers is not None and total_time is not None:
        reason, remedy = f"does not go with --total-time {total_time}", "give only one of them"
        raise InputError(reason, place=f"--{length}", value=layers, remedy=remedy)
    if rule is not None:
        if fields.pop("epsilon") is not None:
            raise InputError("does not go with --epsilon", place="--residual-scale", value=rule)
        if layers is None:
            raise InputError(f"needs --{length}", place="--residual-scale", value=rule)
        return eft.ResNet(**{**fields, "residual_scale": rule, "depth": layers})
    if fields["epsilon"] is None:
        fields["epsilon"] = 0.05
    if layers is None:
        layers = whole_layers(2.0 if total_time is None else total_time, fields["epsilon"])
    return eft.ResNet(**fields, depth=layers)


def _inputs(inputs: int, variance: float, correlation: float, data: Path | None) -> InputKernel:
    import eftcore as eft
    from eftcore.inputs.files import read_table

    if data is None:
        return eft.InputKernel.equicorrelated(n_inputs=inputs, variance=variance, correlation=correlation)
    with within("--data"):
        table = read_table(data)
    return eft.InputKernel.from_data(table, label=data.stem)
