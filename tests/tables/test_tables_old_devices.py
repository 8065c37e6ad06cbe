"""Old boards: models declare the oldest operators that mean the same, and the measuring core's syntax is that of Python 3.8."""

import ast
from pathlib import Path

import numpy as np
import onnx
import pytest

import latency_tables
from latency_tables.board.runners import OnnxRunner
from latency_tables.measuring.remote import START
from latency_tables.onnx_models.blocks import build_block_model
from latency_tables.onnx_models.builder import OPSET
from latency_tables.opspec import OpSpec
from latency_tables.runtimes import FIRST_OF_OPSET, limit_of, newest_opset
from latency_tables.worklists import load_worklist

PACKAGE = Path(latency_tables.__file__).parent
COPIED = [PACKAGE / "__init__.py", PACKAGE / "errors.py", *sorted((PACKAGE / "board").glob("*.py"))]


def kinds():
    """One operation of each kind and activation of the shipped work lists."""
    found: dict[tuple[str, str], OpSpec] = {}
    for name in ("chain", "mlp", "references"):
        for op in load_worklist(name).ops:
            found.setdefault((op.kind, op.activation), op)
    return list(found.values())


@pytest.mark.parametrize("op", kinds(), ids=lambda op: f"{op.kind}-{op.activation}")
def test_a_timed_model_loads_on_the_runtime_of_the_oldest_listed_board(op):
    """It computes what the same nodes compute under the newest opset."""
    content = build_block_model(op)
    model = onnx.load_model_from_string(content)
    (entry,) = model.opset_import
    assert 13 <= entry.version <= limit_of("jetson", "roofline", None).opset and model.ir_version <= 7
    entry.version, model.ir_version = OPSET, 8
    old, new = OnnxRunner(content), OnnxRunner(model.SerializeToString())
    assert all(np.array_equal(a, b) for a, b in zip(old.session.run(None, old.feed), new.session.run(None, old.feed)))


@pytest.mark.parametrize("path", COPIED, ids=lambda path: path.name)
def test_what_is_copied_to_a_board_is_syntax_of_python_3_8(path):
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_an_older_python_reads_its_refusal():
    """Up to the line that refuses it, the start is syntax of any Python 3."""
    ast.parse(START, feature_version=(3, 4))
    assert START.index("version_info") < START.index("latency_tables")


def test_the_compatibility_table_is_in_order():
    versions = [tuple(map(int, version.split("."))) for version in FIRST_OF_OPSET.values()]
    assert versions == sorted(versions) and list(FIRST_OF_OPSET) == sorted(FIRST_OF_OPSET)
    for opset, version in FIRST_OF_OPSET.items():
        assert newest_opset(version) == newest_opset(f"{version}.1") == opset
    assert newest_opset("1.0") is None and newest_opset("dev") is None and newest_opset("1.32.0") == max(FIRST_OF_OPSET)
