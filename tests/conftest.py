"""Fixtures that several test files share."""

import subprocess

import pytest


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
