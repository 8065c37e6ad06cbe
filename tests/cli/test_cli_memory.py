"""Large blocks are kept by the process between uses, unless the user has said otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import resource, sys
import numpy as np
from cosearch.cli.environment import keep_memory
kept = keep_memory() if sys.argv[1] == "keep" else None
np.empty(1 << 23, np.uint8).fill(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    block, other = np.empty(1 << 23, np.uint8), np.empty(1 << 25, np.uint8)
    block.fill(1)
    other.fill(2)
    del block, other
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word, **environment):
    env = {**{key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CODE, word]
    done = subprocess.run(command, env={**env, **environment}, capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only the GNU C library has this")
def test_large_blocks_are_kept_and_the_users_own_settings_win():
    kept, few = faults("keep")
    if kept == "False":
        pytest.skip("this C library has no mallopt")
    assert few < faults("leave")[1] / 5
    assert faults("keep", MALLOC_ARENA_MAX="4")[0] == "False"
