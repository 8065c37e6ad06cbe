"""What starts at once: ``import cosearch`` and the help of the three commands load no heavy library.

The commands take 0.1 to 0.2 s so; torch alone takes 2 s.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from accel_models.cli import METHOD_WORDS
from accel_models.searching.benchmark import ALL_METHODS

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "gymnasium",
    "jinja2",
    "matplotlib",
    "networkx",
    "numpy",
    "onnx",
    "onnxruntime",
    "procgen",
    "pydantic",
    "scipy",
    "sklearn",
    "tensorboard",
    "torch",
}


def loaded(*words):
    """Names of all modules that ``python WORDS`` imports until its end."""
    done = subprocess.run([sys.executable, "-X", "importtime", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE))


@pytest.mark.parametrize(
    "words, seen",
    [
        (("-c", "import cosearch"), "cosearch"),
        (("-m", "cosearch", "--help"), "cosearch.cli.commands"),
        (("-m", "cosearch", "search", "--help"), "cosearch.cli.commands"),
        (("-m", "latency_tables", "--help"), "latency_tables.commands"),
        (("-m", "accel_models", "--help"), "accel_models.cli"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_no_heavy_library_is_loaded_before_it_is_used(words, seen):
    found = loaded(*words)
    assert seen in found
    assert found & HEAVY <= ({"pydantic"} if "search" in words else set())  # which typer itself loads to read a verb


def test_a_heavy_library_would_be_seen():
    assert loaded("-c", "import numpy") & HEAVY == {"numpy"}


def test_the_command_names_the_methods_that_there_are():
    assert list(METHOD_WORDS) == list(ALL_METHODS)
