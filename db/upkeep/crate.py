"""The description of a release as an RO-Crate: what its files are, who made them, from what, and under which licence.

Research Object Crate, version 1.3 (https://w3id.org/ro/crate/1.3): the file ``ro-crate-metadata.json``.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from db.upkeep.release import Released

LICENCE = "https://spdx.org/licenses/MIT"
PAPER = "https://arxiv.org/abs/2604.15742"

_NAMES = {
    "dictionary.csv": "data dictionary: every column of every table",
    "results.zip": "the same results as an archive that `eft import` adds to a results database",
    "README.md": "how to read this release",
    "CITATION.cff": "how to cite it",
    "explorer/index.html": "the plane of depth and width, to be opened in a browser",
}
_TYPES = {".parquet": "application/vnd.apache.parquet", ".cff": "application/yaml", ".md": "text/markdown"}


def write_crate(
    folder: Path, released: Sequence[Released], *, version: str, studies: Sequence[str], made: date, description: str
) -> None:
    """Describe the files of a release.

    Args:
        folder: the release, with all of its files but the sums.
        released: its tables.
        version: of the program that made it.
        studies: names of the studies whose results it holds.
        made: the day on which it was made.
        description: what the release is, in a sentence or two.
    """
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    crate = ROCrate()
    crate.name = "How deep, and how wide, theories of finite-width ResNets can be trusted"
    crate.description = description
    crate.datePublished = made.isoformat()
    crate.license = LICENCE
    crate.keywords = "neural networks, finite width, effective field theory, validity windows"
    makers = _entity(crate, ContextEntity, "#makers", "Organization", name="The resnet-eft developers")
    crate.creator = makers
    paper = _entity(crate, ContextEntity, PAPER, "ScholarlyArticle", name="The paper whose theory is judged")
    crate.root_dataset["citation"] = paper
    tables = {each.table.file: each for each in released}
    files = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        name = path.relative_to(folder).as_posix()
        table = tables.get(name)
        about: dict[str, Any] = {
            "name": _NAMES.get(name, name),
            "encodingFormat": _format(path),
            "contentSize": str(path.stat().st_size),
        }
        if table is not None:
            columns = [
                _entity(
                    crate,
                    ContextEntity,
                    f"#{table.table.name}-{column.name}",
                    "PropertyValue",
                    name=column.name,
                    description=column.meaning,
                    valueReference=column.kind,
                )
                for column in table.columns
            ]
            about |= {
                "name": table.table.name,
                "description": f"Each row: {table.table.rows}. {table.rows} rows.",
                "variableMeasured": columns,
            }
        files.append(crate.add_file(path, name, properties=about))
    program = _entity(
        crate, ContextEntity, "#resnet-eft", "SoftwareApplication", name="resnet-eft", softwareVersion=version
    )
    crate.add_action(
        program,
        identifier="#made",
        result=files,
        properties={"name": f"eft release of {', '.join(studies)}", "endTime": made.isoformat()},
    )
    crate.metadata.write(folder)


def _format(path: Path) -> str:
    return _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _entity(crate: Any, entity: Any, identifier: str, kind: str, **properties: Any) -> Any:
    return crate.add(entity(crate, identifier, properties={"@type": kind, **properties}))
