"""The benchmark script runs, on tiny sizes; what it measures is not tested."""

from __future__ import annotations

import subprocess
import sys

import pytest
from made_problems import REPOSITORY


@pytest.mark.volume
def test_it_prints_a_line_for_every_size():
    script = REPOSITORY / "scripts" / "bench_data_prep.py"
    arguments = ["--sizes", "100", "300", "--distinct", "50", "--repeats", "1"]
    shown = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=True).stdout
    table = [line.split() for line in shown.splitlines()[2:]]
    assert [(int(line[0]), int(line[1])) for line in table] == [(100, 50), (300, 50)]
    assert [int(line[6]) for line in table] == [50, 50]
