"""Which form an agent gets is read off its table; what cannot be made is refused before anything is searched."""

import pytest

from cosearch.planning.device import artifact as module
from cosearch.planning.device.artifact import ArtifactPlan, plan_artifact
from latency_tables.errors import MissingExtraError, RequestError
from latency_tables.opspec import OpSpec
from latency_tables.schema import Row, TableFile
from latency_tables.table import Table

OP = OpSpec("conv", 4, 6, 6, 8, 3, 1, 1)
AARCH64 = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}


def table(runtime, dtype, threads=1, batch=None, target=None, tuned=None):
    header = {
        "schema": 1,
        "record": "header",
        "table_id": "0",
        "provenance": "synthetic",
        "device": {"name": "toy", "description": "made up", "runtime": runtime, "dtype": dtype, "threads": threads},
        "calibration": {"overhead_s": 1e-5, "scale": 1.0},
        **({"protocol": {"batch": batch}} if batch else {}),
        **({"host": {"target": target}} if target else {}),
        **({"software": {"tuned": tuned}} if tuned is not None else {}),
    }
    return Table(TableFile(header, {OP.key: Row(OP.key, 1e-6, None)}, None))


def test_the_form_is_that_of_the_table(monkeypatch):
    monkeypatch.setattr(module, "tvm_modules", lambda: None)
    assert plan_artifact(table("onnxruntime", "int8", 2, 8)) == ArtifactPlan("onnxruntime", "int8", 2, 8)
    assert plan_artifact(table("onnxruntime", "int8", 2)).identity == "onnxruntime-int8-2t"
    assert plan_artifact(table("tvm", "float32", 4)) == ArtifactPlan("tvm", "float32", 4, 1)
    for without_a_file_of_its_own in (table("roofline", "float32"), table("torch", "float32"), object()):
        assert plan_artifact(without_a_file_of_its_own) == ArtifactPlan()


@pytest.mark.parametrize(
    "runtime, dtype, message",
    [
        ("onnxruntime", "float16", "no agent is exported in it: ONNX Runtime on x86 computes"),
        ("tvm", "int8", "compiled in float32"),
    ],
)
def test_forms_that_nobody_can_make_are_refused(runtime, dtype, message):
    with pytest.raises(RequestError, match=message):
        plan_artifact(table(runtime, dtype))


def test_a_table_of_tuned_code_is_not_one_of_the_code_that_is_compiled(monkeypatch):
    monkeypatch.setattr(module, "tvm_modules", lambda: None)
    assert plan_artifact(table("tvm", "float32", tuned=False)) == ArtifactPlan("tvm", "float32")
    with pytest.raises(
        RequestError, match=r"is of tuned code, and agents for TVM are compiled without tuning.*measure --runtime tvm --out"
    ):
        plan_artifact(table("tvm", "float32", tuned=True))


def test_a_library_for_a_board_needs_its_linker(monkeypatch):
    monkeypatch.setattr(module, "tvm_modules", lambda: None)
    asked = table("tvm", "float32", target=AARCH64)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(RequestError, match=r"needs aarch64-linux-gnu-g\+\+.*apt install g\+\+-aarch64-linux-gnu"):
        plan_artifact(asked)
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
    plan = plan_artifact(asked)
    assert (plan.target, plan.compiler) == (AARCH64, "aarch64-linux-gnu-g++")


@pytest.mark.parametrize("triple", ["./evil", "../evil", "/tmp/evil", "a b-c", "-B-x", "aarch64-linux-gnu/..", ["x-y"], "x-y\n"])
def test_a_table_names_no_program_that_is_started(triple, monkeypatch, tmp_path):
    """A table that came with files beside it must not start one of them as its linker."""
    monkeypatch.setattr(module, "tvm_modules", lambda: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil-g++").write_text("#!/bin/sh\n")
    (tmp_path / "evil-g++").chmod(0o755)
    with pytest.raises(RequestError, match="is no processor such as aarch64-linux-gnu"):
        plan_artifact(table("tvm", "float32", target={**AARCH64, "mtriple": triple}))


def test_without_tvm_its_tables_are_refused_at_once(monkeypatch):
    def absent():
        raise MissingExtraError("tvm cannot be imported; install it with: pip install 'cosearch[tvm]'")

    monkeypatch.setattr(module, "tvm_modules", absent)
    with pytest.raises(MissingExtraError, match="cosearch"):
        plan_artifact(table("tvm", "float32"))
