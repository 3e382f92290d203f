"""The page SQL without a browser: queries of the link, examples, and what is refused."""

from __future__ import annotations

import json

import pytest

from db.reading import queries
from db.schema.views import VIEWS, by_study
from db.session import Database
from tests.ui.pages import OpenPage, keyed, told
from ui.data.sql import EXAMPLES, MEANING


def test_sql_page_offers_every_documented_view() -> None:
    of_studies = set(MEANING) - {"v_checks"}
    assert {*MEANING, *map(by_study, of_studies)} == {view.name for view in VIEWS}


def test_sql_page_runs_the_query_of_the_link(open_page: OpenPage, both: Database) -> None:
    sql = "SELECT quantity, count(*) AS windows FROM v_windows GROUP BY quantity ORDER BY quantity"
    app = open_page(both.url, "sql", sql=sql)
    assert not app.exception
    assert app.text_area[0].value == sql
    assert app.dataframe[1].value.equals(queries.select(both, sql))


def test_sql_page_keeps_every_column_and_every_digit(open_page: OpenPage, results: Database) -> None:
    sql = "SELECT 1 AS n, 9007199254740993 AS n, 1e-13 AS small UNION ALL SELECT NULL, NULL, 0.5 ORDER BY small"
    app = open_page(results.url, "sql", sql=sql)
    assert not app.exception
    table = app.dataframe[1]
    assert table.value.to_dict("list") == {"n": [1, None], "n_2": [9007199254740993, None], "small": [1e-13, 0.5]}
    assert json.loads(table.proto.columns)["small"]["type_config"]["format"] == "%.10g", "not 0.0000000000001"


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("DELETE FROM runs", "only one SELECT"),
        ("SELECT nothing FROM v_windows", "nothing"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("", "only one SELECT"),
    ],
)
def test_sql_page_explains_what_was_refused(open_page: OpenPage, results: Database, sql: str, words: str) -> None:
    app = open_page(results.url, "sql", sql=sql)
    assert not app.exception
    assert words in told(app)[0]


def test_examples_of_the_sql_page_answer(both: Database) -> None:
    without = {"failures", "how wide, from theory"}  # these results have no failure, and no next order
    for name, sql in EXAMPLES.items():
        assert (len(queries.select(both, sql)) > 0) == (name not in without)


def test_sql_chart_takes_the_columns_of_the_result(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, "sql", sql=EXAMPLES["error of V4 over depth"], chart_shown="true")
    assert not app.exception
    assert keyed(app.selectbox, "x").options == ["time", "error", "error_se"]
    assert keyed(app.selectbox, "curves").value == "closure"
    assert len(app.get("plotly_chart")) == 1
