"""Constants, resources and buffer tiles of the accelerator model against figures on paper."""

from dataclasses import replace

import pytest
import torch

from accel_models import energy, load_design
from accel_models.engines.mapper import best_tile, candidate_tiles, tile_limits
from accel_models.engines.tile_engine import tile_engine_cycles
from accel_models.layers import LayerShape, stack
from accel_models.resources import Resources, bram18_blocks, dsp_per_multiplier, resources
from latency_tables.errors import InfeasibleCandidateError

NPU, ZC706 = load_design("edge-npu"), load_design("zc706")
CONV = LayerShape("x", "conv", 1, 20, 1, 5, 3, 3, 3, 1)


def num(value):
    return torch.tensor(float(value), dtype=torch.float64)


def test_constants_of_an_asic_by_hand():
    """The figures of a technology are given in picojoules and square micrometres; tables hold joules and square millimetres."""
    table = energy._asic(28, 0.59, 2.06, 0.043, 0.4, 369, 1.4e-3)
    assert table.multiply_j == pytest.approx({8: 0.59e-12, 16: 2.06e-12}) and table.multiply_mm2 == pytest.approx({8: 369e-6})
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
    assert read == pytest.approx(1.2 / 2.9 * 0.638e-12 * 4**0.569 * 64**0.312, rel=1e-12)
    assert write == pytest.approx(1.2 / 2.9 * 0.476e-12 * 4**0.459 * 64**0.5, rel=1e-12)
    flat = energy.sram_j(energy.ENERGY_TABLES["eyeriss65"], torch.full((2,), 4096.0), num(64), True)
    assert flat.tolist() == pytest.approx([8 * 3e-12] * 2)


def test_energy_parts_by_hand():
    counts = {"macs": num(7), "register_bytes": num(11), "dram_bytes": num(13), "buffer_j": num(5e-12)}
    parts = energy.energy_parts(energy.ENERGY_TABLES["eyeriss65"], counts, 16)
    assert tuple(parts) == energy.PARTS == ("multiply", "register", "buffer", "dram")
    wanted = {"multiply": 7e-12, "register": 5.5e-12, "buffer": 5e-12, "dram": 1300e-12}
    assert {name: float(part) for name, part in parts.items()} == pytest.approx(wanted)
    assert float(energy.total(parts)) == pytest.approx(sum(wanted.values()))


def test_what_exceeds_a_platform_is_named():
    platform = replace(ZC706.platform, dsp_limit=10, bram18_limit=20, sram_limit_bytes=30, pe_limit=40)
    assert Resources(40, 10.0, 20, 30, None).over(platform) == []
    assert Resources(41, 10.5, 21, 31, None).over(platform) == [
        "10.5 DSP, the limit is 10",
        "21 BRAM18, the limit is 20",
        "31 SRAM bytes, the limit is 30",
        "41 processing elements, the limit is 40",
    ]
    assert Resources(41, None, None, None, None).over(replace(platform, pe_limit=None)) == []
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


def test_a_tile_engine_rounds_as_asked_and_has_five_factors():
    layer = stack([LayerShape("x", "conv", 2, 5, 3, 4, 4, 3, 3, 1)])
    steps = (1, 2.1, 2, 3, 4)
    assert tile_engine_cycles(layer, steps).tolist() == [9 * 2 * 3 * 2 * 2 * 1]
    assert tile_engine_cycles(layer, steps, "smooth").tolist() == pytest.approx([9 * 2 * (5 / 2.1) * 1.5 * (4 / 3)], rel=1e-12)
    with pytest.raises(ValueError, match="zip"):
        tile_engine_cycles(layer, steps[:4])
