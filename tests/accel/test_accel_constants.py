"""Constants, resources and buffer tiles of the accelerator model against figures on paper."""

from dataclasses import replace

import pytest
import torch

from accel_models import energy, evaluate, load_design
from accel_models.cost import Machine, clipped_tiles, compute_counts, layer_costs, machine_of
from accel_models.design import Chunk
from accel_models.engines import loopnest
from accel_models.engines.mapper import best_tile, candidate_tiles, tile_limits
from accel_models.engines.tile_engine import tile_engine_cycles
from accel_models.engines.traffic import Traffic
from accel_models.layers import LayerShape, from_blocks, stack, to_records
from accel_models.resources import Resources, bram18_blocks, dsp_per_multiplier, resources
from latency_tables.errors import DesignError, InfeasibleCandidateError
from latency_tables.opspec import OpSpec

NPU, ZC706 = load_design("edge-npu"), load_design("zc706")
CONV = LayerShape("x", "conv", 1, 20, 1, 5, 3, 3, 3, 1)


def num(value):
    return torch.tensor(float(value), dtype=torch.float64)


def test_constants_of_an_asic_by_hand():
    """The figures of a technology are given in picojoules and square micrometres; tables hold joules and square millimetres."""
    table = energy._asic(28, 0.59, 2.06, 0.043, 0.4, 369, 1.4e-3)
    assert table.multiply_j == pytest.approx(
        {8: 0.59e-12, 16: 2.06e-12}, rel=1e-12, abs=0
    ) and table.multiply_mm2 == pytest.approx({8: 369e-6})
    assert (table.register_j_per_byte, table.dram_j_per_byte) == pytest.approx((0.043e-12, 64e-12), rel=1e-12, abs=0)
    assert (table.sram_scale, table.sram_mm2_per_kb, table.buffer_j_per_byte) == (0.4, 1.4e-3, None)
    assert table.description == "28 nm ASIC, LPDDR4"
    assert table.source == (
        "HWComponents (int8 and int16 MAC, register), CACTI 64-bit SRAM reads fitted over 1-1024 kB, LPDDR4 64 pJ/byte"
    )
    assert energy.ENERGY_TABLES["asic28"] == replace(table, sram_scale=1.2 / 2.9)


def test_an_sram_access_by_hand():
    table = energy.ENERGY_TABLES["asic28"]
    read, write = (float(energy.sram_j(table, num(4096), num(64), write)) for write in (False, True))
    assert read == pytest.approx(1.2 / 2.9 * 0.638e-12 * 4**0.569 * 64**0.312, rel=1e-12, abs=0)
    assert write == pytest.approx(1.2 / 2.9 * 0.476e-12 * 4**0.459 * 64**0.5, rel=1e-12, abs=0)
    flat = energy.sram_j(energy.ENERGY_TABLES["eyeriss65"], torch.full((2,), 4096.0, dtype=torch.float64), num(64), True)
    assert flat.tolist() == pytest.approx([8 * 3e-12] * 2, rel=1e-12, abs=0)


def test_energy_parts_by_hand():
    counts = {"macs": num(7), "register_bytes": num(11), "dram_bytes": num(13), "buffer_j": num(5e-12)}
    parts = energy.energy_parts(energy.ENERGY_TABLES["eyeriss65"], counts, 16)
    assert tuple(parts) == energy.PARTS == ("multiply", "register", "buffer", "dram")
    wanted = {"multiply": 7e-12, "register": 5.5e-12, "buffer": 5e-12, "dram": 1300e-12}
    assert {name: float(part) for name, part in parts.items()} == pytest.approx(wanted, rel=1e-12, abs=0)
    assert float(energy.total(parts)) == pytest.approx(sum(wanted.values()), rel=1e-12, abs=0)


