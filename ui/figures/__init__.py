"""Plotly figures from tidy frames: nothing here reads a database or knows of a page."""

from ui.figures.comparison import entries_figure, series_errors_figure, series_figure
from ui.figures.curves import errors_figure, trajectories_figure
from ui.figures.heat_map import heat_map_figure
from ui.figures.intervals import intervals_figure
from ui.figures.panels import panels_figure, panels_svg
from ui.figures.windows import windows_figure

__all__ = [
    "entries_figure",
    "errors_figure",
    "heat_map_figure",
    "intervals_figure",
    "panels_figure",
    "panels_svg",
    "series_errors_figure",
    "series_figure",
    "trajectories_figure",
    "windows_figure",
]
