"""Plotly figures from tidy frames: nothing here reads a database or knows of a page."""

from ui.figures.curves import errors_figure, trajectories_figure
from ui.figures.windows import windows_figure

__all__ = ["errors_figure", "trajectories_figure", "windows_figure"]
