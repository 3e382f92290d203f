"""``eft check``: a user's own torch module against theory; recorded where there is a database."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eftcore.errors import EftError, InputError, within
from flows.cli.options import DatabaseOption, JsonOption, writable_database

if TYPE_CHECKING:
    import numpy as np

    from eftcore import Check, ResNet
    from eftcore.measure.check import Plan

check_app = typer.Typer()

FACTORY = "make_model"
"""The function of the user's file that is called where none is named."""


@check_app.command(epilog="Example: eft check my_model.py:make_model --inputs data.npy --spec my.toml")
def check(
    module: Annotated[str, typer.Argument(help="FILE.py:FUNCTION; the function makes a new torch module each time.")],
    inputs: Annotated[Path, typer.Option(help=".npy file with a small batch as the module takes it, samples first.")],
    spec: Annotated[
        Path | None,
        typer.Option(help="TOML file with the fields of the network; without it, the nearest one is found."),
    ] = None,
    stream: Annotated[str | None, typer.Option(help="Names of the blocks, as 'blocks.*'; found if left out.")] = None,
    networks: Annotated[int, typer.Option(help="Initialisations.")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of the first; the others have the following ones.")] = 0,
    train: Annotated[bool, typer.Option("--train", help="In training mode; otherwise in evaluation mode.")] = False,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    device: Annotated[str, typer.Option(help="A torch device.")] = "cpu",
    feature_axis: Annotated[int, typer.Option(help="Axis of the stream that counts neurons.")] = -1,
    positions: Annotated[
        str | None, typer.Option(help="Other axes, such as tokens: average them, or take them as separate inputs.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write a report, one HTML file.")] = None,
    record: Annotated[
        bool | None,
        typer.Option("--record/--no-record", help="In the results database; if left out, where there is one."),
    ] = None,
    db: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Compare each block of a torch module's residual stream with what it should be at initialisation.

    The file is code that you run, in this process. The exit code is 0 where all blocks are as they should be, else 1.
    """
    import eftcore as eft
    from eftcore.measure.check import count_blocks
    from flows import tables
    from flows.work.provenance import timed

    if record:
        writable_database(db).dispose()  # a missing database is better told before the work
    make_model = _factory(module)
    batch = _batch(inputs)
    options: dict[str, Any] = {"stream": stream, "train": train, "dtype": dtype, "device": device}
    wanted = None if spec is None else _spec(spec, lambda: count_blocks(make_model, batch, seed=seed, **options))
    with timed(device=device, seed=seed) as provenance:
        found = eft.check(
            make_model,
            batch,
            wanted,
            networks=networks,
            seed=seed,
            feature_axis=feature_axis,
            positions=positions,
            planned=None if json else _tell_plan,
            progress=_progress(),
            **options,
        )
    if report is not None:
        from ui.reports.check import write_check

        write_check(found, report)
    if json:
        tables.print_json(found.as_data())
    else:
        _print(found)
        if report is not None:
            print(f"report: {report}")
    if record is not False:
        # a program reads JSON from standard output
        print(_recorded(found, provenance, db, required=bool(record)), file=sys.stderr if json else sys.stdout)
    if not found.passed:
        raise typer.Exit(1)


def _recorded(found: Check, provenance: Mapping[str, Any], url: str | None, *, required: bool) -> str:
    """Record a check; a line that says where, or why not. Nothing is created or migrated.

    Raises EnvironmentProblem where it is required and the database cannot be used, InputError where no record holds it.
    """
    from db.addresses import shown
    from flows.work.checking import record_beside_theory

    try:
        database = writable_database(url)
        try:
            run_id = record_beside_theory(database, found, provenance=provenance)
        finally:
            database.dispose()
    except EftError as problem:
        if required:
            raise
        return f"not recorded: {problem.each[0].line}"
    return f"recorded as run {run_id} of {shown(database.url)}"


def _print(found: Check) -> None:
    from eftcore.measure.wording import block_table, check_text
    from flows import tables

    print(check_text(found))
    tables.print_frame(block_table(found.table(), found.spec))
    print(found.sentence())
    if found.passed:
        _print_trust(found)


def _print_trust(found: Check) -> None:
    """How deep and how wide theory can be trusted for such a network, as eft design says it."""
    import eftcore as eft
    from flows import tables
    from flows.cli.design import designed

    kernel = eft.InputKernel.explicit([[float(found.mean[0, 0, 0])]], label="the first input as measured")
    try:
        design = designed(found.spec, kernel, found.width, 0.05)
    except EftError as error:
        print(f"How deep and how wide theory can be trusted is not known here: {error.each[0].line}")
        return
    print(design.heading)
    tables.print_frame(design.table())
    print(design.notes)


def _tell_plan(plan: Plan) -> None:
    print(
        f"{plan.networks} networks, about {plan.seconds:.0f} s. A variance of one block that is 5 % off is seen at 5"
        f" standard errors with {plan.needed} networks.",
        file=sys.stderr,
    )


def _progress() -> Callable[[int, int], None] | None:
    """A line that is written over, on a terminal alone."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        print(f"\r{done} of {total} networks", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show


def _factory(text: str) -> Callable[[], Any]:
    """The function of a user's file. Raises InputError where either is missing, or where the file fails."""
    name, colon, function = text.rpartition(":")
    path, function = (Path(name), function) if colon and name.endswith(".py") else (Path(text), FACTORY)
    if not path.is_file():
        raise InputError("no such file", place="module", value=str(path), remedy="FILE.py or FILE.py:FUNCTION")
    described = importlib.util.spec_from_file_location(path.stem, path)
    if described is None or described.loader is None:
        raise InputError("is no Python file", place="module", value=str(path), remedy="FILE.py or FILE.py:FUNCTION")
    loaded = importlib.util.module_from_spec(described)
    sys.modules.setdefault(path.stem, loaded)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        described.loader.exec_module(loaded)
    except Exception as error:
        raise InputError(f"it fails ({type(error).__name__}: {error})", place="module", value=str(path)) from error
    found = getattr(loaded, function, None)
    if not callable(found):
        known = [name for name, value in vars(loaded).items() if callable(value) and not name.startswith("_")]
        raise InputError(
            f"has no function {function!r}", place="module", value=str(path), remedy=f"it has {', '.join(known[:8])}"
        )
    factory: Callable[[], Any] = found
    return factory


def _batch(path: Path) -> np.ndarray:
    """The inputs, as they are stored: no pickled objects."""
    import numpy as np

    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        raise InputError(
            "is no .npy file of numbers", place="--inputs", value=str(path), remedy="make one with numpy.save"
        ) from None
    return found


def _spec(path: Path, blocks: Callable[[], int]) -> ResNet:
    """The network of a TOML file, from its table [model] or else from its top; depth may be left to the module."""
    import eftcore as eft
    from flows.study.expansion import read_toml

    with within(path):
        content = read_toml(path)
        fields = content.get("model", content)
        if not isinstance(fields, dict):
            raise InputError("must be one table", place="model", remedy="with fields such as activation and epsilon")
        return eft.ResNet(**fields if "depth" in fields else {**fields, "depth": blocks()})
