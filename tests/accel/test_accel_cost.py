"""Designs as data, exact evaluation and its invariants, resources, energies, and the costs that a co-search takes."""

import itertools
import json
import math
from dataclasses import replace

import onnx
import pytest
import torch

from accel_models import block_costs, evaluate, from_blocks, load_design, load_layers, save_design
from accel_models.cost import machine_of
from accel_models.design import AccelDesign, Chunk, design_names
from accel_models.energy import ENERGY_TABLES
from accel_models.engines.mapper import best_tile, candidate_tiles
from accel_models.engines.systolic import DATAFLOWS
from accel_models.evaluation import _table
from accel_models.layers import FREE_KINDS, LayerShape, network_names, to_records
from accel_models.printing import network_report
from accel_models.resources import bram18_blocks, dsp_per_multiplier, resources
from cosearch.space.network import impala_cnn
from latency_tables.errors import DesignError, InfeasibleCandidateError, ShapeError
from latency_tables.onnx_models.blocks import build_block_model
from latency_tables.opspec import OpSpec

NPU, ZC706 = load_design("edge-npu"), load_design("zc706")
BLOCKS = [
    OpSpec("stem", 3, 32, 32, 8, kernel=3, padding=1),
    OpSpec("mbconv", 8, 32, 32, 16, kernel=3, stride=2, padding=1, expansion=3),
    OpSpec("maxpool", 16, 16, 16, 16, kernel=2, stride=2),
    OpSpec("head", 16, 8, 8, 6, hidden=32),
]

PLAIN = [  # no sum
    OpSpec("conv", 4, 6, 5, 4, kernel=3, padding=1),
    OpSpec("mbconv", 4, 6, 5, 8, kernel=3, padding=1, expansion=3),
    OpSpec("mlp", 4, 1, 1, 6, hidden=8),
    OpSpec("head", 4, 3, 3, 6, hidden=8),
]
SUMMED = [
    OpSpec("residual", 4, 6, 5, 4, kernel=3, padding=1, activation="none"),
    OpSpec("mbconv", 4, 6, 5, 4, kernel=3, padding=1, expansion=3),
    OpSpec("mlp", 4, 1, 1, 4, hidden=8),
    OpSpec("revmlp", 7, 1, 1, 7, groups=2, hidden=16, activation="tanh"),
    OpSpec("revconv", 5, 6, 6, 5, kernel=3, padding=1, groups=3, activation="none"),
    OpSpec("gru", 8, 1, 1, 8, hidden=4, activation="none"),
    OpSpec("lstm", 8, 1, 1, 8, hidden=4, activation="none"),
    OpSpec("stack", 5, 1, 1, 5, groups=3, activation="none"),
    OpSpec("add", 4, 6, 5, 4, groups=3, activation="none"),
]


@pytest.mark.parametrize("name", design_names())
def test_shipped_designs_fit_their_platform_and_read_back(name, tmp_path):
    design = load_design(name)
    assert resources(design).over(design.platform) == [] and design.platform.sources
    save_design(design, tmp_path / "copy.json")
    assert load_design(tmp_path / "copy.json") == design


@pytest.mark.parametrize("limits, device", [
    ({"pe_limit": 100}, "zc706"), ({"sram_limit_bytes": 100}, "zc706"), ({"dsp_limit": 1}, "edge-npu"),
    ({"bram18_limit": 1, "dsp_kind": "DSP48E1"}, "edge-npu"),
])  # fmt: skip
def test_a_limit_of_the_other_kind_of_platform_is_refused_and_null_is_read(limits, device):
    record = load_design(device).to_dict()
    with pytest.raises(DesignError, match=f"{' and '.join(limits)} would have no effect on an (fpga|asic): leave it out"):
        AccelDesign.from_dict({**record, "platform": {**record["platform"], **limits}})
    absent = dict.fromkeys(limits)
    assert AccelDesign.from_dict({**record, "platform": {**record["platform"], **absent}}) == load_design(device)


@pytest.mark.parametrize("design,network", list(itertools.product(design_names(), network_names())))
def test_every_network_runs_on_every_design(design, network):
    result = evaluate(load_layers(network), load_design(design))
    assert 0 < result.interval_s <= result.latency_s < 1 and all(0 <= r.utilisation <= 1 for r in result.layers)
    assert result.latency_s == pytest.approx(sum(r.latency_s for r in result.layers))


