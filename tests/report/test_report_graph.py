"""The drawing of a network with branches: levels against longest paths, one box a block, one arrow a read."""

import re
from functools import cache
from itertools import pairwise

import pytest
import torch
from report_fake_run import architecture_record, change, make_run, write_json

from cosearch.record.json_record import to_json
from cosearch.record.results.architecture import OperationRecord
from cosearch.report.architecture import cells
from cosearch.report.data import read_run
from cosearch.report.drawings.graph import graph_plot, positions
from cosearch.report.page import write_report
from cosearch.space.cells.cell import CellConfig, cell_space
from cosearch.space.derivation.derive import discretise
from latency_tables.errors import ShapeError


def architectures():
    space = cell_space(CellConfig(depths=(8, 16), normal_cells=1), (10, 10, 4), 3)
    generator = torch.Generator().manual_seed(0)
    return [
        discretise(space, [torch.rand(len(p.candidates), generator=generator).tolist() for p in space.points]) for _ in range(20)
    ]


def test_a_block_stands_below_all_that_it_reads_at_the_end_of_its_longest_path():
    for architecture in architectures():
        wiring = architecture.network().wiring

        @cache
        def longest(index, wiring=wiring):
            return max((1 + longest(i) for i in wiring[index]), default=0)

        places = positions(wiring)
        assert [-y for _, y in places] == [longest(i) for i in range(len(wiring))] and len(set(places)) == len(wiring)
        for level in {y for _, y in places}:
            row = sorted(x for x, y in places if y == level)
            assert sum(row) == pytest.approx(0.0) and all(b - a == 1.0 for a, b in pairwise(row))


@pytest.mark.parametrize("wiring", [[[], [2], [1]], [[], [0], [5]], [[0]]])
def test_what_is_no_graph_is_refused_and_not_drawn(wiring, tmp_path):
    with pytest.raises(ShapeError, match="no graph"):
        positions(wiring)
    path = make_run(tmp_path / "run")
    change(path, "architecture.json", wiring=wiring)
    run = read_run(path)
    assert graph_plot(run, [box for box in cells(run)[0] if box.key][: len(wiring)]) is None


def test_the_report_of_a_cell_draws_every_block_and_every_read(tmp_path):
    architecture = architectures()[0]
    path, wiring = make_run(tmp_path / "run"), architecture.network().wiring
    costs = [
        OperationRecord(
            key=op.key,
            latency_s=1e-5 * (i + 1),
            energy_j=None,
            macs=op.macs,
            params=op.params,
            choice=next(iter(architecture.space.nodes[placed.node].points), None),
        )
        for i, (op, placed) in enumerate(zip(architecture.ops(), architecture.placed()))
    ]
    write_json(path / "architecture.json", to_json(architecture_record(architecture, costs)))
    run = read_run(path)
    svg = graph_plot(run, cells(run)[0]).svg
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", svg)
    assert len(texts) == len(wiring) and texts[0].startswith("stem") and texts[-1].startswith("head")
    assert sum(text.endswith("µs") for text in texts) == len(wiring)
    arrows = len(re.findall(r'id="graph-patch_\d+"', svg)) - len(wiring)  # each text has a frame
    assert arrows >= sum(map(len, wiring))
    write_report(path)
    page = (path / "report.html").read_text()
    assert 'aria-label="' + f"{len(wiring)} blocks" in page and '<ol class="chain">' not in page


def test_a_chain_stays_a_list(tmp_path):
    path = make_run(tmp_path / "run")
    assert graph_plot(read_run(path), cells(read_run(path))[0]) is None
    write_report(path)
    assert '<ol class="chain">' in (path / "report.html").read_text()
