"""The studies page: every study with its progress; what users write about it; to start, top up, stop and delete it."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import streamlit as st

from db.reading.restriction import Restriction
from db.settings import bundled_studies, settings
from db.upkeep import removal
from db.writing import care
from eftcore.errors import EftError
from ui import running
from ui.columns import choose_columns
from ui.data.progress import build_runs, build_speed, configurations_frame, seconds_left, time_text
from ui.data.studies import COMPLETE, RUNNING, StudyFile, build_failures, build_studies, build_study_files
from ui.jobs import LOOK_SECONDS, show_jobs
from ui.notation import markdown_text
from ui.shell import changing, open_database, tell

OPEN = "open"  # name in the address of the study whose details are shown
# titles of the columns of the table, each with the column of build_studies
COLUMNS = {
    "study": "study",
    "tags": "tags",
    "state": "state",
    "recorded": "done",
    "predictions": "predictions",
    "simulations": "simulations",
    "measurements": "measurements",
    "failed": "failed",
    "asked for": "asked",
    "first run": "created_at",
    "last result": "updated_at",
    "archived": "archived",
}
USUAL = [name for name in COLUMNS if name not in ("measurements", "archived")]
MOST_FILE_BYTES = 1_000_000

db = open_database()
read_only = settings().read_only


def _listed() -> pd.DataFrame:
    """The studies to list: those to which the bar restricts, and without a restriction those that are not archived."""
    studies = build_studies(db)
    restriction: Restriction = st.session_state["restriction"]
    if restriction.studies:
        studies = studies[studies["digest"].isin(restriction.studies)]
    elif not show_archived:
        studies = studies[~studies["archived"].astype(bool)]
    titled = [title or key for title, key in zip(studies["title"], studies["key"], strict=True)]
    return studies.assign(study=titled).reset_index(drop=True)


def _states(studies: pd.DataFrame) -> list[Any]:
    """What the details below the table depend on."""
    return studies[["study_id", "state", "failed"]].values.tolist()


@st.fragment(run_every=LOOK_SECONDS)
def overview() -> None:
    """What runs, and the table of studies, looked at again and again; a change of state draws the whole page anew."""
    show_jobs()
    latest = just_read.pop() if just_read else _listed()
    if _states(latest) != drawn:
        st.rerun()
    keys = latest["key"].tolist()
    # with other rows the table is another one, so that the chosen row stays that of the chosen study
    table = f"studies-{hash(tuple(keys))}-{chosen}"
    rows = [keys.index(chosen)] if chosen in keys else []
    event = st.dataframe(
        latest[list(COLUMNS.values())].rename(columns={column: title for title, column in COLUMNS.items()}),
        hide_index=True,
        row_height=30,
        placeholder="—",
        key=table,
        column_order=shown,
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": rows}},
        column_config={
            "recorded": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1),
            "asked for": st.column_config.NumberColumn(help="runs that the study file asks for"),
            "first run": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", timezone="UTC", help="UTC"),
            "last result": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", timezone="UTC", help="UTC"),
        },
    )
    selected = event["selection"]["rows"]
    if selected and selected != rows and selected[0] < len(keys):
        st.query_params[OPEN] = keys[selected[0]]
        st.rerun()


def _start_bar() -> None:
    """Start a bundled study, or one of a file."""
    with st.popover("Start a study"):
        names = list(bundled_studies())
        name = st.selectbox("study that comes with the program", names, index=names.index("quick"), key="bundled")
        if st.button("Start it", key="start-bundled"):
            _try(lambda: running.run(name, title=name))
        given = st.file_uploader("or a study file of your own (.toml)", type="toml", key="study-file")
        if given is not None and st.button("Start the file", key="start-file"):
            if given.size > MOST_FILE_BYTES:
                st.error("No study file is so large.")
                return
            title = re.sub(r"\W+", "-", given.name.removesuffix(".toml")) or "study"
            text = given.getvalue().decode("utf-8", errors="replace")
            _try(lambda: running.run(running.written(title, text), title=title))


def _try(act: Any) -> bool:
    """Whether an action succeeded; what went wrong is told."""
    try:
        act()
    except EftError as problem:
        tell(problem)
        return False
    return True


@st.fragment(run_every=LOOK_SECONDS)
def _progress(study: dict[str, Any]) -> None:
    """The configurations of a study, with the time left while a process executes it."""
    runs = build_runs(db, study["digest"])
    left = None
    if study["state"] == RUNNING:
        left = seconds_left(runs, build_speed(db), study["claimed_at"], pd.Timestamp.now(tz="UTC"))
        st.caption(f"Being computed by {study['holder'].partition(':')[0]}; time left: {time_text(left)}.")
    table = configurations_frame(runs, left)
    table["left"] = [time_text(seconds) for seconds in table["left"]]
    st.dataframe(
        table if study["state"] == RUNNING else table.drop(columns=["at work", "left"]),
        hide_index=True,
        row_height=30,
        height=38 + 30 * min(len(table), 8) if len(table) else "auto",
        key=f"configurations-{study['study_id']}",
        column_config={"done": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1)},
    )


def _run_buttons(study: dict[str, Any], file: StudyFile) -> None:
    """Start, top up and stop a study."""
    row = st.container(horizontal=True, vertical_alignment="center")
    source: Any = file.bundled.split()[-1] if file.data and file.bundled else None
    if study["state"] == RUNNING:
        if row.button("Stop", key="stop-study", type="primary"):
            _try(lambda: running.stop(study["holder"]))
        row.caption("It ends within seconds and keeps what is finished.", width="content")
        return
    if file.data and source is None:
        row.caption(
            markdown_text(f"It reads {', '.join(file.data)} from the folder of its file: run it there, as below."),
            width="content",
        )
        return
    path = source or file.name.removesuffix(".toml")

    def written() -> Any:
        return source or running.written(path, file.toml)

    if study["state"] != COMPLETE and row.button("Go on", key="run-study", type="primary"):
        _try(lambda: running.run(written(), title=study["key"]))
    with row.popover("Top up", disabled=not study["simulations"]):
        st.caption("Simulate more networks: those that are there stay, and the larger study is listed beside this one.")
        spec = study["spec"].get("samples")
        least = int(spec) if isinstance(spec, int) else 1000
        samples = st.number_input("networks of each simulation", 2, 10**12, 2 * least, least, key="top-up-samples")
        if st.button("Start", key="top-up"):
            _try(lambda: running.top_up(written(), int(samples), title=study["key"]))


def _write(study: dict[str, Any], written: dict[str, Any]) -> None:
    with changing() as whole:
        care.annotate(whole, study["study_id"], **written)


def _care(study: dict[str, Any]) -> None:
    """Title, tags, notes and archiving of a study."""
    with st.expander("Title, tags and notes"), st.form(f"care-{study['study_id']}", border=False):
        title = st.text_input("title, in place of the name", study["title"] or "", max_chars=care.NAME_LENGTH)
        tags = st.text_input("tags, between commas", study["tags"] or "")
        notes = st.text_area("notes", study["notes"] or "", max_chars=care.NOTES_LENGTH)
        archived = st.checkbox("archived: kept, and left out of lists", study["archived"])
        if st.form_submit_button("Save"):
            written: dict[str, Any] = {"title": title, "notes": notes, "tags": tags.split(","), "archived": archived}
            if _try(lambda: _write(study, written)):
                st.rerun()


@st.fragment
def _delete(study: dict[str, Any]) -> None:
    """Delete a study, after it was said what would go."""
    popover = st.popover("Delete", key="delete", on_change="rerun")
    if not popover.open:
        return
    with popover:
        try:
            with changing() as whole:
                gone = removal.delete_study(whole, study["digest"], dry_run=True)
            rows = ", ".join(f"{count} row{'s' * (count != 1)} of {table}" for table, count in gone.items())
            kept = len(build_runs(db, study["digest"])) - gone.get("runs", 0)
            stays = f" {kept} of its runs stay, since other studies use them." if kept else ""
            st.markdown(markdown_text(f"This would go: {rows}.{stays}"))
            if st.button("Delete all this", type="primary", key="delete-really"):
                with changing() as whole:
                    removal.delete_study(whole, study["digest"])
                st.query_params.pop(OPEN, None)
                st.rerun(scope="app")
        except EftError as problem:
            tell(problem)


def _details(study: dict[str, Any], file: StudyFile) -> None:
    """Everything about one study."""
    st.subheader(markdown_text(study["study"]), divider="gray")
    if study["notes"]:
        st.text(study["notes"])
    row = st.container(horizontal=True, vertical_alignment="center")
    for page, label in (("windows", "Its windows"), ("compare", "Compare its simulations"), ("run", "Its runs")):
        row.page_link(f"views/{page}.py", label=label, query_params={"study": _named(study)})
    if not read_only:
        _run_buttons(study, file)
    _progress(study)
    if not read_only:
        _care(study)
    row = st.container(horizontal=True, vertical_alignment="center")
    row.download_button(f"Save {file.name}", file.toml, file.name, "application/toml", on_click="ignore")
    row.code(file.command, language="bash", width="content")
    if file.bundled is not None and file.complete is False:
        row.caption("without saving it, where that study came with the program:", width="content")
        row.code(file.bundled, language="bash", width="content")
    for path in file.data:
        st.text(f"{file.study} reads {path}, from the folder of the study file.")
    if not read_only:
        _delete(study)


def _named(study: dict[str, Any]) -> str:
    """The study in an address of another page, as the bar calls it."""
    return f"{study['title']} ({study['key']})" if study["title"] else str(study["key"])


st.title("Studies")
st.caption(
    "A study file asks for runs; a run that several studies need is computed once. The page looks by itself at what "
    "runs. Choose a row for its configurations, to run or top up the study, and to write about it."
)
controls = st.container(horizontal=True, vertical_alignment="center")
with controls:
    if not read_only:
        _start_bar()
    shown = choose_columns("columns", list(COLUMNS), USUAL)
    show_archived = st.toggle("show archived", key="archived", bind="query-params")
studies = _listed()
just_read, drawn = [studies], _states(studies)
chosen = st.query_params.get(OPEN, studies["key"].iloc[0] if len(studies) else "")
if studies.empty:
    st.info("No study has been run into this database yet, or all are archived.")
    st.code("eft run quick", language="bash")
overview()
if len(studies):
    if chosen in set(studies["key"]):
        number = studies["key"].tolist().index(chosen)
        row: dict[str, Any] = dict(studies.iloc[number])
        _details(row, build_study_files(studies)[number])
    else:
        there = ", ".join(studies["key"])
        st.warning(markdown_text(f"{OPEN} = {chosen}: there is no such study in the list; there are: {there}"))
    if studies["failed"].sum():
        st.subheader("Failed runs and their causes", divider="gray")
        st.dataframe(
            build_failures(db),
            hide_index=True,
            row_height=30,
            key="failures",
            column_config={
                "what": st.column_config.TextColumn(width="medium"),
                "cause": st.column_config.TextColumn(width="large"),
                "when": st.column_config.DatetimeColumn("when (UTC)", format="YYYY-MM-DD HH:mm:ss", timezone="UTC"),
            },
        )
        st.caption(
            "A failed run is tried again by running its study again. Bad input fails again until the file is changed."
        )
