"""One model that a runtime cannot run is a reason of its own row: the core goes on with the others."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from latency_tables.board.core import RequestHandler
from latency_tables.errors import RequestError, ShapeError
from latency_tables.measuring import loop
from latency_tables.measuring.job import MeasureRequest, run
from latency_tables.measuring.plan import make_plan
from latency_tables.measuring.settings import Settings
from latency_tables.onnx_models.blocks import build_empty_model
from latency_tables.onnx_models.builder import TooLargeError
from latency_tables.opspec import OpSpec
from latency_tables.worklists import make_worklist

STEM, HEAD = OpSpec("stem", 3, 16, 16, 8, 4, 2, 1), OpSpec("head", 8, 8, 8, 4, hidden=16, activation="none")
CELL = OpSpec("conv", 8, 8, 8, 8, 3, 1, 1)


def model_of(*nodes, element, shape):
    """A serialized model of these nodes, from ``x`` to ``y``; ``w`` holds three numbers."""
    ends = [helper.make_tensor_value_info("x", element, shape), helper.make_tensor_value_info("y", 1, None)]
    held = [numpy_helper.from_array(np.ones(3, np.float32), "w")]
    graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


UNFIT = {  # loaded, and then one of the random numbers is no place of ``w``; a join that does not say along which axis
    "onnxruntime": model_of(
        helper.make_node("Cast", ["x"], ["i"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["w", "i"], ["y"]),
        element=onnx.TensorProto.UINT8,
        shape=[8],
    ),
    "torch": model_of(helper.make_node("Concat", ["x", "x"], ["y"]), element=onnx.TensorProto.FLOAT, shape=[1, 2]),
}
REASONS = {"onnxruntime": "InvalidArgument: [ONNXRuntimeError]", "torch": "KeyError: 'axis'"}


@pytest.mark.parametrize("runtime", sorted(UNFIT))
def test_a_model_that_fails_is_answered_and_the_next_one_runs(runtime):
    core = RequestHandler()
    core.runtime = runtime
    refused, end = core.answer("load", {"id": "bad"}, UNFIT[runtime])
    assert refused["id"] == "bad" and refused["error"].startswith(REASONS[runtime]) and len(refused["error"]) < 500
    assert end == {"end": True} and "bad" not in core.models
    assert next(core.answer("load", {"id": "good"}, build_empty_model())) == {"id": "good", "graph": {"Relu": 1}}


def test_a_row_whose_model_fails_has_the_reason_and_the_others_are_measured(tmp_path, monkeypatch):
    """With a real core, in a process of its own."""
    plan = make_plan(make_worklist("toy", [STEM, CELL, HEAD], []))
    plan.builders[f"{CELL.key}|x5"] = lambda: UNFIT["onnxruntime"]
    monkeypatch.setattr(MeasureRequest, "plan", lambda self: plan)
    work = tmp_path / "work.json"
    work.write_text(json.dumps(make_worklist("toy", [STEM, CELL, HEAD], []).to_dict()))
    settings = Settings(min_rounds=1, max_rounds=1, budget_s=0.0, pin=False)
    table = run(MeasureRequest(out=tmp_path / "t.jsonl", device="toy", worklists=(str(work),), settings=settings))
    assert table.rows[CELL.key].status == "unsupported"
    assert REASONS["onnxruntime"] in table.rows[CELL.key].details["reason"]
    assert table.rows[STEM.key].status != "unsupported"  # one round tells little


HUGE = (
    OpSpec("linear", 9000, 1, 1, 9000),  # 309 MiB
    OpSpec("linear", 999_999_999, 1, 1, 999_999_999),  # no memory holds it
    OpSpec("maxpool", 999_999, 1, 1, 999_999),  # has no weights, the convolution before it has
    OpSpec("gru", 20_000, 1, 1, 20_000, hidden=20_000, activation="none"),
)


@pytest.mark.parametrize("op", HUGE, ids=lambda op: op.kind)
def test_a_block_whose_weights_are_too_many_is_not_built(op, tmp_path):
    plan = make_plan(make_worklist("toy", [op], []))
    with pytest.raises(TooLargeError, match="more than 256 MiB of weights, the most that is built and measured"):
        plan.builders[f"{op.key}|x1"]()


def test_a_model_that_is_too_large_is_a_reason_of_its_own_row(tmp_path, monkeypatch):
    """Too many weights to build, and a model above what the core takes; the rest is measured, with a real core."""
    ops = [STEM, CELL, HEAD, HUGE[1]]
    plan = make_plan(make_worklist("toy", ops, []))
    monkeypatch.setattr(loop, "MAX_MODEL_BYTES", 100_000)
    plan.builders[f"{CELL.key}|x5"] = lambda: bytes(100_001)
    monkeypatch.setattr(MeasureRequest, "plan", lambda self: plan)
    work = tmp_path / "work.json"
    work.write_text(json.dumps(make_worklist("toy", ops, []).to_dict()))
    settings = Settings(min_rounds=1, max_rounds=1, budget_s=0.0, pin=False)
    table = run(MeasureRequest(out=tmp_path / "t.jsonl", device="toy", worklists=(str(work),), settings=settings))
    assert [table.rows[op.key].status == "unsupported" for op in ops] == [False, True, False, True]  # one round tells little
    assert table.rows[CELL.key].details["reason"] == "a model of 100001 bytes: the measuring core takes at most 100000"
    assert "more than 256 MiB of weights" in table.rows[HUGE[1].key].details["reason"]


@pytest.mark.parametrize("digits", ["9" * 5000, "1" * 11, "1000000001"])
def test_a_key_of_absurd_sizes_is_one_message(digits):
    with pytest.raises(ShapeError, match=r"not the key of an operation|at most 1000000000"):
        OpSpec.from_key(f"linear-{digits}x1x1-o8-k1s1p0-g1e1h0-relu-float32-b1")
    assert OpSpec.from_key("linear-1000000000x1x1-o8-k1s1p0-g1e1h0-relu-float32-b1").in_channels == 10**9


def test_a_provider_that_the_runtime_has_not_is_a_wrong_request(tmp_path):
    work = tmp_path / "work.json"
    work.write_text(json.dumps(make_worklist("toy", [STEM], []).to_dict()))
    settings = Settings(provider="NoSuchProvider", min_rounds=1, max_rounds=1, budget_s=0.0, pin=False)
    with pytest.raises(
        RequestError, match=r"on this machine has no NoSuchProvider.*--provider: .*CPUExecutionProvider"
    ) as caught:
        run(MeasureRequest(out=tmp_path / "t.jsonl", device="toy", worklists=(str(work),), settings=settings))
    assert caught.value.exit_code == 2 and not (tmp_path / "t.jsonl.journal").exists()
