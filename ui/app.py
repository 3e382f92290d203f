"""The explorer: `streamlit run ui/app.py`, or `eft ui`.

The pages lie in views/: a folder called pages would make Streamlit run them on their own, without this file.
"""

from __future__ import annotations

import streamlit as st

from ui import bar
from ui.shell import ICON, watch_width
from ui.waiting import processes

processes()  # while the first page is drawn, a process gets ready to compute
st.set_page_config(page_icon=str(ICON), layout="wide")
# Streamlit leaves a sixth of the screen empty above the first line; a wide table scrolls within its own box
st.html(
    """<style>
    .stMainBlockContainer { padding-top: 4rem; padding-bottom: 3rem; }
    [data-testid=stTable] { overflow-x: auto; }
    .parcoords text { text-shadow: none !important; } /* Plotly draws a white one, on dark pages too */
    /* text that a spreadsheet would take for a formula is made harmless by our own downloads alone */
    [data-testid=stElementToolbar] button[aria-label^="Download as CSV"] { display: none; }
    </style>"""
)
page = st.navigation(
    [
        st.Page("views/answer.py", title="My network", default=True),
        st.Page("views/windows.py", title="Windows", url_path="windows"),
        st.Page("views/compare.py", title="Compare", url_path="compare"),
        st.Page("views/run.py", title="Run", url_path="run"),
        st.Page("views/checks.py", title="Checks", url_path="checks"),
        st.Page("views/predict.py", title="Predict", url_path="predict"),
        st.Page("views/paper.py", title="Paper", url_path="paper"),
        st.Page("views/sql.py", title="SQL", url_path="sql"),
        st.Page("views/studies.py", title="Studies", url_path="studies"),
    ],
    position="top",
)
st.set_page_config(page_title=f"{page.title} · ResNet EFT")  # tabs of several pages are told apart
watch_width()  # may rerun the script, which before st.navigation has chosen the page would lead to the first page
bar.show(page.url_path)
page.run()
