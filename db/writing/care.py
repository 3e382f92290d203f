"""What users write about studies, and the views of the explorer that they save. No result is changed by it."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from db.schema.models import SavedView, Study, StudyAnnotation, StudyTag
from db.schema.statements import insert, upsert
from db.session import Database
from eftcore.errors import InputError

NAME_LENGTH = 80
"""Most characters of a title, a tag, or the name of a saved view."""
NOTES_LENGTH = 20_000
MOST_TAGS = 20


def annotate(
    db: Database, study_id: int, *, title: str = "", notes: str = "", tags: Sequence[str] = (), archived: bool = False
) -> None:
    """Write what is shown with a study, in place of what was written before.

    Args:
        title: shown in place of the name; empty for the name.
        tags: words by which it is found; repeated ones count once.
        archived: leave it out of lists.

    Raises:
        InputError: there is no such study, or a text is too long.
    """
    study_id = int(study_id)  # an id from a frame is a numpy integer, which SQLite would store as bytes
    words = list(dict.fromkeys(tag for given in tags if (tag := given.strip())))
    if len(words) > MOST_TAGS:
        raise InputError(f"are at most {MOST_TAGS}", place="tags", value=len(words))
    for name, text in (("title", title.strip()), *(("tags", tag) for tag in words)):
        _within(name, text, NAME_LENGTH)
    _within("notes", notes.strip(), NOTES_LENGTH)
    row = {"title": title.strip() or None, "notes": notes.strip() or None, "archived": archived}
    with db.session() as session:
        if session.get(Study, study_id) is None:
            raise InputError("there is no such study", place="study_id", value=study_id)
        upsert(session, StudyAnnotation, [{"study_id": study_id, **row}])
        session.execute(sa.delete(StudyTag).where(StudyTag.study_id == study_id))
        if words:
            session.execute(insert(session, StudyTag), [{"study_id": study_id, "tag": tag} for tag in words])


def save_view(db: Database, *, name: str, page: str, query: str) -> None:
    """Save a view under a name; one that was saved under it before is replaced.

    Args:
        page: the page in an address of the explorer, such as "windows".
        query: the query string of its address, without the question mark.

    Raises:
        InputError: the name is empty or too long.
    """
    given = name.strip()
    if not given:
        raise InputError("is needed to find the view again", place="name")
    _within("name", given, NAME_LENGTH)
    with db.session() as session:
        upsert(session, SavedView, [{"name": given, "page": page, "query": query}])


def forget_view(db: Database, name: str) -> None:
    """Delete a saved view; does nothing where there is none of that name."""
    with db.session() as session:
        session.execute(sa.delete(SavedView).where(SavedView.name == name))


def _within(place: str, text: str, most: int) -> None:
    if len(text) > most:
        raise InputError(f"has {len(text)} characters, of at most {most}", place=place)