def test_faults_of_a_design_come_in_one_message(tmp_path):
    record = json.loads(json.dumps(NPU.to_dict()))
    record["platform"] |= {"clock_hz": -1, "kind": "asic", "pe_limit": 0, "energy": "asic7"}
    with pytest.raises(DesignError, match=r"clock_hz.*pe_limit.*energy"):
        AccelDesign.from_dict(record)
    with pytest.raises(DesignError, match="did you mean 'chunks'"):
        AccelDesign.from_dict({**NPU.to_dict(), "chunk": []})
    with pytest.raises(DesignError, match="did you mean 'zcu102'"):
        load_design("zcu104")
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(DesignError, match="not JSON"):
        load_design(tmp_path / "broken.json")


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 0},
        {"dataflow": "rs"},
        {"tile": (1, 2)},
        {"engine": "tile"},
        {"unroll": (1, 1, 1, 1, 1)},
        {"engine": "tile", "unroll": (1, 2, 3, 1, 1)},
        {"weight_buffer_bytes": 1.5},
    ],
)
def test_wrong_chunks_are_refused(change):
    with pytest.raises(DesignError):
        replace(NPU.chunks[0], **change)


def test_energy_is_none_where_unknown():
    assert evaluate(load_layers("nature"), ZC706).energy_j is None
    assert block_costs(BLOCKS, ZC706)[0].energy_j is None
    wide = replace(load_design("eyeriss-like"), weight_bits=8, activation_bits=8)
    assert machine_of(wide).energy is None, "Eyeriss ratios know 16-bit products only"
    with pytest.raises(InfeasibleCandidateError, match="not known"):
        evaluate(load_layers("nature"), ZC706, "energy")


def scaled(monkeypatch, field, factor):
    table = ENERGY_TABLES["asic28"]
    value = getattr(table, field)
    new = {k: v * factor for k, v in value.items()} if isinstance(value, dict) else value * factor
    monkeypatch.setitem(ENERGY_TABLES, "asic28", replace(table, **{field: new}))


def test_energy_is_linear_in_every_constant(monkeypatch):
    layers = load_layers("mobilenet")
    base = evaluate(layers, NPU).energy_j
    rises = 0.0
    for field in ("multiply_j", "register_j_per_byte", "dram_j_per_byte", "sram_scale"):
        with monkeypatch.context() as patch:
            scaled(patch, field, 3.0)
            more = evaluate(layers, NPU).energy_j - base
            assert more > 0
            rises += more / 2
        with monkeypatch.context() as patch:
            scaled(patch, field, 2.0)
            assert evaluate(layers, NPU).energy_j - base == pytest.approx(more / 2, rel=1e-9)
    assert rises == pytest.approx(base, rel=1e-9), "the constants must account for all of the energy"


def test_energy_of_one_layer_by_hand():
    """A 1x1 layer on a 2x2 ws array with the flat Eyeriss costs: every access counted on paper."""
    base = load_design("eyeriss-like")
    design = replace(base, chunks=(Chunk(2, 2, "ws", 64, 64, 64),))
    layer = LayerShape("x", "conv", 1, 2, 2, 2, 2, 1, 1, 1)
    parts = evaluate([layer], design).layers[0].energy_parts
    pico = 1e-12
    assert parts["multiply"] == pytest.approx(16 * pico, rel=1e-9, abs=0)
    assert parts["register"] == pytest.approx(0.5 * pico * (16 * (2 + 2 + 2 * 4) + 2 * (4 + 8)), rel=1e-9, abs=0)
    assert parts["dram"] == pytest.approx(100 * pico * 2 * (4 + 8 + 8), rel=1e-9, abs=0)
    assert parts["buffer"] == pytest.approx(3 * pico * (2 * 4 + 2 * 8 + 4 * 8 + 40), rel=1e-9, abs=0)


def test_more_bandwidth_is_never_slower_and_sometimes_faster():
    layers = load_layers("impala")
    designs = [replace(NPU, platform=replace(NPU.platform, dram_bytes_per_s=rate)) for rate in (0.4e9, 1.6e9, 6.4e9, 25.6e9)]
    times = [evaluate(layers, design).latency_s for design in designs]
    assert times == sorted(times, reverse=True) and times[0] > 1.5 * times[-1]


