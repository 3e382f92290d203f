"""The page Checks without a browser: a check block by block and beside theory."""

from __future__ import annotations

from db.session import Database
from tests.checked import record_checked
from tests.ui.pages import OpenPage, text_of, told


def test_checks_page_shows_a_check_block_by_block_and_beside_theory(open_page: OpenPage, both: Database) -> None:
    app = open_page(both.url, "checks")
    assert not app.exception
    assert "blocks.1 is the first block that deviates" in app.error[0].value.replace("\\", "")
    assert "Compared with gelu (two matrices, layer, m/n = 2)" in text_of(app).replace("\\", "")
    assert len(app.get("plotly_chart")) == 1
    drawn = str(app.get("plotly_chart")[0].proto.spec)
    assert "60 networks: median and 95%" in drawn
    assert "theory: mean" in drawn
    blocks, values, windows, origin = (table.value for table in app.table)
    assert [text.replace("\\", "") for text in blocks["block"]] == [f"blocks.{index}" for index in range(4)]
    assert blocks["verdict"].tolist() == ["", "first that deviates", "", ""]
    assert set(values["quantity"]) == set(windows["quantity"]) == {"K0", "V4"}
    (measured,) = [name for name in values if name.startswith("measured")]
    assert values[measured].str.contains("±").all()
    facts = dict(zip(origin.iloc[:, 0], origin.iloc[:, 1].str.replace("\\", ""), strict=True))
    assert facts["made by"] == "checked.py:make_model"
    assert facts["host"] == "bench"
    assert "torch" in facts["packages"]
    assert app.dataframe[0].value["outcome"].tolist() == ["deviates from layer 2 on"]


def test_checks_page_by_its_address(open_page: OpenPage, fresh: Database) -> None:
    assert "No check recorded yet" in text_of(open_page(fresh.url, "checks"))
    ids = [record_checked(fresh, {}, good=good) for good in (False, True)]
    app = open_page(fresh.url, "checks", check=str(ids[0]))
    assert app.selectbox[0].value == ids[0]
    assert len(app.error) == 1
    app.selectbox[0].set_value(ids[1]).run()
    assert not app.exception
    assert "All 4 blocks are as the spec says" in app.success[0].value.replace("\\", "")
    assert app.table[0].value["verdict"].tolist() == [""] * 4
    outcomes = ["as it should be", "deviates from layer 2 on"]
    assert app.dataframe[0].value["outcome"].tolist() == outcomes, "the newest first"
    assert app.query_params["check"] == str(ids[1])
    assert app.selectbox[0].value == ids[1]
    lost = open_page(fresh.url, "checks", check="77")
    assert "the database has no check of that number" in told(lost)[0].replace("\\", "")
