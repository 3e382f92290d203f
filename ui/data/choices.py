"""The studies to which a page can be restricted, each by a name in the address that outlives a change of its title."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from db.reading.study_queries import study_list
from db.session import Database


@dataclass(frozen=True, kw_only=True)
class StudyChoice:
    """One choice: a study, or all studies of one name.

    Attributes:
        key: its name, and with its id where several studies have that name.
        label: what the page and an address show: the key, after the title that a user gave it.
        digests: those of its studies.
        archived: whether lists leave it out.
    """

    key: str
    label: str
    digests: tuple[str, ...]
    archived: bool


def build_choices(db: Database) -> list[StudyChoice]:
    """Every choice, the newest study first. One statement."""
    studies = study_list(db)
    found = []
    for name in studies["name"].drop_duplicates():
        alike = studies[studies["name"] == name]
        rows = list(alike.to_dict("records"))
        if len(rows) > 1:
            digests = tuple(row["digest"] for row in rows)
            archived = all(row["archived"] for row in rows)
            found.append(StudyChoice(key=name, label=f"{name} (all {len(rows)})", digests=digests, archived=archived))
        for row in rows:
            key = name if len(rows) == 1 else f"{name}-{row['study_id']}"
            label = f"{row['title']} ({key})" if row["title"] else key
            found.append(StudyChoice(key=key, label=label, digests=(row["digest"],), archived=row["archived"]))
    return found


def choice_of(choices: Sequence[StudyChoice], asked: str) -> StudyChoice | None:
    """The choice that an address names: by its key, its label, or a label with a title that it no longer has."""
    last = asked.rpartition("(")[2].removesuffix(")")
    by_key = {choice.key: choice for choice in choices}
    by_label = {choice.label: choice for choice in choices}
    return by_label.get(asked) or by_key.get(asked) or by_key.get(last)


def digests_of(choices: Sequence[StudyChoice], asked: Sequence[str]) -> tuple[str, ...]:
    """The digests of the studies that these names in an address choose, each once."""
    found = (choice_of(choices, name) for name in asked)
    return tuple(dict.fromkeys(digest for choice in found if choice is not None for digest in choice.digests))
