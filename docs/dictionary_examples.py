"""Write the real output under each example of docs/data-dictionary.md, from the database that EFT_DATABASE_URL names.

Run: EFT_DATABASE_URL=... python docs/dictionary_examples.py, after `eft run digits` into it.
"""

from __future__ import annotations

import re
from pathlib import Path

from db.reading import queries
from db.session import Database
from db.settings import default_url

PAGE = Path(__file__).parent / "data-dictionary.md"
EXAMPLE = re.compile(r"(<!-- example: \w+ -->\n```sql\n(.*?)```\n\n```text\n).*?```", re.DOTALL)


def main() -> None:
    """Run every example and put its rows below it."""
    db = Database(default_url(), read_only=True)

    def answered(example: re.Match[str]) -> str:
        frame = queries.select(db, example[2])
        rows = frame.to_string(index=False, na_rep="NULL", float_format="{:.5g}".format)
        return f"{example[1]}{rows}\n```"

    PAGE.write_text(EXAMPLE.sub(answered, PAGE.read_text()))
    db.dispose()


if __name__ == "__main__":
    main()