def test_what_exceeds_a_platform_is_named():
    fpga = replace(ZC706.platform, dsp_limit=10, bram18_limit=20)
    asic = replace(NPU.platform, sram_limit_bytes=30, pe_limit=40)
    assert Resources(40, 10.0, 20, 30, None).over(fpga) == Resources(40, 10.0, 20, 30, None).over(asic) == []
    assert Resources(41, 10.5, 21, 31, None).over(fpga) == ["10.5 DSP, the limit is 10", "21 BRAM18, the limit is 20"]
    assert Resources(41, 10.5, 21, 31, None).over(asic) == [
        "31 SRAM bytes, the limit is 30",
        "41 processing elements, the limit is 40",
    ]
    assert Resources(41, None, None, None, None).over(fpga) == []
    wanted = {"elements": 1, "dsp": 2.0, "bram18": 3, "sram_bytes": 4, "area_mm2": 5.0}
    assert Resources(1, 2.0, 3, 4, 5.0).to_dict() == wanted


def test_resources_of_variants_by_hand():
    assert dsp_per_multiplier(9, "DSP48E2") == dsp_per_multiplier(8, None) == 1.0
    single = resources(replace(NPU, double_buffered=False))
    assert single == Resources(1024, None, None, 256 * 1024, pytest.approx(1024 * 369e-6 + 256 * 1.4e-3))
    assert resources(replace(NPU, platform=replace(NPU.platform, energy=None))).area_mm2 is None
    assert resources(replace(NPU, platform=replace(NPU.platform, energy="eyeriss65"))).area_mm2 is None
    assert resources(replace(NPU, weight_bits=16, activation_bits=16)).area_mm2 is None
    used = resources(replace(ZC706, double_buffered=False))
    assert (used.elements, used.dsp, used.bram18, used.sram_bytes) == (900, 900, 180, None)


def test_blocks_are_smooth_outside_results():
    size, banks = torch.tensor([100.0, 18_432.0]), torch.tensor(4.0)  # bytes: less than a block a bank, and two blocks a bank
    assert bram18_blocks(size, banks, False, "smooth").tolist() == [4.0, 8.0] == bram18_blocks(size, banks, False).tolist()
    assert bram18_blocks(size * 1.125, banks, True, "smooth").tolist() == [8.0, 18.0]
    assert bram18_blocks(size * 1.125, banks, True).tolist() == [8.0, 24.0]


def test_candidate_tiles_by_hand():
    """Powers of two, the size, and the even tile with as many folds as each of them: 20 in eights is three times 7."""
    channels, high = [1, 2, 4, 7, 8, 10, 16, 20], [(1, 3), (2, 3), (3, 3), (4, 3), (5, 3), (1, 1), (1, 2)]
    found = candidate_tiles(CONV)
    assert found == [(k, 1, p, q) for k in channels for p, q in high] and all(type(v) is int for tile in found for v in tile)
    depthwise = candidate_tiles(LayerShape("x", "dw", 3, 1, 1, 2, 1, 3, 3, 1))
    assert depthwise == [(k, 1, p, 1) for k in (1, 2, 3) for p in (1, 2)]
    assert len(candidate_tiles(replace(CONV, K=16, P=1, Q=1))) == 5  # 1, 2, 4, 8, 16: the size itself once


def test_a_layer_that_fits_nowhere_is_named_with_the_buffers():
    with pytest.raises(InfeasibleCandidateError) as caught:
        best_tile(CONV, (8, 100, 200), (1.0, 1.0, 4.0))
    assert str(caught.value) == (
        "layer 'x' does not fit buffers of 8, 100, 200 bytes (weights, inputs, outputs) "
        "even with one channel and one row a tile; make the buffers larger"
    )
    assert best_tile(CONV, (9, 9, 4), (1.0, 1.0, 4.0)) == (1, 1, 1, 1)


def test_of_tiles_with_equal_traffic_the_smallest_is_taken():
    """Everything fits: one fold along each loop would do, but tiling the rows moves no more while the kernels stay."""
    found = best_tile(CONV, (10**6,) * 3, (1.0, 1.0, 4.0))
    moved = {tile: tile[0] * tile[2] * tile[3] for tile in candidate_tiles(CONV)}
    assert found in moved and moved[found] < 20 * 5 * 3


