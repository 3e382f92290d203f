"""What users write about studies, apart from the results."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from db.reading import queries
from db.schema.models import SavedView, StudyAnnotation, StudyTag
from db.upkeep import removal
from db.writing import care
from eftcore.errors import InputError


def _written(db, model) -> list[tuple]:
    columns = list(model.__table__.c)
    with db.reading() as session:
        return [tuple(row) for row in session.execute(sa.select(*columns).order_by(*columns))]


def test_what_is_written_about_a_study_replaces_what_was_written_and_goes_with_it(db, record_all, count_rows):
    study = record_all(db, "first").study_id
    record_all(db, "second", width=32)
    before, windows = count_rows(db), queries.windows(db)
    care.annotate(db, study, title=" First light ", notes="a\nnote", tags=["good", " paper", "good", ""])
    assert _written(db, StudyAnnotation) == [(study, "First light", "a\nnote", False)]
    assert _written(db, StudyTag) == [(study, "good"), (study, "paper")]
    care.annotate(db, study, tags=["paper"], archived=True)
    assert _written(db, StudyAnnotation) == [(study, None, None, True)]
    assert _written(db, StudyTag) == [(study, "paper")]
    assert queries.windows(db).equals(windows)
    gone = removal.delete_study(db, "first", dry_run=True)
    assert (gone["study_annotations"], gone["study_tags"], gone["studies"]) == (1, 1, 1)
    assert removal.delete_study(db, "first") == gone
    assert _written(db, StudyAnnotation) == _written(db, StudyTag) == []
    assert count_rows(db)["runs"] < before["runs"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"title": "x" * 81}, "title: has 81 characters, of at most 80"),
        ({"tags": ["x" * 81]}, "tags: has 81 characters"),
        ({"tags": [str(n) for n in range(21)]}, "tags = 21: are at most 20"),
        ({"notes": "x" * 20_001}, "notes: has 20001"),
        ({"study_id": 99}, "there is no such study"),
    ],
)
def test_what_cannot_be_written_changes_nothing(db, record_all, wrong, said):
    study = record_all(db).study_id
    care.annotate(db, study, title="kept")
    with pytest.raises(InputError, match=said):
        care.annotate(db, **{"study_id": study, "title": "other", **wrong})
    assert _written(db, StudyAnnotation) == [(study, "kept", None, False)]


def test_views_are_saved_replaced_and_forgotten_by_name(db):
    care.save_view(db, name=" mine ", page="windows", query="study=quick")
    care.save_view(db, name="other", page="run", query="")
    care.save_view(db, name="mine", page="compare", query="run=1&run=2")
    assert _written(db, SavedView) == [("mine", "compare", "run=1&run=2"), ("other", "run", "")]
    care.forget_view(db, "mine")
    care.forget_view(db, "none")
    assert _written(db, SavedView) == [("other", "run", "")]
    for wrong in ("", "  ", "x" * 81):
        with pytest.raises(InputError, match="name"):
            care.save_view(db, name=wrong, page="run", query="")
