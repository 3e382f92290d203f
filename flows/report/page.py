"""The report as one HTML file without outside parts, and as a page of the documentation with its figures."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from db.session import Database
from eftcore.errors import EnvironmentProblem
from eftcore.published import published
from flows.report.audit import findings, lines
from flows.report.figures import Drawn, paper_figures
from flows.report.results import Results

TITLE = "Collective Kernel EFT for pre-activation ResNets: published, reproduced, converged, repaired"

COLUMNS = ("value", "published", "32 nodes", "converged", "exact leading order", "our simulation")

INTRODUCTION = (
    "The numbers of Kawase & Ota (arXiv:2604.15742): as published; computed again with the published quadrature, 32"
    " Gauss-Hermite nodes; with converged integrals; from the exact leading-order theory; and from simulations with the"
    " paired estimator. Units: t = epsilon^2 * layer, V4 = n Cov(G), K1 = n (E[G] - K0), U1 = n (E[S] - E2(K0))."
)

LEGEND = (
    "A dash: does not apply (a simulation is not reproduced digit for digit). Theories are printed with as many digits"
    " as the published value, simulations with their standard error. K1 is relative to the K0 of its own column."
)


def write_report(db: Database, html: Path, *, markdown: Path | None = None, study: str = "paper") -> list[Path]:
    """Write the report; with ``markdown`` also a page there and its figures in ``images`` beside it.

    Returns what was written. Raises InputError where the database lacks the study's results, EnvironmentProblem where
    a file cannot be written.
    """
    results = Results(db, study)
    drawn = paper_figures(results)
    content = _content(results, drawn)
    files = {html: _render("report.html.j2", content)}
    if markdown is not None:
        files[markdown] = _render("report.md.j2", content)
        files |= {markdown.parent / "images" / f"paper-{figure.name}.svg": figure.svg for figure in drawn}
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise EnvironmentProblem(f"{path}: cannot be written ({error.strerror}); choose another place") from None
    return list(files)


def _content(results: Results, drawn: tuple[Drawn, ...]) -> dict[str, object]:
    return {
        "title": TITLE,
        "introduction": INTRODUCTION,
        "legend": LEGEND,
        "columns": COLUMNS,
        "study": results.study,
        "findings": findings(results),
        "lines": lines(results),
        "figures": drawn,
        "simulations": results.simulations.to_dict("records"),
        "sources": list(published().sources.values()),
    }


def _render(template: str, content: dict[str, object]) -> str:
    environment = Environment(
        loader=PackageLoader("flows.report"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(content)