def test_limits_of_a_tile_by_hand():
    shapes = stack([CONV, LayerShape("y", "dw", 6, 1, 1, 4, 4, 3, 3, 2)])
    weights, inputs, outputs = tile_limits(shapes, [num(v).reshape(1) for v in (4, 1, 2, 3)])
    assert weights.tolist() == [4 * 9, 4 * 9] and outputs.tolist() == [4 * 2 * 3, 4 * 2 * 3]
    assert inputs.tolist() == [(2 + 2) * (3 + 2), 4 * (1 * 2 + 3) * (2 * 2 + 3)]
    with pytest.raises(ValueError, match="zip"):
        tile_limits(shapes, [num(1).reshape(1)] * 5)


@pytest.mark.parametrize("kernel,stride", [(3, 1), (3, 2), (5, 1), (1, 1)])
def test_a_dilated_window_is_as_wide_as_the_inputs_that_it_spans(kernel, stride):
    """Against a walk over the outputs: the first and the last row and column that they read, every second one in between."""
    block = OpSpec("dilconv", 4, 12, 11, 8, kernel=kernel, stride=stride, padding=kernel - 1)
    ((layer,),) = from_blocks([block])

    def span(outputs):
        read = {p * stride + 2 * r for p in range(outputs) for r in range(kernel)}
        return max(read) - min(read) + 1

    assert layer.macs == block.macs and layer.weights == 8 * 4 * kernel**2
    assert layer.inputs == 4 * span(block.out_height) * span(block.out_width)
    _, inputs, _ = tile_limits(stack([layer]), [num(v).reshape(1) for v in (8, 2, 2, 3)])
    assert inputs.tolist() == [2 * span(2) * span(3)]
    moved = evaluate([layer], NPU).dram_bytes  # 8 bit, everything fits: each word once
    assert moved == layer.weights + layer.inputs + layer.outputs
    if kernel > 1:
        with pytest.raises(DesignError, match="dilation"):
            to_records([layer])


def test_a_tile_engine_rounds_as_asked_and_has_five_factors():
    layer = stack([LayerShape("x", "conv", 2, 5, 3, 4, 4, 3, 3, 1)])
    steps = (1, 2.1, 2, 3, 4)
    assert tile_engine_cycles(layer, steps).tolist() == [9 * 2 * 3 * 2 * 2 * 1]
    assert tile_engine_cycles(layer, steps, "smooth").tolist() == pytest.approx([9 * 2 * (5 / 2.1) * 1.5 * (4 / 3)], rel=1e-12)
    with pytest.raises(ValueError, match="zip"):
        tile_engine_cycles(layer, steps[:4])


def test_banks_and_ports_of_a_tile_engine_are_the_words_that_it_takes_at_once():
    """g k c = 2 x 3 x 4 weights, g c p q = 2 x 4 x 5 x 6 inputs, g k p q = 2 x 3 x 5 x 6 sums: a block for each, twice."""
    chunk = Chunk(4, 180, None, 64, 64, 64, engine="tile", unroll=(2, 3, 4, 5, 6))
    assert resources(replace(ZC706, chunks=(chunk,))).bram18 == 2 * (24 + 240 + 180)
    layer = LayerShape("x", "conv", 2, 3, 4, 5, 6, 1, 1, 1)  # one step: each word once
    wide = replace(chunk, weight_buffer_bytes=1000, input_buffer_bytes=1000, output_buffer_bytes=1000)
    design = replace(NPU, chunks=(wide,), overlap_fill=False)
    weights, inputs, outputs = 24, 240, 180  # bytes, and four of each sum
    ports = (24 * 8, 240 * 8, 180 * 32)
    wanted = weights * 8 / ports[0] * (read_j(2000, ports[0]) + write_j(2000, ports[0]))
    wanted += inputs * 8 / ports[1] * (read_j(2000, ports[1]) + write_j(2000, ports[1]))
    wanted += outputs * 32 / ports[2] * write_j(2000, ports[2]) + outputs * 8 / ports[2] * read_j(2000, ports[2])
    assert evaluate([layer], design).layers[0].energy_parts["buffer"] == pytest.approx(wanted, rel=1e-9, abs=0)


def read_j(capacity, bits):
    return 1.2 / 2.9 * 0.638e-12 * (capacity / 1024) ** 0.569 * bits**0.312


def write_j(capacity, bits):
    return 1.2 / 2.9 * 0.476e-12 * (capacity / 1024) ** 0.459 * bits**0.5


