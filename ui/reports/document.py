"""The audit as one self-contained HTML file; audit and atlas as Markdown pages of the documentation with figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from db.session import Database
from eftcore.errors import EnvironmentProblem, InputError
from ui.figures import panels_svg
from ui.notation import number
from ui.reports.atlas import blocks, plane
from ui.reports.atlas import lessons as atlas
from ui.reports.atlas.figure import SQL as FIGURE_SQL
from ui.reports.atlas.figure import atlas_figure
from ui.reports.paper.audit import COLUMNS, INTRODUCTION, LEGEND, TITLE, findings, lines
from ui.reports.paper.figures import paper_figures
from ui.reports.paper.published import published
from ui.reports.paper.residuals import COLUMNS as RESIDUAL_COLUMNS
from ui.reports.paper.residuals import EXPLANATION, SQL, residual_findings, residual_table
from ui.reports.paper.results import Results

LONGEST_TABLE = 40
"""Most rows of a table on a page."""


def write_report(db: Database, html: Path, *, markdown: Path | None = None, study: str = "paper") -> list[Path]:
    """Write the report; with ``markdown`` also a Markdown page, its figures in the folder ``images`` beside it.

    Returns the paths of the files. Raises InputError where the database lacks any of the study's results,
    EnvironmentProblem where a file cannot be written.
    """
    results = Results(db, study)
    if results.missing:
        raise InputError(
            f"is not complete, {results.missing[0]} is missing",
            place="study",
            value=study,
            remedy=f"`eft run {study}` goes on",
        )
    content = _content(results)
    files = {html: render("report.html.j2", content)}
    if markdown is not None:
        files[markdown] = render("report.md.j2", content)
        figures = content["figures"]
        assert isinstance(figures, list)
        files |= {markdown.parent / "images" / f"paper-{figure['name']}.svg": figure["svg"] for figure in figures}
    return write_files(files)


def write_atlas(db: Database, markdown: Path) -> list[Path]:
    """Write the atlas as a Markdown page, its figure in the folder ``images`` beside it. Raises as write_report."""
    windows = atlas_figure(db)
    figures = (plane.plane_figure(db), windows)
    content = {
        "introduction": atlas.INTRODUCTION,
        "study": atlas.STUDY,
        "real_inputs": atlas.REAL_INPUTS,
        "blocks": blocks.STUDY,
        "longest": LONGEST_TABLE,
        "plane": plane.STUDY,
        "figures": figures,
        "lessons": [
            {"title": each.title, "sentences": each.sentences, "sql": each.sql, "table": _table(each.table)}
            for each in atlas.lessons(db)
        ],
        "queries": {
            "The plane of depth and width": plane.WINDOWS,
            "The next order in that plane": plane.NEXT_ORDER,
            "The errors over depth": FIGURE_SQL,
        },
    }
    pictures = {markdown.parent / "images" / f"atlas-{each.name}.svg": panels_svg(each) for each in figures}
    return write_files({markdown: render("atlas.md.j2", content), **pictures})


def _table(frame: pd.DataFrame) -> str:
    """A Markdown table, numbers with four digits; empty where it would have more than LONGEST_TABLE rows."""
    if len(frame) > LONGEST_TABLE:
        return ""
    rows = [[number(x) if isinstance(x, float) else str(x) for x in row] for row in frame.itertuples(index=False)]
    lines = [[str(name) for name in frame.columns], ["---"] * len(frame.columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_files(files: Mapping[Path, str]) -> list[Path]:
    """Write texts to files. Raises EnvironmentProblem where one cannot be written."""
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot be written ({error.strerror})", place=path, remedy="choose another place"
            ) from None
    return list(files)


def _content(results: Results) -> dict[str, object]:
    table = residual_table(results)
    said = residual_findings(table) if table else []
    drawn = [{"name": each.name, "caption": each.caption, "svg": panels_svg(each)} for each in paper_figures(results)]
    return {
        "title": TITLE,
        "introduction": INTRODUCTION,
        "legend": LEGEND,
        "columns": COLUMNS,
        "study": results.study,
        "findings": findings(results),
        "lines": lines(results),
        "figures": drawn,
        "residuals": {
            "rows": table,
            "columns": RESIDUAL_COLUMNS,
            "explanation": EXPLANATION,
            "findings": said,
            "sql": SQL,
        },
        "simulations": results.simulations.to_dict("records"),
        "sources": list(published().sources.values()),
    }


def render(template: str, content: Mapping[str, object]) -> str:
    """The text of a template of this package."""
    environment = Environment(
        loader=PackageLoader("ui.reports"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(content)
