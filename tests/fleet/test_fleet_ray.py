"""The engine on Ray: conformance, and what listens. Starting Ray takes a while: slow, and only where Ray is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import sys
from pathlib import Path
from cosearch.fleet.ray_engine import RayEngine
from cosearch.testing.engine_conformance import check_engine

check_engine(lambda: RayEngine("local", most=2), Path(sys.argv[1]))
print("conforms")
"""


def test_ray_is_an_engine(tmp_path):
    words = [sys.executable, "-c", CHILD, str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.stdout.strip() == "conforms", done.stdout + done.stderr
