"""The drawing of the architecture: each operation beside its choice point, and its true share of the latency."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from report_fake_run import CHOICES, POINTS, change, make_run, operations

from cosearch.report.architecture import cells, choices
from cosearch.report.data import read_run
from cosearch.space.chain import ChainConfig, chain_space


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(make_run(tmp_path_factory.mktemp("runs") / "run"))


def test_cells_are_the_chain_with_its_shares(run):
    boxes, note = cells(run)
    total = sum(op["latency_s"] for op in operations())
    assert note is None and [box.point for box in boxes] == ["", *POINTS, ""]
    assert [box.kind for box in boxes] == [
        "stem",
        "mbconv",
        "skip",
        "mbconv",
        "mbconv",
        "mbconv",
        "skip",
        "mbconv",
        "mbconv",
        "skip",
        "head",
    ]
    assert sum(box.share for box in boxes if box.share is not None) == pytest.approx(1.0)
    assert boxes[1].share == pytest.approx(operations()[1]["latency_s"] / total) and boxes[1].shape == "16×32×32"
    assert boxes[-1].shape == "15 actions + value" and boxes[2].latency_s is None


def test_operations_find_their_choices_by_order_alone(tmp_path):
    path = make_run(tmp_path / "run")
    told = cells(read_run(path))
    change(
        path,
        "architecture.json",
        operations=[{key: value for key, value in op.items() if key != "choice"} for op in operations()],
    )
    assert cells(read_run(path)) == told
    change(path, "architecture.json", operations=operations()[:-2])  # one too few, and without an order that fits
    shorter = [{key: value for key, value in op.items() if key != "choice"} for op in operations()[:-2]]
    change(path, "architecture.json", operations=shorter)
    boxes, note = cells(read_run(path))
    assert "could not be matched" in note and len(boxes) == len(shorter) and not any(box.point for box in boxes)


def test_one_unknown_latency_makes_all_shares_unknown(tmp_path):
    path = make_run(tmp_path / "run")
    change(path, "architecture.json", operations=[operations()[0] | {"latency_s": None}, *operations()[1:]])
    boxes, _ = cells(read_run(path))
    assert all(box.share is None for box in boxes) and boxes[0].latency_s is None and boxes[1].latency_s > 0


def test_the_file_of_a_real_architecture_is_drawn(tmp_path):
    config = ChainConfig(stage_channels=(16, 32), stage_repeats=(2, 2), stage_strides=(1, 2), stem_channels=16)
    space = chain_space(config, (64, 64, 3), 15)
    architecture = space.architecture([3, 8, 8, 1])  # the third skips with a stride: a 1x1 convolution of its own
    path = make_run(tmp_path / "run")
    costs = [{"key": op.key, "latency_s": 1e-4, "energy_j": None} for op in architecture.ops()]
    (path / "architecture.json").write_text(
        json.dumps(architecture.to_dict() | {"predicted": {"latency_s": 5e-4, "operations": costs}})
    )
    boxes, note = cells(read_run(path))
    assert note is None and [box.point for box in boxes] == [
        "",
        "stage1.cell1",
        "stage1.cell2",
        "stage2.cell1",
        "stage2.cell2",
        "",
    ]
    assert [box.operation for box in boxes] == ["stem", "mbconv_k3_e3", "skip", "skip", "conv_k5", "head"]
    assert [box.latency_s for box in boxes] == [1e-4, 1e-4, None, 1e-4, 1e-4, 1e-4] and boxes[3].shape == "32×8×8"
    assert [box.macs for box in boxes if box.macs is not None] == [op.macs for op in architecture.ops()]


def test_names_of_points_may_stand_in_choice_names(tmp_path):
    path = make_run(tmp_path / "run")
    content = json.loads((path / "architecture.json").read_text())
    expected = choices(read_run(path))
    del content["point_names"]
    (path / "architecture.json").write_text(json.dumps(content | {"choice_names": POINTS}))
    assert choices(read_run(path)) == expected and len(expected) == len(CHOICES)
    (path / "architecture.json").write_text(json.dumps({"choices": [1, 0]}))
    assert [(choice.point, choice.operation) for choice in choices(read_run(path))] == [
        ("point 0", "candidate 1"),
        ("point 1", "candidate 0"),
    ]


def test_the_report_knows_the_spaces_without_anyone_loading_them(tmp_path):
    space = chain_space(
        ChainConfig(stage_channels=(8, 16), stage_repeats=(1, 1), stage_strides=(1, 2), stem_channels=8), (64, 64, 3), 15
    )
    path = make_run(tmp_path / "run")
    (path / "architecture.json").write_text(json.dumps(space.architecture([8, 8]).to_dict()))
    program = (
        "import sys, pathlib; from cosearch.report.architecture import cells;"
        "from cosearch.report.data import read_run;"
        "boxes, note = cells(read_run(pathlib.Path(sys.argv[1]))); print([box.point for box in boxes], note)"
    )
    found = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['', 'stage1.cell1', 'stage2.cell1', ''] None"