def test_a_larger_buffer_never_costs_dram_bytes():
    for layer in load_layers("mobilenet") + load_layers("nature"):
        if not layer.macs:
            continue
        moved = []
        for size in (512, 2048, 8192, 1 << 20):
            chunk = replace(NPU.chunks[0], weight_buffer_bytes=size, input_buffer_bytes=size, output_buffer_bytes=4 * size)
            moved.append(evaluate([layer], replace(NPU, chunks=(chunk,))).dram_bytes)
        assert moved == sorted(moved, reverse=True) and moved[-1] == layer.weights + layer.inputs + layer.outputs


def test_best_tile_fits_and_a_hopeless_buffer_is_refused():
    layer = load_layers("nature")[0]
    k, c, p, q = best_tile(layer, (600, 3000, 9000), (1.0, 1.0, 4.0))
    assert k * c * 64 <= 600 and c * ((p - 1) * 4 + 8) * ((q - 1) * 4 + 8) <= 3000 and k * p * q * 4 <= 9000
    assert (k, c, p, q) in candidate_tiles(layer)
    with pytest.raises(InfeasibleCandidateError, match="larger"):
        best_tile(layer, (10, 3000, 9000), (1.0, 1.0, 4.0))


def test_options_change_the_result():
    layers = load_layers("mobilenet")
    base = evaluate(layers, NPU)
    assert evaluate(layers, replace(NPU, overlap_fill=False)).latency_s > base.latency_s
    assert evaluate(layers, replace(NPU, double_buffered=False)).latency_s > base.latency_s
    assert evaluate(layers, replace(NPU, depthwise_mode="channels")).latency_s > base.latency_s
    assert evaluate(layers, replace(NPU, activation_bits=16)).dram_bytes > base.dram_bytes
    assert evaluate(layers, replace(NPU, weight_bits=16)).dram_bytes > base.dram_bytes
    fixed = replace(NPU, chunks=(replace(NPU.chunks[0], tile=(4, 4, 1, 4)),))
    assert evaluate(layers, fixed).dram_bytes > base.dram_bytes
    tight = replace(NPU, chunks=(replace(NPU.chunks[0], tile=(1024, 1024, 64, 64)),))
    with pytest.raises(InfeasibleCandidateError, match="exceeds the"):
        evaluate(layers, tight)
    little = replace(NPU.chunks[0], weight_buffer_bytes=256, input_buffer_bytes=512, output_buffer_bytes=256)
    small = replace(NPU, chunks=(little,))
    sizes = [evaluate(layers, replace(small, partial_bits=bits)).dram_bytes for bits in (16, 24, 32, 48)]
    assert sizes == sorted(set(sizes)), "wider partial sums are spilled at more bytes"


def test_tile_engine_runs_and_counts_its_cycles():
    engine = Chunk(8, 16, None, 65536, 65536, 65536, engine="tile", unroll=(1, 4, 8, 2, 2))
    layer = LayerShape("x", "conv", 1, 10, 9, 5, 5, 3, 3, 1)
    result = evaluate([layer], replace(NPU, chunks=(engine,), overlap_fill=False))
    assert result.layers[0].cycles == 3 * 2 * 3 * 3 * 9


def tile_design(**changes):
    """The record of a design of one tile engine, as a file holds it."""
    chunk = {"rows": 8, "cols": 16, "engine": "tile", "unroll": [1, 4, 8, 2, 2]}
    chunk |= dict.fromkeys(("weight_buffer_bytes", "input_buffer_bytes", "output_buffer_bytes"), 65536)
    return {"name": "tiles", "platform": NPU.to_dict()["platform"], "chunks": [chunk], **changes}


def test_a_tile_engine_has_no_dataflow_and_that_of_an_older_file_changes_and_shows_nothing(tmp_path, capsys):
    layers, results, said = load_layers("mobilenet"), [], []
    for dataflow in (None, *DATAFLOWS):
        record = tile_design()
        if dataflow is not None:
            record["chunks"][0]["dataflow"] = dataflow
        (tmp_path / "tiles.json").write_text(json.dumps(record))
        design = load_design(tmp_path / "tiles.json")
        save_design(design, tmp_path / "again.json")
        assert load_design(tmp_path / "again.json") == design
        results.append(evaluate(layers, design, "energy").to_dict())
        network_report(design, evaluate(layers, design))
        said.append(capsys.readouterr().out)
    assert results[1:] == results[:1] * 3 and said[1:] == said[:1] * 3
    assert "chunk 0: 8 x 16 tile, buffers" in said[0]
    systolic = tile_design()
    del systolic["chunks"][0]["engine"], systolic["chunks"][0]["unroll"]
    with pytest.raises(DesignError, match="field 'dataflow' is missing"):
        AccelDesign.from_dict(systolic)
    with pytest.raises(DesignError, match="dataflow must be one of ws, os, is, got None"):
        AccelDesign.from_dict({**systolic, "chunks": [{**systolic["chunks"][0], "dataflow": None}]})


