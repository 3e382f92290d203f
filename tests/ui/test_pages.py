"""All pages without a browser: how many statements they send, and how they show what users wrote."""

from __future__ import annotations

from collections.abc import Callable

import eftcore as eft
from db.reading import queries
from db.session import Database
from db.writing.repository import record_comparison, record_measurement, record_prediction
from tests.ui.pages import OpenPage, plain, text_of


def test_a_page_says_what_its_link_asks_for_and_is_not_there(open_page: OpenPage, results: Database) -> None:
    runs = [str(run) for run in queries.runs(results, kind="simulation")["run_id"]]
    app = open_page(results.url, "compare", run=[*runs, "999", "x"], theory=["g_only", "wick 8"])
    said = plain(text_of(app))
    assert "not have: run = 999, run = x." in said
    assert "not have: theory = wick 8." in said
    assert sorted(app.multiselect[0].value) == sorted(map(int, runs))
    assert "run = 999" in plain(text_of(app.run())), "also when the page is drawn again"
    app = open_page(results.url, "windows", activation=["relu", "gelu"], tolerance="0.2", depth="16")
    assert "not have: activation = gelu, tolerance = 0.2." in plain(text_of(app))
    assert "The link asks" not in text_of(open_page(results.url, "windows", activation="relu"))


def test_the_measured_next_order_is_on_every_page(
    open_page: OpenPage, fresh: Database, put: Callable[..., int]
) -> None:
    run = put(fresh, "tanh")
    told = open_page(fresh.url, "windows", reference="measured next order")
    assert "No next order in 1/n has been measured yet" in text_of(told)
    told = open_page(fresh.url, "compare", reference="measured next order")
    assert "that simulations of two widths have measured" in text_of(told)
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=16)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
    exact = eft.predict(model, kernel, "exact", next_order=True, truncation=0.05)
    samples = [eft.simulate(model, kernel, width=n, samples=256, device="cpu") for n in (16, 64)]
    measured = eft.measured_next_order(samples, exact)
    prediction = record_prediction(fresh, exact, provenance={})
    measurement = record_measurement(fresh, measured, provenance={})
    for reference, result in ((run, samples[0]), (measurement, measured)):
        comparison = eft.compare(exact, result)
        record_comparison(fresh, prediction_run_id=prediction, reference_run_id=reference, comparison=comparison)
    app = open_page(fresh.url, "run")
    assert not app.exception
    assert "D and K2 are measured: the coefficients of 1/n in V4 and K1, from simulations" in text_of(app)
    app = open_page(fresh.url, "windows", reference="measured next order")
    assert not app.exception
    assert app.dataframe[0].value["quantity"].tolist() == ["D", "K2"]
    app = open_page(fresh.url, "compare", reference="measured next order")
    assert not app.exception
    assert "against what simulations of several widths measure" in text_of(app)


def test_statements_per_page_do_not_grow(open_page: OpenPage, results: Database, statements: list[str]) -> None:
    spent = {}
    for page in ("answer", "windows", "compare", "run", "checks", "predict", "paper", "sql", "studies"):
        before = len(statements)
        open_page(results.url, page)
        spent[page] = len(statements) - before
    # two look up the schema's revision, two are those of the bar; the rest are named at each build_ function
    assert spent == {
        "answer": 4 + 2,
        "windows": 4 + 2,
        "compare": 4 + 5,
        "run": 4 + 5,  # and the list of simulations, which is kept since Compare read it
        "checks": 4 + 8,
        "predict": 4 + 1,
        "paper": 4 + 1,
        "sql": 4,
        "studies": 4 + 2,
    }


def test_a_page_that_is_seen_again_reads_little_until_there_are_other_results(
    open_page: OpenPage, fresh: Database, put: Callable[..., int], statements: list[str]
) -> None:
    def read(page: str) -> int:
        before = len(statements)
        app = open_page(fresh.url, page)
        assert not app.exception
        return len(statements) - before

    put(fresh, "tanh")
    for page in ("windows", "compare", "run"):
        first, again = read(page), read(page)
        assert 4 <= again < first
        put(fresh, "tanh", seed=len(statements))
        assert read(page) >= first
    assert len(open_page(fresh.url).dataframe[0].value) > 12


def test_labels_are_shown_as_they_are(open_page: OpenPage, fresh: Database, put: Callable[..., int]) -> None:
    label = "<img src=x onerror=alert(1)> **bold** :red[x] $x$"
    put(fresh, "tanh", label=label)
    app = open_page(fresh.url)
    assert label in app.text[0].value
    assert not any(label in element.value for kind in ("markdown", "caption") for element in app.get(kind))
    app = open_page(fresh.url, "run")
    assert not any(label in element.value for kind in ("markdown", "caption") for element in app.get(kind))
