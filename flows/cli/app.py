"""The ``eft`` command. Each command imports what it needs when it is called, so that small commands start fast."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eftcore.errors import EftError, InputError
from flows.cli import terminal
from flows.cli.check_command import check_app
from flows.cli.data_commands import data_app
from flows.cli.db_commands import db_app
from flows.cli.options import DatabaseOption, JsonOption, reading_database, use_database
from flows.cli.server_commands import server_app
from flows.cli.study_commands import study_app
from flows.cli.theory_commands import theory_app

if TYPE_CHECKING:
    from sqlalchemy import TableClause

    from db.session import Database

app = typer.Typer(
    name="eft",
    help="How deep the theory of a finite-width ResNet can be trusted: run studies, read their results.",
    epilog="Example: eft run quick",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(db_app, name="db")
app.add_typer(study_app)
app.add_typer(theory_app)
app.add_typer(check_app)
app.add_typer(data_app)
app.add_typer(server_app, name="server")

LimitOption = Annotated[int, typer.Option("--limit", min=0, help="At most this many rows; 0 for all.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 interrupted."""
    terminal.print_anything()
    terminal.warn_in_a_line()
    try:
        app(args=arguments)
    except EftError as error:
        for each in error.each:
            print(f"eft: {each.line}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except UnicodeEncodeError as error:
        text = error.object[max(0, error.start - 20) : error.end]
        print(f"eft: {text!a} has characters beyond this locale's; set LC_ALL=C.UTF-8", file=sys.stderr)
        sys.exit(2)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"resnet-eft {version('resnet-eft')}")
        raise typer.Exit


def _print_citation(wanted: bool) -> None:
    if wanted:
        from flows.cli.citation import citation_text

        print(citation_text())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    cite: Annotated[
        bool,
        typer.Option(
            "--cite", callback=_print_citation, is_eager=True, help="Print how to cite the software and its paper."
        ),
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: eft runs --study quick --status succeeded")
def runs(
    db: DatabaseOption = None,
    study: Annotated[str | None, typer.Option(help="Only this study.")] = None,
    kind: Annotated[str | None, typer.Option(help="simulation, prediction or measurement.")] = None,
    status: Annotated[str | None, typer.Option(help="pending, running, succeeded, failed or stale.")] = None,
    activation: Annotated[str | None, typer.Option(help="Only this activation.")] = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
) -> None:
    """List runs: simulations and predictions, newest first."""
    from db.reading import queries
    from db.schema.views import v_runs
    from flows import tables

    database = reading_database(db)
    chosen: dict[str, Any] = {"study": study, "kind": kind, "status": status, "activation": activation}
    frame = queries.runs(database, **chosen, limit=limit + 1 if limit else None)
    if frame.empty:
        _say_what_there_is(database, v_runs, ("run_id",), chosen)
    tables.print_frame(frame, as_json=json, columns=None if json else tables.run_columns(frame), limit=limit)


@app.command(epilog="Example: eft windows --study quick --quantity V4 --tolerance 0.05")
def windows(
    db: DatabaseOption = None,
    study: Annotated[str | None, typer.Option(help="Only this study.")] = None,
    activation: Annotated[str | None, typer.Option(help="Only this activation.")] = None,
    closure: Annotated[str | None, typer.Option(help="Only this closure.")] = None,
    quantity: Annotated[str | None, typer.Option(help="K0, V4 or K1; D or K2 against a measurement.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Relative tolerance, such as 0.05.")] = None,
    width: Annotated[int | None, typer.Option(help="Only this width.")] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Only windows against this kind of reference: simulation, theory, measurement or check."),
    ] = None,
    in_width: Annotated[
        bool, typer.Option("--in-width", help="From which width on, in neurons per layer, in place of how deep.")
    ] = False,
    layer: Annotated[int | None, typer.Option(help="With --in-width: at this layer; else at the last one.")] = None,
    json: JsonOption = False,
) -> None:
    """List validity windows: the times t = epsilon^2 * layer up to which a closure stays within a tolerance.

    With --in-width, the widths from which on it does at one layer.
    """
    from db.reading import queries
    from db.schema.views import REFERENCE_KINDS, v_width_windows, v_windows
    from flows import tables

    if reference is not None and reference not in REFERENCE_KINDS:
        raise InputError("must be simulation, theory, measurement or check", place="--reference", value=reference)
    if reference in ("theory", "measurement") and width is not None:
        raise InputError(
            f"goes with --reference simulation, since a {reference} has no width",
            place="--width",
            value=width,
            remedy="leave one out",
        )
    if in_width and width is not None:
        reason, remedy = "is what --in-width looks for", "leave one out"
        raise InputError(reason, place="--width", value=width, remedy=remedy)
    if layer is not None and not in_width:
        raise InputError("goes with --in-width", place="--layer", value=layer, remedy="leave it out otherwise")
    chosen: dict[str, Any] = {"study": study, "activation": activation, "closure": closure}
    chosen |= {"quantity": quantity, "tolerance": tolerance, "reference_kind": reference}
    database = reading_database(db)
    if in_width:
        frame = queries.width_windows(database, **chosen, layer=layer, deepest=layer is None)
    else:
        frame = queries.windows(database, **chosen, width=width)
    if frame.empty and in_width:
        _say_what_there_is(database, v_width_windows, ("prediction_run_id",), {**chosen, "layer": layer})
    elif frame.empty:
        _say_what_there_is(database, v_windows, ("prediction_run_id", "reference_run_id"), {**chosen, "width": width})
    if json:
        tables.print_frame(frame, as_json=True)
    elif in_width:
        tables.print_widths(frame)
    else:
        tables.print_windows(frame)


