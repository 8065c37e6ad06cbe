"""The floors inside ``latency_tables``, read from the docstring of the package and held against every import."""

import ast
import re
from pathlib import Path

import pytest

import latency_tables

PACKAGE = Path(latency_tables.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def floors() -> dict[str, int]:
    """Floor of each file and room by its name below the package."""
    lines = re.findall(r"^    (\d)  (\w+(?:, \w+)*)  ", latency_tables.__doc__, flags=re.MULTILINE)
    return {name: int(floor) for floor, names in lines for name in names.split(", ")}


def part(module: str) -> str:
    """The file or room of a module: ``latency_tables.board.core`` is in ``board``."""
    return module.split(".")[1]


def faults(name: str, code: str) -> list[str]:
    """Imports, anywhere in a file of ``name``, of higher floors or of another room of the same floor."""
    known, upwards = floors(), []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for other in (part(module) for module in modules if module.startswith("latency_tables.")):
            beside = known[other] == known[name] and other != name and {other, name} <= ROOMS
            if known[other] > known[name] or beside:
                upwards.append(f"{node.lineno}: {name} imports {other}")
    return upwards


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_file_imports_from_lower_floors_or_its_own(path):
    name = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert name == "__init__" or faults(name, path.read_text(encoding="utf-8")) == []


def test_the_docstring_names_every_file_and_room():
    there = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in FILES} - {"__init__"}
    assert set(floors()) == there and len(there) > 15


@pytest.mark.parametrize(
    "name, code",
    [
        ("board", "from latency_tables.opspec import OpSpec"),
        ("onnx_models", "def f():\n    from latency_tables.measuring.plan import EMPTY"),
        ("estimating", "from latency_tables.measuring import statistics"),
        ("measuring", "import latency_tables.estimating.roofline"),
        ("measuring", "from latency_tables import table"),
        ("table", "from latency_tables.commands import app"),
    ],
)
def test_a_planted_import_is_found(name, code):
    assert len(faults(name, code)) == 1
    assert faults("commands", "from latency_tables import errors, table\nimport latency_tables.board.core") == []