@pytest.mark.parametrize("outs, inputs", [(2, 4), (5, 40)])
@pytest.mark.parametrize("given", [None, (1000.0, 3000.0, 5000.0)])
def test_energy_of_a_layer_on_srams_by_hand(outs, inputs, given):
    """A 1x1 layer with 4 pixels on a weight-stationary array of 2 rows and 5 columns; bytes of a word: 3, 2 and 4."""
    machine = Machine(8.0, 3.0, 2.0, 4.0, 16, energy=energy.ENERGY_TABLES["asic28"])
    shapes, rows, cols = (
        stack([LayerShape("x", "conv", 1, outs, inputs, 2, 2, 1, 1, 1)]),
        num(2).reshape(1, 1),
        num(5).reshape(1, 1),
    )
    tile = clipped_tiles(shapes, tuple(num(64).reshape(1) for _ in range(4)))
    room = None if given is None else tuple(num(v).reshape(1, 1) for v in given)
    costs = layer_costs(shapes, machine, compute_counts(shapes, machine, rows, cols), rows, cols, tile, room)
    weights, pixels, results = outs * inputs, 4 * inputs, 4 * outs  # words; the outputs leave the array once for two inputs
    written = results * inputs // 2
    dram = 3 * weights + 2 * (pixels + results)
    sizes = (max(3 * weights, 64), max(2 * pixels, 64), max(4 * results, 64)) if given is None else given
    ports = (5 * 8 * 3, 2 * 8 * 2, 5 * 8 * 4)  # bits
    reads = (weights * 24, pixels * 16, (written - results) * 32)  # bits
    buffer = sum(bits / port * read_j(size, port) for bits, port, size in zip(reads, ports, sizes))
    buffer += written * 32 / 160 * write_j(sizes[2], 160)
    buffer += weights * 24 / 120 * write_j(sizes[0], 120) + pixels * 16 / 32 * write_j(sizes[1], 32)  # from DRAM
    buffer += results * 16 / 160 * read_j(sizes[2], 160)  # to DRAM
    macs = 4 * outs * inputs
    wanted = {
        "multiply": macs * 2.06e-12,
        "register": (macs * (3 + 2 + 8) + 3 * weights + 2 * pixels) * 0.043e-12,
        "buffer": buffer,
        "dram": dram * 64e-12,
    }
    assert {name: float(part[0, 0]) for name, part in costs.energy_parts.items()} == pytest.approx(wanted, rel=1e-9, abs=0)
    assert (
        float(costs.energy_j[0, 0]) == pytest.approx(sum(wanted.values()), rel=1e-9, abs=0)
        and float(costs.dram_bytes[0, 0]) == dram
    )
    cycles = (inputs / 2) * (2 * 2 + 5 + 4 - 2)
    assert float(costs.compute_cycles[0, 0]) == cycles and float(costs.latency_cycles[0, 0]) == max(cycles, dram / 8)
    assert [float(held) for held in costs.buffer_bytes] == [3 * weights, 2 * pixels, 4 * results]
    single = layer_costs(
        shapes, replace(machine, double_buffered=False), compute_counts(shapes, machine, rows, cols), rows, cols, tile
    )
    assert float(single.latency_cycles[0, 0]) == cycles + dram / 8


def test_spilled_sums_are_read_from_and_written_to_the_output_buffer():
    """Two tiles of input channels around two of rows: the sums of the first leave and come back, as the weights are dearer."""
    machine = Machine(8.0, 3.0, 2.0, 4.0, 16, energy=energy.ENERGY_TABLES["asic28"])
    shapes, side = stack([LayerShape("x", "conv", 1, 8, 64, 2, 1, 1, 1, 1)]), num(8).reshape(1, 1)
    tile = clipped_tiles(shapes, tuple(num(v).reshape(1) for v in (8, 32, 1, 1)))
    room = tuple(num(v).reshape(1, 1) for v in (1000.0, 3000.0, 5000.0))
    costs = layer_costs(shapes, machine, compute_counts(shapes, machine, side, side), side, side, tile, room)
    assert float(costs.dram_bytes[0, 0]) == 512 * 3 + 128 * 2 + 16 * 2 + 2 * 16 * 4
    bits = (512 * 24, 128 * 16, (8 * 16 - 16) * 32)  # read for the array; the outputs leave it once for eight inputs
    buffer = sum(n / port * read_j(size, port) for n, port, size in zip(bits, (192, 128, 256), (1000, 3000, 5000)))
    buffer += 8 * 16 * 32 / 256 * write_j(5000, 256)
    buffer += 512 * 24 / 192 * write_j(1000, 192) + 128 * 16 / 128 * write_j(3000, 128) + 16 * 32 / 256 * write_j(5000, 256)
    buffer += (16 * 16 + 16 * 32) / 256 * read_j(5000, 256)
    assert float(costs.energy_parts["buffer"][0, 0]) == pytest.approx(buffer, rel=1e-9, abs=0)


