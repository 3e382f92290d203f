"""What tests read off a page that ran without a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from streamlit.testing.v1 import AppTest

OpenPage = Callable[..., AppTest]


def text_of(app: AppTest) -> str:
    """All the text of a page, where nothing went wrong."""
    assert not app.exception
    kinds = ("title", "text", "caption", "markdown", "info", "warning", "code")
    texts = [element.value for kind in kinds for element in app.get(kind)]
    return "\n".join([*map(str, texts), *told(app)])


def told(app: AppTest) -> list[str]:
    """What the page says is wrong, as it is seen: without the escapes of Markdown."""
    return [re.sub(r"\\(.)", r"\1", str(element.value)) for element in app.error]


def keyed(elements: Any, key: str) -> Any:
    (found,) = [element for element in elements if element.key == key]
    return found


def plain(text: str) -> str:
    """A text as it is seen: without the escapes of Markdown."""
    return re.sub(r"\\(.)", r"\1", text)
