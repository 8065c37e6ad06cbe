"""What is copied to a board: exactly the room ``board``, runnable by itself, in a Python as old as 3.8."""

import ast
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import latency_tables
from latency_tables.board import core
from latency_tables.measuring.answers import read_answer
from latency_tables.measuring.remote import Connection, Location, LostBoard, core_archive
from latency_tables.onnx_models.blocks import build_empty_model

BOARD = Path(latency_tables.__file__).parent / "board"
HOST_ONLY = ("torch", "onnx", "scipy", "typer", "rich", "filelock", "cosearch")
LAUNCH = """import json, runpy, sys
sys.modules.update(dict.fromkeys({refused!r}))  # an import of any of them fails
runpy.run_path({archive!r}, run_name="__main__")
ours = {{name: module.__file__ for name, module in sys.modules.items() if name.startswith("latency_tables")}}
sys.stderr.write(json.dumps(ours))
"""
PYTHON38 = shutil.which("python3.8")
NUMPY38 = "def __getattr__(name):\n    return object()\n"  # what is used of it at import are its dtypes
RUNTIME38 = "__version__ = '1'\ndef get_available_providers():\n    return ['CPUExecutionProvider']\n"
NEWER_NAMES = {  # of the standard library, and the version that brought them
    "removeprefix": 9, "removesuffix": 9, "is_relative_to": 9, "cache": 9, "lcm": 9, "nextafter": 9, "randbytes": 9,
    "pairwise": 10, "bit_count": 10, "aiter": 10, "anext": 10, "hardlink_to": 10, "cbrt": 11, "exp2": 11, "batched": 12,
}  # fmt: skip
NEWER_TYPING = {"Annotated", "ParamSpec", "TypeAlias", "TypeGuard", "Concatenate", "Self", "Never", "Required", "NotRequired",
                "Unpack", "LiteralString", "assert_never", "assert_type", "dataclass_transform", "override"}  # fmt: skip
NEWER_MODULES = {"zoneinfo", "graphlib", "tomllib"}
NEWER_OPTIONS = {("zip", "strict"), ("dataclass", "slots"), ("dataclass", "kw_only"), ("dataclass", "match_args")}
GENERICS = {"list", "dict", "tuple", "set", "frozenset", "type", "deque", "defaultdict", "Counter", "OrderedDict", "Callable",
            "Iterable", "Iterator", "Sequence", "Mapping", "MutableMapping", "Collection", "Generator"}  # fmt: skip
TYPES = GENERICS | {"int", "float", "str", "bytes", "bool", "object", "None"}


def files_of_the_core() -> dict[str, str]:
    archive = zipfile.ZipFile(io.BytesIO(core_archive()[1]))
    return {name: archive.read(name).decode() for name in archive.namelist()}


def annotations_of(tree: ast.AST) -> set[ast.AST]:
    """All nodes inside annotations, which nobody evaluates where they are postponed."""
    roots = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.arg, ast.AnnAssign)):
            roots.append(node.annotation)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            roots.append(node.returns)
    return {part for root in roots if root is not None for part in ast.walk(root)}


def too_new(source: str) -> list[str]:
    """What Python 3.8 cannot do: newer syntax, newer names, and types that are evaluated at run time."""
    try:
        tree = ast.parse(source, feature_version=(3, 8))
    except SyntaxError as error:
        return [f"{error.lineno}: {error.msg}"]
    faults, annotations = [], annotations_of(tree)
    postponed = any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body)
    if annotations and not postponed:
        faults.append("1: annotations without `from __future__ import annotations`")
    for node in ast.walk(tree):
        if node in annotations:
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            named = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            newer = named & NEWER_MODULES | (named & NEWER_TYPING if getattr(node, "module", "") == "typing" else set())
            faults += [f"{node.lineno}: {name} is newer" for name in sorted(newer)]
        elif isinstance(node, ast.Attribute) and node.attr in NEWER_NAMES:
            faults.append(f"{node.lineno}: {node.attr} came with 3.{NEWER_NAMES[node.attr]}")
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).split(".")[-1] in GENERICS:
            faults.append(f"{node.lineno}: {ast.unparse(node)} is evaluated")
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            if {ast.unparse(node.left), ast.unparse(node.right)} & TYPES:
                faults.append(f"{node.lineno}: {ast.unparse(node)} is evaluated")
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).split(".")[-1]
            faults += [f"{node.lineno}: {name}({k.arg}=...)" for k in node.keywords if (name, k.arg) in NEWER_OPTIONS]
    return faults


def frames(*requests: tuple[dict, bytes]) -> bytes:
    """Requests as the host sends them."""
    sent = b""
    for fields, payload in requests:
        text = json.dumps({**fields, "payload": len(payload)}).encode()
        sent += struct.pack(">I", len(text)) + text + payload
    return sent


def test_the_archive_is_the_room_and_the_errors_and_nothing_else():
    room = {f"latency_tables/board/{name}" for name in os.listdir(BOARD) if name.endswith(".py")}
    assert set(files_of_the_core()) == room | {"__main__.py", "latency_tables/__init__.py", "latency_tables/errors.py"}
    assert core_archive() == core_archive(), "the same sources are the same bytes"