@pytest.mark.parametrize("option, other", [("overlap_fill", True), ("depthwise_mode", "channels")])
def test_an_option_of_systolic_arrays_is_refused_where_no_chunk_is_one(option, other):
    plain = AccelDesign.from_dict(tile_design())
    assert AccelDesign.from_dict(tile_design(**{option: getattr(plain, option)})) == plain
    with pytest.raises(DesignError, match=f"{option} would have no effect, no chunk is a systolic array: leave it out"):
        AccelDesign.from_dict(tile_design(**{option: other}))
    mixed = tile_design(chunks=[*tile_design()["chunks"], json.loads(json.dumps(NPU.to_dict()))["chunks"][0]])
    assert getattr(AccelDesign.from_dict({**mixed, option: other}), option) == other


def test_resources_by_hand():
    assert [dsp_per_multiplier(b, k) for b, k in ((8, "DSP48E1"), (8, "DSP48E2"), (16, "DSP48E2"))] == [1.0, 0.5, 1.0]
    assert bram18_blocks(torch.tensor(10 * 2304.0), torch.tensor(10.0), True) == 20
    assert bram18_blocks(torch.tensor(10 * 2304.0 + 1), torch.tensor(10.0), False) == 20
    used = resources(ZC706)
    assert used.dsp == 900 and used.bram18 == 2 * (2 * 30 + 2 * 30 + 2 * 30) and used.area_mm2 is None
    asic = resources(NPU)
    assert asic.sram_bytes == 2 * 256 * 1024 and asic.area_mm2 == pytest.approx(1024 * 369e-6 + 512 * 1.4e-3)
    big = replace(ZC706, chunks=ZC706.chunks * 2)
    assert "1800 DSP, the limit is 900" in resources(big).over(ZC706.platform)[0]


def test_block_costs_add_up_to_the_network():
    costs = block_costs(BLOCKS, NPU)
    flat = [layer for group in from_blocks(BLOCKS) for layer in group]
    whole = evaluate(flat, NPU)
    assert sum(c.latency_s for c in costs) == pytest.approx(whole.latency_s, rel=1e-12)
    assert sum(c.energy_j for c in costs) == pytest.approx(whole.energy_j, rel=1e-12)
    twice = block_costs([replace(BLOCKS[1], batch=2)], NPU)[0]
    assert twice.latency_s == pytest.approx(2 * costs[1].latency_s)


def test_nothing_to_compute_is_refused():
    relu = LayerShape("a", "relu", 4, 1, 1, 4, 4, 1, 1)
    for layers in ([], [relu, relu]):
        with pytest.raises(ShapeError, match="at least one layer"):
            evaluate(layers, NPU)
    with pytest.raises(ShapeError, match="at least one block"):
        block_costs([], NPU)


def test_blocks_are_not_cut_and_chunks_can_be_given():
    two = replace(NPU, chunks=(NPU.chunks[0], replace(NPU.chunks[0], rows=4, cols=4)))
    assert {c.chunk for c in block_costs(BLOCKS, two)} == {0}, "one frame alone belongs on the larger array"
    forced = block_costs(BLOCKS, two, chunk_of=[1, 1, 1, 1])
    assert {cost.chunk for cost in forced} == {1}
    assert all(f.latency_s > c.latency_s for f, c in zip(forced, block_costs(BLOCKS, two), strict=True))
    assert {c.chunk for c in block_costs(BLOCKS, two, "interval")} == {0, 1}
    for wrong in ([0], [0, 0, 0, 2]):
        with pytest.raises(ShapeError, match="blocks"):
            block_costs(BLOCKS, two, chunk_of=wrong)
    flat = [layer for group in from_blocks(BLOCKS) for layer in group]
    with pytest.raises(ShapeError, match="layers"):
        evaluate(flat, two, chunk_of=[0])
    split = evaluate(flat, two, "interval")
    assert split.interval_s < split.latency_s and split.interval_s >= max(split.chunk_s)


