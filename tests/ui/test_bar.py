"""The bar above every page: restriction to studies, search, saved views, without a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import parse_qs

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

from db.reading import queries
from db.reading.study_queries import newest_results, saved_views
from db.schema.models import ComparisonRow
from db.session import Database
from db.writing import care
from db.writing.repository import record_study
from tests.ui.conftest import ONE_RUN
from ui.data.choices import build_choices, digests_of

OpenPage = Callable[..., AppTest]


def _keyed(elements: Any, key: str) -> Any:
    (found,) = [element for element in elements if element.key == key]
    return found


def _plain(text: str) -> str:
    """A text as it is seen, without the escapes of Markdown."""
    return re.sub(r"\\(.)", r"\1", text)


def _shown(app: AppTest) -> set[str]:
    """The activations of the windows on the page."""
    assert not app.exception
    table = app.dataframe[0].value
    return set(table["σ"]) if "σ" in table else {word for word in ("tanh", "relu") if word in app.text[0].value}


@pytest.mark.parametrize(
    ("query", "activations"),
    [
        ({}, {"tanh", "relu"}),
        ({"study": "curved"}, {"tanh"}),
        ({"study": "kinked"}, {"relu"}),
        ({"study": "With a kink (kinked)"}, {"relu"}),
        ({"study": "As it was called (kinked)"}, {"relu"}),
        ({"study": ["curved", "kinked"]}, {"tanh", "relu"}),
        ({"search": "activation != tanh and n >= 16"}, {"relu"}),
        ({"search": "study = 'with a kink' or tag = none"}, {"relu"}),
    ],
)
def test_a_link_restricts_the_windows(
    open_page: OpenPage, studied: Database, query: dict[str, Any], activations: set[str]
) -> None:
    assert _shown(open_page(studied.url, **query)) == activations


def test_every_page_shows_the_chosen_studies_alone(open_page: OpenPage, studied: Database) -> None:
    (run,) = queries.runs(studied, kind="simulation", activation="relu")["run_id"]
    compared = open_page(studied.url, "compare", study="kinked")
    assert _keyed(compared.multiselect, "simulations").options == compared.multiselect[1].options
    assert len(_keyed(compared.multiselect, "simulations").options) == 1
    alone = open_page(studied.url, "run", study="kinked")
    assert not alone.exception
    assert alone.selectbox[0].value == run
    other = open_page(studied.url, "run", study="curved", simulation=str(run))
    assert other.title[-1].value == "No such simulation"
    nothing = open_page(studied.url, "run", search="n > 16")
    assert [title.value for title in nothing.title] == ["No simulation among these"]


def test_choosing_studies_and_searching_change_page_and_address(open_page: OpenPage, studied: Database) -> None:
    app = open_page(studied.url)
    assert _keyed(app.multiselect, "study").options == ["curved"], "the other one is archived"
    _keyed(app.multiselect, "study").set_value(["curved"]).run()
    assert _shown(app) == {"tanh"}
    _keyed(app.text_input, "search").set_value("activation = relu").run()
    assert [title.value for title in app.title] == ["No comparison of theory and simulation among these"]
    _keyed(app.multiselect, "study").set_value([]).run()
    assert _shown(app) == {"relu"}


def test_a_link_of_another_page_changes_what_the_bar_restricts(open_page: OpenPage, studied: Database) -> None:
    app = open_page(studied.url, "studies")
    app.switch_page("views/windows.py")
    app.query_params["study"] = "kinked"
    assert _shown(app.run()) == {"relu"}
    app.switch_page("views/studies.py")
    del app.query_params["study"]
    app.query_params["search"] = "activation = tanh"
    app.run()
    app.switch_page("views/windows.py")
    assert [title.value for title in app.run().title] == ["No comparison of theory and simulation among these"]


def test_what_a_link_names_and_is_not_there_is_said_until_another_is_chosen(
    open_page: OpenPage, studied: Database
) -> None:
    app = open_page(studied.url, study=["gone", "kinked"])
    assert "study = gone: there is no such study here, the others of the link are shown" in _plain(app.warning[0].value)
    app.run()
    assert app.warning
    _keyed(app.multiselect, "study").set_value([]).run()
    assert not app.warning


def test_a_search_that_cannot_be_read_says_where_and_leaves_nothing_out(open_page: OpenPage, studied: Database) -> None:
    app = open_page(studied.url, search="n > ")
    assert "there must be a value" in app.error[0].value
    assert _shown(app) == {"tanh", "relu"}


def test_studies_of_one_name_are_chosen_together_or_alone(fresh: Database) -> None:
    for digest in ("a", "b"):
        record_study(fresh, name="quick", digest=digest * 64, spec=ONE_RUN, runs_asked=2)
    record_study(fresh, name="paper", digest="c" * 64, spec=ONE_RUN, runs_asked=2)
    choices = build_choices(fresh)
    assert [(choice.key, choice.label) for choice in choices] == [
        ("paper", "paper"),
        ("quick", "quick (all 2)"),
        ("quick-2", "quick-2"),
        ("quick-1", "quick-1"),
    ]
    assert digests_of(choices, ["quick-1", "quick (all 2)"]) == ("a" * 64, "b" * 64)


def test_views_are_saved_under_a_name_and_forgotten(open_page: OpenPage, studied: Database) -> None:
    app = open_page(studied.url, activation=["relu"], search="n = 16", tolerance="0.1")
    assert not [field for field in app.text_input if "save" in field.label], "read when the list is opened, not before"
    app.session_state["views"] = True
    app.run()
    for name in ("", "<b>mine</b>"):
        (field,) = [field for field in app.text_input if field.label == "save this view as"]
        field.set_value(name)
        (save,) = [button for button in app.button if button.label == "Save"]
        save.click().run()
        assert not app.exception
        assert [_plain(error.value) for error in app.error] == (
            [] if name else ["name: is needed to find the view again"]
        )
    (row,) = saved_views(studied).to_dict("records")
    assert (row["name"], row["page"]) == ("<b>mine</b>", "windows")
    saved = parse_qs(row["query"])
    assert [saved[name] for name in ("activation", "search", "tolerance")] == [["relu"], ["n = 16"], ["0.1"]]
    (link,) = [html.proto.body for html in app.get("html") if "<a href" in html.proto.body]
    assert (
        link
        == f'<a href="windows?{escape(row["query"])}" target="_self" style="color: inherit">&lt;b&gt;mine&lt;/b&gt;</a>'
    )
    (forget,) = [button for button in app.button if button.label == "Forget"]
    forget.click().run()
    assert saved_views(studied).empty


def test_newer_results_are_told_without_being_drawn(open_page: OpenPage, studied: Database) -> None:
    app = open_page(studied.url)
    before = newest_results(studied)
    care.annotate(studied, 1, title="of no results")
    assert newest_results(studied) == before
    with studied.session() as session:
        session.execute(sa.delete(ComparisonRow).where(ComparisonRow.id == 1))
    assert newest_results(studied) != before
    assert not [button for button in app.button if button.key == "newer"]