def test_a_bare_process_with_the_archive_alone_measures(tmp_path):
    """Neither this checkout nor what only a host has can be imported there; a model is loaded and visited."""
    name, data = core_archive()
    archive = tmp_path / name
    archive.write_bytes(data)
    requests = frames(
        ({"verb": "hello", "threads": 1}, b""),
        ({"verb": "load", "id": "m"}, build_empty_model()),
        ({"verb": "visit", "ids": ["m", "absent"], "plan": {"seconds": 0.001, "min_samples": 3}}, b""),
    )
    code = LAUNCH.format(refused=HOST_ONLY, archive=str(archive))
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], input=requests, capture_output=True, timeout=60, cwd=tmp_path, check=True
    )
    hello, end, loaded, _, seen, absent, _ = map(json.loads, done.stdout.splitlines())
    assert "CPUExecutionProvider" in hello["providers"] and hello["fingerprint"]["python"] and end == {"end": True}
    assert loaded == {"id": "m", "graph": {"Relu": 1}}
    assert seen["visit"]["median_s"] > 0 and absent == {"id": "absent", "unknown": True}
    ours = json.loads(done.stderr.splitlines()[-1])
    assert {"latency_tables.board.core", "latency_tables.board.runners", "latency_tables.errors"} <= set(ours)
    assert all(path.startswith(str(archive)) for path in ours.values())


def test_a_model_that_is_too_large_is_an_error_and_the_core_goes_on(monkeypatch):
    monkeypatch.setattr(core, "MAX_MODEL_BYTES", 1000)
    monkeypatch.setattr(core, "SKIPPED_BYTES", 300)
    sent = frames(({"verb": "load", "id": "m"}, b"x" * 1001), ({"verb": "memory"}, b""))
    answers = io.StringIO()
    core.serve(io.BytesIO(sent), answers)
    refused, end, memory, _ = map(json.loads, answers.getvalue().splitlines())
    assert refused == {"error": "a model of 1001 bytes: expected at most 1000"} and end == {"end": True}
    assert memory["peak_bytes"] > 0


@pytest.mark.parametrize(
    "request_bytes", [struct.pack(">I", 2**21), struct.pack(">I", 37) + b'{"verb": "state", "payload": -1}     ']
)
def test_a_request_that_cannot_be_read_is_an_error_that_its_sender_sees(request_bytes):
    answers = io.StringIO()
    core.serve(io.BytesIO(request_bytes), answers)
    refused, end = answers.getvalue().splitlines()
    assert "error" in read_answer(refused, "state", "it") and json.loads(end) == {"end": True}


@pytest.mark.parametrize("name", sorted(files_of_the_core()))
def test_every_copied_file_is_python_38(name):
    assert too_new(files_of_the_core()[name]) == []


@pytest.mark.parametrize(
    "code",
    [
        "match x:\n    case 1: pass",
        "with (a as b, c as d): pass",
        "try: f()\nexcept* ValueError: pass",
        "def f(x: list[int]): pass",
        "Pairs = list[int]",
        "from collections.abc import Callable\nF = Callable[[], int]",
        "isinstance(x, int | None)",
        "x.removeprefix('a')",
        "zip(a, b, strict=True)",
        "@dataclass(frozen=True, slots=True)\nclass A: pass",
        "from typing import Self",
        "import tomllib",
    ],
)
def test_a_planted_novelty_is_found(code):
    assert len(too_new(code)) == 1
    assert too_new("from __future__ import annotations\ndef f(x: list[int] | None) -> dict[str, int]: return x[0] | y") == []


def test_a_real_python_38_answers(tmp_path):
    """With stand-ins for numpy and the runtime: that of this machine's Python 3.8 is not asked for."""
    if PYTHON38 is None or subprocess.run([PYTHON38, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip("there is no Python 3.8 here")
    name, data = core_archive()
    (tmp_path / name).write_bytes(data)
    (tmp_path / "numpy.py").write_text(NUMPY38)
    (tmp_path / "onnxruntime.py").write_text(RUNTIME38)
    modules = [f"latency_tables.board.{path.stem}" for path in BOARD.glob("[a-z]*.py")]
    code = f"import sys, runpy, importlib\nsys.path[:0] = [{str(tmp_path / name)!r}, {str(tmp_path)!r}]\n"
    code += (
        f"for name in {modules!r}: importlib.import_module(name)\nrunpy.run_path({str(tmp_path / name)!r}, run_name='__main__')\n"
    )
    requests = frames(({"verb": "hello", "threads": 1}, b""), ({"verb": "state"}, b""))
    done = subprocess.run([PYTHON38, "-I", "-c", code], input=requests, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    hello, _, state, _ = map(json.loads, done.stdout.splitlines())
    assert hello["fingerprint"]["python"].startswith("3.8.") and "load" in state["state"]


def test_a_reading_of_power_may_last_longer_than_the_silence_of_a_lost_board(tmp_path):
    """A silence of 1.5 s is a lost board; a reading of 1.2 s is silent for twice that, and its request is given the time."""
    rail = tmp_path / "sys/bus/i2c/devices/1-0040/hwmon/hwmon0"
    rail.mkdir(parents=True)
    for name, text in {"in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "1200"}.items():
        (rail / name).write_text(text)
    connection = Connection(Location())
    try:
        connection.one("hello", threads=1)
        connection.one("load", build_empty_model(), id="empty")
        connection._timeout = 1.5
        answer = connection.one("energy", ids=["empty"], seconds=1.2, root=str(tmp_path))
        assert answer["energy_j"] is None and "is not above idle" in answer["reason"]
        with pytest.raises(LostBoard, match=r"was silent for 1\.5 s"):
            next(connection.ask("visit", ids=["empty"], plan={"seconds": 4.0}))
    finally:
        connection.close()
