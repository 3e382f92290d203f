"""Typeset the formulas of the built documentation as MathML, which browsers draw without any script.

Run: python docs/typeset.py FOLDER, after the pages were built into it (`make docs` does both). The build leaves a
formula as TeX within an element of the class arithmatex. A formula that cannot be read ends it.
"""

from __future__ import annotations

import re
import sys
from html import unescape
from pathlib import Path

from latex2mathml.converter import convert

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<kind>[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
SIZED = re.compile(r"\\[bB]igg?[lr]?(?=\\(?:[lr]angle|[lr][VvA]ert|mid|[|{}])|[\[\](){}|])")
"""A size for a delimiter, which MathML stretches by itself."""

SPELLED = {r"\begin{aligned}": r"\begin{split}", r"\end{aligned}": r"\end{split}", r"\mathbb E": "\U0001d53c"}
"""What the converter does not know, or writes as browsers do not read it, in words that mean the same."""

NUMBER = re.compile(r"\\tag\{([^}]*)\}")


def mathml(tex: str, *, display: bool) -> str:
    """A formula as MathML, with its number at the right. Raises ValueError for TeX that cannot be read.

    >>> "<mi>n</mi>" in mathml("V_4=n\\\\,\\\\mathrm{Cov}(G)", display=False)
    True
    """
    number = NUMBER.search(tex)
    source = SIZED.sub("", NUMBER.sub("", tex))
    for spelled, known in SPELLED.items():
        source = source.replace(spelled, known)
    made = convert(source.strip(), display="block" if display else "inline")
    unread = re.search(r"<m[a-z]+[^<>]*>(&#x0005C;|\\|&<)[^<>]*", made)
    if unread:
        raise ValueError(f"{unread[0]} in the formula {tex}")
    return f'{made}<span class="number">({number[1]})</span>' if number else made


def typeset(folder: Path) -> int:
    """Replace the formulas on every page of a folder; returns their number."""
    count = 0
    for page in sorted(folder.rglob("*.html")):
        text, found = FORMULA.subn(_replaced, page.read_text(encoding="utf-8"))
        if found:
            page.write_text(text, encoding="utf-8")
        count += found
    return count


def _replaced(formula: re.Match[str]) -> str:
    tag, display = formula["tag"], formula["kind"] == "["
    return f'<{tag} class="formula">{mathml(unescape(formula["tex"]), display=display)}</{tag}>'


if __name__ == "__main__":
    print(f"{typeset(Path(sys.argv[1]))} formulas typeset")
