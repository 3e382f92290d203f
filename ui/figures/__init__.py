"""Plotly figures from tidy frames: nothing here reads a database or uses Streamlit.

Every figure has the option ``narrow``, which puts panels one below the other, for a phone.
"""

from ui.figures.curves import errors_figure, trajectories_figure
from ui.figures.deciding import averages_figure, parallel_figure, shares_figure
from ui.figures.entries import entries_figure
from ui.figures.heat_map import MEASURES, heat_map_figure
from ui.figures.intervals import intervals_figure
from ui.figures.panels import panels_figure, panels_svg
from ui.figures.plane import plane_figure
from ui.figures.quantiles import quantiles_figure
from ui.figures.query import query_figure
from ui.figures.style import noted
from ui.figures.widths import widths_figure
from ui.figures.windows import windows_figure

__all__ = [
    "MEASURES",
    "averages_figure",
    "entries_figure",
    "errors_figure",
    "heat_map_figure",
    "intervals_figure",
    "noted",
    "panels_figure",
    "panels_svg",
    "parallel_figure",
    "plane_figure",
    "quantiles_figure",
    "query_figure",
    "shares_figure",
    "trajectories_figure",
    "widths_figure",
    "windows_figure",
]
