"""What the report reads, derived from its syntax trees, against what a run writes: declared metrics, stages and record fields."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

import cosearch.report
from cosearch.pipeline.run import STAGES
from cosearch.pipeline.session import TRAINING_STAGES
from cosearch.record.metrics import METRICS
from cosearch.record.results.agent import AgentRecord
from cosearch.record.results.architecture import ArchitectureRecord
from cosearch.record.results.summary import Summary
from cosearch.record.run_record import RunRecord
from cosearch.report.drawings.plots import STAGE_TITLES
from cosearch.report.page import DRAWN

FILES = sorted(Path(cosearch.report.__file__).parent.rglob("*.py"))
FIELDS = {field.name for record in (RunRecord, Summary, ArchitectureRecord, AgentRecord) for field in dataclasses.fields(record)}
OTHERS = {"env.name", "distill.actor", "distill.temperature", "bottom"}  # three of a configuration; a side of a plot


def read_by_name(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Keys that are looked up by a literal name, and stages that curves are read of."""
    keys, stages = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            keys.add(node.slice)
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "get":
                keys.add(node.args[0])
            if name in ("number", "curve"):
                keys.add(node.args[1])
            if name == "curve":
                stages.add(node.args[0])
        if (
            isinstance(node, ast.Compare)
            and isinstance(node.left, ast.Subscript)
            and ast.unparse(node.left).endswith("['stage']")
        ):
            stages.update(node.comparators)
    return literals(keys), literals(stages)


def literals(nodes: set[ast.expr]) -> set[str]:
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_key_that_is_read_is_written(path):
    keys, stages = read_by_name(ast.parse(path.read_text(encoding="utf-8")))
    assert keys <= {*METRICS, *FIELDS, *OTHERS}
    assert stages <= set(TRAINING_STAGES)


def test_every_stage_that_is_drawn_is_one_of_the_pipeline():
    assert set(STAGE_TITLES) == set(TRAINING_STAGES) < set(STAGES)
    assert set(METRICS) >= DRAWN


def test_the_walk_sees_what_it_should():
    keys, stages = read_by_name(
        ast.parse("run.curve('control', 'score')\nsummary['seeds']\nrecord.get('name')\nnumber(line, 'x')\nline['stage'] == 'y'")
    )
    assert keys == {"score", "seeds", "name", "x", "stage"} and stages == {"control", "y"}
    read = {path.stem: read_by_name(ast.parse(path.read_text(encoding="utf-8")))[0] for path in FILES}
    assert {"stage", "step", "arch_probabilities"} <= read["data"] and "teacher_agreement" in read["plots"]
