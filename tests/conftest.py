"""Fixtures that several test files share, and how the tests are spread over the cores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# both before torch is imported, as the command line does it: waiting threads that spin slow every other worker down
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers(config):
    """One more than there are cores, since tests of kills and boards mostly wait.

    None beside this process where only single files are asked for: starting workers would take longer than the tests.
    """
    if config.args and all(Path(words.split("::")[0]).is_file() for words in config.args):
        return 0
    return len(os.sched_getaffinity(0)) + 1


@pytest.fixture(autouse=True)
def same_draws():
    """What a test draws from torch's own generator does not depend on the tests that its process ran before."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture
def small_disk(tmp_path, request):
    """A file system of 8 MiB, or of the size that a test gives indirectly."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', '8m')}", "cosearch-test", str(place)]
    try:
        done = subprocess.run(mount, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("this system has no mount command")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)