def test_layers_without_weights_stream_and_fused_ones_cost_nothing():
    machine = Machine(8.0, activation_bytes=2.0, energy=energy.ENERGY_TABLES["asic28"])
    shapes = stack([LayerShape("p", "pool", 8, 1, 1, 4, 4, 3, 3, 2), LayerShape("r", "relu", 8, 1, 1, 4, 4, 1, 1)])
    rows, cols = num(2).reshape(1, 1), num(4).reshape(1, 1)
    tile = clipped_tiles(shapes, tuple(num(64).reshape(1) for _ in range(4)))
    costs = layer_costs(shapes, machine, compute_counts(shapes, machine, rows, cols), rows, cols, tile)
    moved = 2 * (8 * 9 * 9 + 8 * 16)  # the window of 4 outputs by stride 2 is 9 wide
    assert costs.dram_bytes.tolist() == [[moved] * 3, [0] * 3] and all(held.tolist() == [0, 0] for held in costs.buffer_bytes)
    assert costs.compute_cycles.tolist() == [[8 * 16 * 9 / 4] * 3, [0] * 3]
    fill = 8 * 81 * 16 / 32 * write_j(64, 32) + 8 * 16 * 16 / 128 * read_j(64, 128)
    assert costs.energy_parts["buffer"].tolist() == [pytest.approx([fill] * 3, rel=1e-9, abs=0), [0] * 3]
    assert costs.energy_parts["dram"].tolist() == [pytest.approx([moved * 64e-12] * 3, rel=1e-9, abs=0), [0] * 3]
    assert costs.energy_parts["register"].tolist() == [[0] * 3] * 2 == costs.energy_parts["multiply"].tolist()


def test_the_shared_part_of_a_design_by_hand():
    machine = machine_of(
        replace(NPU, weight_bits=8, activation_bits=16, partial_bits=24, overlap_fill=False, double_buffered=False)
    )
    assert (machine.weight_bytes, machine.activation_bytes, machine.partial_bytes, machine.multiplier_bits) == (1.0, 2.0, 3.0, 16)
    assert (machine.overlap_fill, machine.double_buffered, machine.depthwise_mode) == (False, False, NPU.depthwise_mode)
    assert machine.dram_bytes_per_cycle == NPU.platform.dram_bytes_per_s / NPU.platform.clock_hz
    assert machine.energy is energy.ENERGY_TABLES[NPU.platform.energy] and machine_of(ZC706).energy is None


def test_bytes_of_a_traffic_by_hand():
    traffic = Traffic(*(torch.tensor([float(v)]) for v in (1, 10, 100, 1000, 10000)))
    assert traffic.bytes(2.0, 3.0, 5.0).tolist() == [2 + 3 * 10 + 5 * 1100 + 3 * 10000]


def test_words_of_an_input_tile_with_two_strides_by_hand():
    inside = {"G": 2, "K": 3, "C": 5, "P": 4, "Q": 2, "R": 3, "S": 2}
    assert loopnest.tile_elements("I", inside, (2, 3)) == 2 * 5 * (3 * 2 + 3) * (1 * 3 + 2)
    assert loopnest.touched(4, 3, 2) == 9 and loopnest.touched(4, 2, 5) == 8  # one window; four pieces of two rows
    assert loopnest.multicast_elements(inside, (2, 3)) == 2 * 5 * 9 * 4
