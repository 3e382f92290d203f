"""The explorer: `streamlit run ui/app.py`, or `eft ui`."""

from __future__ import annotations

import streamlit as st

from ui.shell import ICON

st.set_page_config(page_title="ResNet EFT explorer", page_icon=str(ICON), layout="wide")
# Streamlit leaves a sixth of the screen empty above the first line
st.html("<style>.stMainBlockContainer { padding-top: 4rem; padding-bottom: 3rem; }</style>")
st.navigation(
    [
        st.Page("pages/windows.py", title="Windows", url_path="windows", default=True),
        st.Page("pages/run.py", title="Run", url_path="run"),
    ],
    position="top",
).run()