@app.command(epilog="Example: eft sql 'SELECT quantity, closure, certified_until FROM v_windows WHERE tolerance = 0.1'")
def sql(
    statement: Annotated[str, typer.Argument(help='Such as "SELECT * FROM v_windows". See docs/data-dictionary.md.')],
    db: DatabaseOption = None,
    limit: Annotated[
        int, typer.Option("--limit", "--max-rows", min=0, help="At most this many rows; 0 for all.")
    ] = 1000,
    json: JsonOption = False,
) -> None:
    """Answer one SQL query on the results, read-only."""
    from db.reading import queries
    from flows import tables

    frame = queries.select(reading_database(db), statement, max_rows=limit + 1 if limit else None)
    tables.print_frame(frame, as_json=json, limit=limit)


@app.command(epilog="Example: eft report --study paper-quick --output paper.html --markdown paper.md")
def report(
    output: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("paper.html"),
    markdown: Annotated[Path | None, typer.Option(help="Also write a Markdown page, figures beside it.")] = None,
    study: Annotated[str, typer.Option(help="Study with the results, laid out as studies/paper.toml.")] = "paper",
    db: DatabaseOption = None,
) -> None:
    """Write the audit of the paper: what was published, what it is converged, and what was simulated."""
    from ui.reports.document import write_report

    for path in write_report(reading_database(db), output, markdown=markdown, study=study):
        print(path)


@app.command(epilog="Example: eft atlas --output atlas.md")
def atlas(
    output: Annotated[Path, typer.Option(help="Markdown page to write, its figure beside it.")] = Path("atlas.md"),
    db: DatabaseOption = None,
) -> None:
    """Write what the windows of the study `atlas` teach: which closure for which network, and how deep."""
    from ui.reports.document import write_atlas

    for path in write_atlas(reading_database(db), output):
        print(path)


@app.command(epilog="Example: eft ui --port 8600")
def ui(
    db: DatabaseOption = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; the next free one from 8501.")] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Its pages start, stop, change and delete nothing.")
    ] = False,
) -> None:
    """Open the explorer on the results. Ctrl-C ends it; studies that it started go on."""
    from db.settings import data_home
    from flows.orchestration import surroundings
    from ui.data.deployments import server
    from ui.launch import serve

    if api := server():
        surroundings.configure(data_home())
        os.environ.update(surroundings.known_key(api))
    if read_only:
        os.environ["EFT_READ_ONLY"] = "true"
    serve(use_database(db), port)


@app.command(epilog="Example: eft demo")
def demo(
    folder: Annotated[Path, typer.Argument(help="Where its database lies; made where it is not there.")] = Path(
        "eft-demo"
    ),
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; the next free one from 8501.")] = None,
) -> None:
    """Open the explorer on a small recorded database: twelve networks, nothing is computed. Ctrl-C ends it."""
    from flows.cli.demonstration import demo_database
    from ui.launch import serve

    url = demo_database(folder)
    print(f'The recorded results are in {folder / "results.db"}; to ask them: eft sql --db {url} "..."', flush=True)
    serve(url, port)


def _say_what_there_is(db: Database, view: TableClause, run_ids: tuple[str, ...], chosen: dict[str, Any]) -> None:
    """Print to standard error why a list is empty, and which values exist."""
    from db.reading.choices import nothing_found

    print(nothing_found(db, view, run_ids, chosen) or "nothing here yet; `eft run quick` makes some", file=sys.stderr)
