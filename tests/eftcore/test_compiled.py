"""Compiled code on disk is taken again while no source file has changed, whichever."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import eftcore

ASK = """
import numpy as np
from eftcore.ensemble.cpu.vector_math import seed_generators
from eftcore.ensemble.sums import LANES
seed_generators(np.uint64(1), 0, np.zeros((4, LANES), dtype=np.uint32))
print(sum(seed_generators.stats.cache_hits.values()))
"""


def test_a_change_in_any_source_file_compiles_anew(tmp_path: Path):
    package = tmp_path / "eftcore"
    shutil.copytree(Path(eftcore.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}

    def taken_again() -> int:
        """How many compiled functions were taken from the disk."""
        done = subprocess.run(
            [sys.executable, "-c", ASK],
            env={**environment, "PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    assert [taken_again(), taken_again()] == [0, 1]
    with (package / "ensemble" / "minimax.py").open("a") as other:
        other.write("# changed\n")
    assert taken_again() == 0
