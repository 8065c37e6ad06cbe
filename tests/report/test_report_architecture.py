"""The drawing of the architecture: each operation beside its choice point, and its true share of the latency."""

from __future__ import annotations

import subprocess
import sys

import pytest
from report_fake_run import CHOICES, POINTS, architecture_record, change, make_run, operations, write_json

from cosearch.record.json_record import to_json
from cosearch.record.results.architecture import OperationRecord
from cosearch.report.architecture import cells, choices
from cosearch.report.data import read_run
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.kinds.macro import MacroConfig, macro_space
from latency_tables.errors import RunFolderError


def write_architecture(path, architecture):
    costs = [
        OperationRecord(key=op.key, latency_s=1e-4, energy_j=None, macs=op.macs, params=op.params) for op in architecture.ops()
    ]
    write_json(path / "architecture.json", to_json(architecture_record(architecture, costs)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(make_run(tmp_path_factory.mktemp("runs") / "run"))


def test_cells_are_the_chain_with_its_shares(run):
    boxes, note = cells(run)
    total = sum(op.latency_s for op in operations())
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
    assert boxes[1].share == pytest.approx(operations()[1].latency_s / total) and boxes[1].shape == "16×32×32"
    assert boxes[-1].shape == "15 actions + value" and boxes[2].latency_s is None


def test_a_space_that_is_not_known_here_is_drawn_where_only_one_order_fits(tmp_path):
    path = make_run(tmp_path / "run")
    known = [box.operation for box in cells(read_run(path))[0]]
    change(path, "architecture.json", space="somebody-elses")
    boxes, note = cells(read_run(path))
    assert note is None and [box.operation for box in boxes] == known
    assert [box.point for box in boxes] == ["", *(f"point {index}" for index in range(len(CHOICES))), ""]
    shorter = [to_json(op) for op in operations()[:-2]]
    change(path, "architecture.json", predicted__operations=shorter)
    boxes, note = cells(read_run(path))
    assert "6 operations could not be matched with 9 choices" in note
    assert len(boxes) == 6 and not any(box.point for box in boxes)


def test_lists_of_different_lengths_are_refused(tmp_path):
    path = make_run(tmp_path / "run")
    change(path, "architecture.json", choice_names=["skip"])
    with pytest.raises(RunFolderError, match=r"architecture\.json: choices, choice_names and .* got 9, 1 and 9"):
        read_run(path)


def test_the_file_of_a_real_architecture_is_drawn(tmp_path):
    config = ChainConfig(stage_channels=(16, 32), stage_repeats=(2, 2), stage_strides=(1, 2), stem_channels=16)
    space = chain_space(config, (64, 64, 3), 15)
    architecture = space.architecture([3, 8, 8, 1])  # the third skips with a stride: a 1x1 convolution of its own
    path = make_run(tmp_path / "run")
    write_architecture(path, architecture)
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


def test_blocks_that_several_points_decide_have_the_names_of_their_places(tmp_path):
    config = MacroConfig((1,), ("k3s1",), (4,), (2,), ((4, 8),), ("none", "conv_k3+conv_k3"), ("pooled", "flat"), (0,))
    path = make_run(tmp_path / "run")
    write_architecture(path, macro_space(config, (10, 10, 4), 3).architecture([1, 1, 0]))
    boxes, note = cells(read_run(path))
    assert note is None and [box.point for box in boxes] == ["stem", "stage1.entry", "stage1.cell1", "stage1.cell2", "head"]
    assert [box.shape for box in boxes] == ["4×10×10", "8×5×5", "8×5×5", "8×5×5", "3 actions + value"]
    assert [choice.operation for choice in choices(read_run(path))] == ["8", "conv_k3+conv_k3", "pooled"]


def test_choices_are_named_by_the_space_of_the_file(run):
    found = choices(run)
    assert [choice.point for choice in found] == POINTS
    assert [choice.candidates.index(choice.operation) for choice in found] == CHOICES


def test_the_report_knows_the_spaces_without_anyone_loading_them(tmp_path):
    space = chain_space(
        ChainConfig(stage_channels=(8, 16), stage_repeats=(1, 1), stage_strides=(1, 2), stem_channels=8), (64, 64, 3), 15
    )
    path = make_run(tmp_path / "run")
    write_architecture(path, space.architecture([8, 8]))
    program = (
        "import sys, pathlib; from cosearch.report.architecture import cells;"
        "from cosearch.report.data import read_run;"
        "boxes, note = cells(read_run(pathlib.Path(sys.argv[1]))); print([box.point for box in boxes], note)"
    )
    found = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['', 'stage1.cell1', 'stage2.cell1', ''] None"