def test_shared_dram_bounds_the_interval():
    starved = replace(NPU, chunks=NPU.chunks * 3, platform=replace(NPU.platform, dram_bytes_per_s=1e8))
    result = evaluate(load_layers("impala"), starved, "interval")
    assert result.interval_s == pytest.approx(result.dram_bytes / 1e8) and result.interval_s > max(result.chunk_s)


def test_grouped_convolutions_keep_their_operations():
    block = OpSpec("conv", 8, 6, 6, 16, kernel=3, padding=1, groups=4)
    assert sum(layer.macs for layer in from_blocks([block])[0]) == block.macs
    assert from_blocks([block])[0][0].G == 4


def test_the_blocks_of_the_impala_cnn_are_the_layers_of_its_file():
    """All but the last: the file has the fifteen scores, the agent's head gives its value beside them."""
    made = [layer for group in from_blocks(impala_cnn((64, 64, 3), 15)) for layer in group]
    mine, files = (
        [replace(layer, name="") for layer in layers if layer.kind not in (*FREE_KINDS, "fc")]
        for layers in (made, load_layers("impala"))
    )
    assert mine == files and sum(layer.kind == "add" for layer in mine) == 6


def additions(model):
    """Elements of the nodes ``Add`` of an ONNX file that read no weights."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model)).graph
    types = {value.name: value.type.tensor_type for value in [*graph.value_info, *graph.output]}
    shapes = {name: [dim.dim_value for dim in found.shape.dim] for name, found in types.items()}
    weights = {tensor.name for tensor in graph.initializer}
    return sum(
        math.prod(shapes[node.output[0]]) for node in graph.node if node.op_type == "Add" and not weights & set(node.input)
    )


@pytest.mark.parametrize("op", [*PLAIN, *SUMMED], ids=lambda op: op.key)
def test_a_block_that_ends_with_a_sum_has_it_among_its_layers(op):
    (layers,) = from_blocks([op])
    counted = additions(build_block_model(op)) - additions(build_block_model(op, repeats=0))
    assert sum(layer.outputs for layer in layers if layer.kind == "add") == counted
    assert (counted > 0) == (op in SUMMED)


@pytest.mark.parametrize("name", network_names())
def test_layer_files_round_trip(name, tmp_path):
    layers = load_layers(name)
    (tmp_path / "copy.json").write_text(json.dumps({"layers": to_records(layers)}), encoding="utf-8")
    assert load_layers(tmp_path / "copy.json") == layers


def test_wrong_layer_files(tmp_path):
    for text, words in (
        ("[]", "list of layers"),
        ('[{"name": "x"}]', "kind is missing"),
        ("{", "not JSON"),
        ('[{"name":"x","kind":"conv","C":0,"K":1,"P":1,"Q":1,"R":1,"S":1,"stride":1}]', "C must be an integer from 1"),
        ('[{"name":"x","kind":"lstm","C":1,"K":1,"P":1,"Q":1,"R":1,"S":1,"stride":1}]', "kind"),
    ):
        (tmp_path / "net.json").write_text(text, encoding="utf-8")
        with pytest.raises(DesignError, match=words):
            load_layers(tmp_path / "net.json")
    with pytest.raises(DesignError, match="impala"):
        load_layers("alexnet")


def test_layers_without_weights_use_no_constants_of_the_array():
    table = _table(load_layers("impala"), NPU)
    pool = [i for i, layer in enumerate(load_layers("impala")) if layer.kind == "pool"]
    assert (table.parts["multiply"][0, pool] == 0).all() and (table.parts["dram"][0, pool] > 0).all()


def test_a_layer_goes_where_it_fits():
    """The small chunk cannot hold the first layer, so the cuts must leave it to the other one; alone it is refused."""
    layers = load_layers("nature")
    small = replace(NPU.chunks[0], weight_buffer_bytes=16)
    both = replace(NPU, chunks=(NPU.chunks[0], small))
    result = evaluate(layers, both, "interval")
    assert result.layers[0].chunk == 0 and {layer.chunk for layer in result.layers} == {0, 1}
    assert result.interval_s < evaluate(layers, NPU, "interval").interval_s
    for chunks in ((small,), (small, small)):
        with pytest.raises(InfeasibleCandidateError, match="conv1"):
            evaluate(layers, replace(NPU, chunks=chunks))
    with pytest.raises(InfeasibleCandidateError, match="conv1"):
        evaluate(layers, both, chunk_of=[1] * len(layers))
