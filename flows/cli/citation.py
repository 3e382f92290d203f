"""How to cite the software and the paper whose theory it implements: CITATION.cff as sentences and as BibTeX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("CITATION.cff")
"""In a checkout a link to CITATION.cff at the top, where citation tools look for it; in a wheel the file itself."""


def citation_text() -> str:
    """The software and the paper as sentences, then both as BibTeX."""
    from yaml import safe_load

    software = safe_load(SOURCE.read_text(encoding="utf-8"))
    works = [software, *software["references"]]
    return "\n\n".join([software["message"], *map(_sentences, works), *map(_bibtex, works)])


def _sentences(work: dict[str, Any]) -> str:
    authors = " and ".join(_name(author) for author in work["authors"])
    place = f"Version {work['version']}" if "version" in work else f"{_arxiv(work)}, {work['year']}"
    return f"{authors}. {work['title']}. {place}."


def _bibtex(work: dict[str, Any]) -> str:
    authors = work["authors"]
    fields = {"author": " and ".join(_last_name_first(author) for author in authors), "title": f"{{{work['title']}}}"}
    if "version" in work:
        key = "resnet-eft"
        fields["note"] = f"Software, version {work['version']}"
    else:
        key = "-".join(author["family-names"].lower() for author in authors) + f"-{work['year']}"
        fields |= {"year": str(work["year"]), "eprint": _arxiv(work).removeprefix("arXiv:"), "archiveprefix": "arXiv"}
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@misc{{{key},", *lines, "}"])


def _name(author: dict[str, str]) -> str:
    return author.get("name") or f"{author['given-names']} {author['family-names']}"


def _last_name_first(author: dict[str, str]) -> str:
    """An author as "family name, given name"; a group in braces, so that BibTeX does not split its name."""
    return f"{{{author['name']}}}" if "name" in author else f"{author['family-names']}, {author['given-names']}"


def _arxiv(work: dict[str, Any]) -> str:
    (number,) = (one["value"] for one in work["identifiers"] if one["value"].startswith("arXiv:"))
    return str(number)
