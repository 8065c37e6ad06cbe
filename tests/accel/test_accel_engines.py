"""Engines and traffic against brute-force counting; relaxed forms against exact ones and finite differences."""

import itertools
import random
import time

import pytest
import torch

from accel_models.cost import Machine, clipped_tiles, compute_counts, compute_cycles, layer_costs
from accel_models.design import Chunk, load_design
from accel_models.engines import loopnest
from accel_models.engines.rounding import folds
from accel_models.engines.systolic import DATAFLOWS, product_view, systolic_counts
from accel_models.engines.tile_engine import tile_engine_cycles
from accel_models.engines.traffic import NEST, ORDERS, buffer_elements, dram_traffic, tiles
from accel_models.evaluation import _tile_engine_counts
from accel_models.layers import LayerShape, load_layers, stack
from latency_tables.errors import ConfigError


def num(value):
    return torch.tensor(float(value), dtype=torch.float64)


def random_layer(rng, depthwise=False):
    channels, inputs = rng.randint(1, 6), rng.randint(1, 5)
    kind, size = ("dw", {"G": channels, "K": 1, "C": 1}) if depthwise else ("conv", {"G": 1, "K": channels, "C": inputs})
    kernel = rng.randint(1, 3)
    return LayerShape("x", kind, **size, P=rng.randint(1, 6), Q=rng.randint(1, 6), R=kernel, S=kernel, stride=rng.randint(1, 3))


def simulate(layer, step, nest):
    """Walk the loops around a tile and count elements that cross the border; keeps overlap along the innermost relevant loop."""
    size = {d: getattr(layer, d) for d in "GKCPQ"}
    starts = {d: range(0, size[d], step[d]) for d in nest}
    relevant = {"W": "GKC", "I": "GCPQ", "O": "GKPQ"}
    inner = {t: next((d for d in nest if d in relevant[t] and len(starts[d]) > 1), None) for t in relevant}
    last, held, moved, seen = {}, set(), {"W": 0, "I": 0, "O": 0, "back": 0}, set()

    def span(d, at):
        return range(at[d], min(at[d] + step[d], size[d]))

    def window(d, kernel, at):
        low, high = at[d] * layer.stride, (min(at[d] + step[d], size[d]) - 1) * layer.stride + kernel
        return range(low, high)

    for point in itertools.product(*(starts[d] for d in reversed(nest))):
        at = dict(zip(reversed(nest), point, strict=True))
        for tensor, dims in relevant.items():
            key = tuple(at[d] for d in dims)
            if last.get(tensor) == key:
                continue
            before, last[tensor] = last.get(tensor), key
            if tensor == "W":
                moved["W"] += len(span("G", at)) * len(span("K", at)) * len(span("C", at)) * layer.R * layer.S
            elif tensor == "O":
                elements = len(span("G", at)) * len(span("K", at)) * len(span("P", at)) * len(span("Q", at))
                moved["O"] += elements
                moved["back"] += elements if key in seen else 0
                seen.add(key)
            else:
                needed = set(itertools.product(span("G", at), span("C", at), window("P", layer.R, at), window("Q", layer.S, at)))
                slid = (
                    before is not None
                    and inner["I"] is not None
                    and all(a == b for d, a, b in zip(dims, key, before, strict=True) if d != inner["I"])
                    and key > before
                )
                overlaps = {"P": layer.stride <= layer.R, "Q": layer.stride <= layer.S}.get(inner["I"], False)
                moved["I"] += len(needed - held) if slid and overlaps else len(needed)
                held = needed
    return moved


def test_batched_traffic_equals_walking_the_loops():
    rng = random.Random(0)
    for trial in range(250):
        layer = random_layer(rng, depthwise=trial % 4 == 0)
        step = {d: rng.randint(1, 6) for d in "KCPQ"}
        own = {**step, "G": step["K"] if layer.kind == "dw" else 1}
        shapes = stack([layer])
        traffic = dram_traffic(shapes, tiles(shapes, *(num(step[d]) for d in "KCPQ")))
        for place, order in enumerate(ORDERS):
            want = simulate(layer, own, NEST[order])
            got = [float(part[0, place]) for part in (traffic.weights, traffic.inputs, traffic.partial_reads)]
            assert got == pytest.approx([want["W"], want["I"], want["back"]], rel=1e-12), (layer, step, order)
            assert float((traffic.outputs + traffic.partial_writes)[0, place]) == pytest.approx(want["O"], rel=1e-12)


def test_batched_traffic_equals_the_loop_nest():
    rng = random.Random(1)
    for _ in range(200):
        n, t = ({d: rng.choice((1, 2, 3, 4)) for d in "GKCPQ"} for _ in range(2))
        t["G"], kernel, stride = 1, rng.choice((1, 3)), rng.choice((1, 2))
        size = {d: n[d] * t[d] for d in "GKCPQ"}
        layer = LayerShape("x", "conv", **size, R=kernel, S=kernel, stride=stride)
        shapes = stack([layer])
        traffic = dram_traffic(shapes, tiles(shapes, *(num(t[d]) for d in "KCPQ")))
        inside = {**t, "R": kernel, "S": kernel}
        for place, order in enumerate(ORDERS):
            outside = [(d, n[d]) for d in NEST[order]]
            out = loopnest.output_traffic(inside, outside)
            assert float(traffic.weights[0, place]) == loopnest.fills("W", inside, outside)
            assert float(traffic.inputs[0, place]) == loopnest.fills("I", inside, outside, (stride, stride))
            assert float(traffic.partial_reads[0, place]) == out.read_back
            assert out.spills == (out.read_back > 0) and out.written - out.read_back == layer.outputs


def test_tile_engine_equals_counting_steps():
    rng = random.Random(2)
    for trial in range(60):
        layer = random_layer(rng, depthwise=trial % 3 == 0)
        unroll = [rng.randint(1, 4) for _ in range(5)]
        loops = [range(0, getattr(layer, d), u) for d, u in zip("GKCPQ", unroll, strict=True)]
        steps = itertools.product(*loops, range(layer.R * layer.S))
        assert float(tile_engine_cycles(stack([layer]), unroll)[0]) == sum(1 for _ in steps)


def test_words_of_a_tile_engine_equal_counting_steps():
    """Idle multipliers of a ragged edge read nothing; sums leave once a kernel and step of input channels."""
    rng = random.Random(6)
    layers = [random_layer(rng, depthwise=trial % 3 == 0) for trial in range(40)]
    for layer in [*layers, LayerShape("x", "conv", 1, 17, 16, 4, 4, 3, 3, 1)]:
        g, k, c, p, q = unroll = tuple(rng.choice((1, 2, 3, 16)) for _ in range(5))
        weights = inputs = written = 0
        for at in itertools.product(*(range(0, getattr(layer, d), u) for d, u in zip("GKCPQ", unroll, strict=True))):
            a, b, d, e, f = (min(u, getattr(layer, n) - i) for n, u, i in zip("GKCPQ", unroll, at, strict=True))
            weights += a * b * d * layer.R * layer.S
            inputs += a * d * e * f * layer.R * layer.S
            written += a * b * e * f
        chunk = Chunk(c, g * k * p * q, None, 10**6, 10**6, 10**6, engine="tile", unroll=unroll)
        counts = _tile_engine_counts(stack([layer]), unroll)
        got = (counts.weight_reads, counts.input_reads, counts.output_writes)
        assert [float(words[0, 0]) for words in got] == [weights, inputs, written], (layer, unroll)
        assert chunk.ports == (g * k * c, g * c * p * q, g * k * p * q)


def test_systolic_reads_equal_counting_folds():
    """Walk the folds of a small product and add up what each streams, holds and writes."""
    layer = LayerShape("x", "conv", 1, 5, 3, 3, 4, 2, 2, 1)
    got = systolic_counts(product_view(stack([layer])), num(4), num(3))
    for place, dataflow in enumerate(DATAFLOWS):
        window, pixels, outs = 12, 12, 5
        high, wide, length = {"ws": (window, outs, pixels), "os": (pixels, outs, window), "is": (window, pixels, outs)}[dataflow]
        cycles = along = down = held = 0
        for row in range(0, high, 4):
            for col in range(0, wide, 3):
                r, c = min(4, high - row), min(3, wide - col)
                cycles += (4 if dataflow != "os" else 0) + 4 + 3 + length - 2
                along, down, held = along + r * length, down + c * length, held + r * c
        words = {"ws": (along, held, down), "os": (along, down, held), "is": (held, along, down)}[dataflow]
        counted = (got.cycles, got.input_reads, got.weight_reads, got.output_writes)
        assert [float(v[0, place]) for v in counted] == [cycles, *words]


def streamed_inputs(layer, dataflow, wide):
    """Words read along the rows, and how many inputs they are: at each step a row takes each input once that its columns need."""
    window = list(itertools.product(range(layer.C), range(layer.R), range(layer.S)))
    pixels = list(itertools.product(range(layer.P), range(layer.Q)))
    outs = range(layer.G * layer.K)
    rows, length = (window, pixels) if dataflow == "ws" else (pixels, window)
    reads, distinct = 0, set()
    for first in range(0, len(outs), wide):
        for row, step in itertools.product(rows, length):
            (c, r, s), (p, q) = (row, step) if dataflow == "ws" else (step, row)
            groups = {out // layer.K for out in outs[first : first + wide]}
            needed = {(g, c, p * layer.stride + r, q * layer.stride + s) for g in groups}
            reads, distinct = reads + len(needed), distinct | needed
    return reads, len(distinct)


def test_input_reads_equal_counting_what_columns_can_share():
    rng = random.Random(3)
    for trial in range(60):
        layer, high, wide = random_layer(rng, depthwise=trial % 2 == 0), rng.randint(1, 5), rng.randint(1, 4)
        got = systolic_counts(product_view(stack([layer])), num(high), num(wide)).input_reads[0]
        for place, dataflow in enumerate(DATAFLOWS[:2]):
            reads, distinct = streamed_inputs(layer, dataflow, wide)
            assert float(got[place]) == reads >= distinct, (layer, dataflow, wide)
        if layer.kind == "dw":  # no two columns, steps or folds use one input together, in any dataflow
            assert got.tolist() == [layer.macs] * 3


def test_systolic_counts_leave_the_rounding_out_where_asked():
    """3 x 3 windows of 2 channels and 25 pixels on 4 x 2 columns of 5 outputs: 4.5 folds of rows and 2.5 of columns."""
    got = systolic_counts(
        product_view(stack([LayerShape("x", "conv", 1, 5, 2, 5, 5, 3, 3, 1)])), num(4), num(2), rounding="smooth"
    )
    assert got.folds[0].tolist() == [4.5 * 2.5, 6.25 * 2.5, 4.5 * 12.5]
    assert float(got.cycles[0, 0]) == 4.5 * 2.5 * (2 * 4 + 2 + 25 - 2) and float(got.input_reads[0, 0]) == 25 * 18 * 2.5


def test_depthwise_modes_differ_and_columns_uses_them():
    shapes = stack([LayerShape("x", "dw", 16, 1, 1, 4, 4, 3, 3, 1)])
    channels, columns = (
        systolic_counts(product_view(shapes, mode), num(8), num(8)).cycles[0] for mode in ("channels", "columns")
    )
    assert channels[0] == 16 * 2 * (8 * 2 + 8 + 16 - 2) and columns[0] == 2 * 2 * (8 * 2 + 8 + 16 - 2)
    assert channels[2] == columns[2], "input-stationary cannot spread channels over columns"
    with pytest.raises(ConfigError, match="depthwise_mode"):
        product_view(shapes, "rows")


def test_depthwise_columns_stream_more_words_a_cycle_than_the_input_buffer_has_banks():
    """As docs/guide/accelerators.md says: 96 channels of 21 x 21 outputs, 3 x 3 kernel, on the 30 x 30 array of zc706."""
    (chunk,), (layer,) = load_design("zc706").chunks, [n for n in load_layers("mobilenet") if n.name == "b2.depthwise"]
    counts = systolic_counts(product_view(stack([layer])), num(chunk.rows), num(chunk.cols))
    assert counts.input_reads[0, 0] == 96 * 21 * 21 * 9 and counts.cycles[0, 0] == 4 * (2 * 30 + 30 + 21 * 21 - 2)
    assert chunk.ports == (30, 30, 30) and round(float(counts.input_reads[0, 0] / counts.cycles[0, 0])) == 180
    one = systolic_counts(product_view(stack([layer]), "channels"), num(chunk.rows), num(chunk.cols))
    assert float(one.input_reads[0, 0] / one.cycles[0, 0]) < 30


def overlapped_cycles(folds, length, rows, cols, loads):
    """Walk the folds: while one streams, the next one's operand is loaded in ``rows`` cycles (or the last one's sums leave)."""
    ready = rows if loads else 0  # when the operand of the first fold is in the array
    for fold in range(folds):
        begin = ready
        ready = begin + max(length, rows if fold + 1 < folds else 0)
    return ready + rows + cols - 2  # the last value passes all rows and columns


def test_overlapped_filling_equals_walking_the_folds_and_never_costs_cycles():
    rng = random.Random(5)
    fixed = [LayerShape("x", "conv", 1, 32, 32, 8, 8, 3, 3, 1), LayerShape("g", "conv", 32, 4, 4, 6, 6, 3, 3, 1)]
    fixed += [LayerShape("f", "fc", 1, 15, 256, 1, 1, 1, 1, 1), LayerShape("d", "dw", 32, 1, 1, 6, 5, 3, 3, 1)]
    for layer in [*fixed, *(random_layer(rng, depthwise=trial % 2 == 0) for trial in range(40))]:
        for mode, rows, cols in itertools.product(("channels", "columns"), (1, 2, 16), (1, 3, 16)):
            product = product_view(stack([layer]), mode)
            plain, over = (systolic_counts(product, num(rows), num(cols), overlap_fill=o) for o in (False, True))
            for place, dataflow in enumerate(DATAFLOWS):
                folds, length = int(over.folds[0, place] * product.repeats[0, place]), int(product.length[0, place])
                want = overlapped_cycles(folds, length, rows, cols, dataflow != "os")
                assert float(over.cycles[0, place]) == want <= float(plain.cycles[0, place]), (layer, mode, rows, cols, dataflow)
            assert torch.equal(plain.input_reads, over.input_reads) and torch.equal(plain.output_writes, over.output_writes)


def test_rounding_modes():
    size, step = num(10), num(4).requires_grad_(True)
    assert [float(folds(size, step.detach(), mode)) for mode in ("exact", "straight", "smooth")] == [3, 3, 2.5]
    folds(size, step, "straight").backward()
    assert float(step.grad) == pytest.approx(-10 / 16)
    assert float(folds(num(2), num(4), "smooth")) == 1.0 and float(folds(size, step.detach())) == 3.0
    with pytest.raises(ConfigError, match="rounding"):
        folds(size, step, "floor")


def costs_at(layers, machine, knobs, rounding):
    shapes = stack(layers)
    rows, cols = knobs[0].reshape(1, 1), knobs[1].reshape(1, 1)
    tile = clipped_tiles(shapes, tuple(k.reshape(1) for k in knobs[2:]), rounding)
    return layer_costs(shapes, machine, compute_counts(shapes, machine, rows, cols, rounding), rows, cols, tile)


@pytest.mark.parametrize("rounding", ["smooth", pytest.param("straight", marks=pytest.mark.slow)])
def test_relaxed_equals_exact_at_integer_points(rounding):
    from accel_models.energy import ENERGY_TABLES

    machine = Machine(8.0, energy=ENERGY_TABLES["asic45"])
    layers = [
        LayerShape("a", "conv", 1, 32, 16, 16, 16, 1, 1, 1),
        LayerShape("b", "conv", 1, 64, 32, 8, 8, 2, 2, 2),
        LayerShape("c", "dw", 32, 1, 1, 16, 16, 4, 4, 1),
        LayerShape("d", "fc", 1, 64, 128, 1, 1, 1, 1, 1),
        LayerShape("e", "pool", 32, 1, 1, 8, 8, 3, 3, 2),
    ]
    for knobs in itertools.product((1, 2, 4), (1, 2, 8), (1, 8, 16), (1, 4, 16), (1, 2, 8), (1, 4, 8)):
        values = [num(k) for k in knobs]
        exact, relaxed = costs_at(layers, machine, values, "exact"), costs_at(layers, machine, values, rounding)
        for a, b in (
            (exact.latency_cycles, relaxed.latency_cycles),
            (exact.energy_j, relaxed.energy_j),
            (exact.dram_bytes, relaxed.dram_bytes),
        ):
            assert torch.allclose(a, b, rtol=1e-9, atol=0), knobs


def test_gradients_equal_central_differences():
    from accel_models.energy import ENERGY_TABLES

    machine = Machine(8.0, energy=ENERGY_TABLES["asic28"])
    layers = load_layers("mobilenet")
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        knobs = (torch.rand(6, generator=generator, dtype=torch.float64) * 3 + 0.31).requires_grad_(True)

        def value(k):
            costs = costs_at(layers, machine, list(torch.exp2(k)), "smooth")
            return torch.stack([costs.compute_cycles.log().sum(), costs.energy_j.log().sum(), costs.latency_cycles.log().sum()])

        for place in range(3):
            own = torch.autograd.grad(value(knobs)[place], knobs)[0]
            step = 1e-6
            moves = torch.eye(6, dtype=torch.float64) * step
            at = knobs.detach()
            numeric = torch.stack([(value(at + move)[place] - value(at - move)[place]) / (2 * step) for move in moves])
            assert torch.allclose(own, numeric, rtol=1e-4, atol=1e-5), (own, numeric)


def test_tile_holds_what_the_buffer_is_charged_for():
    layer = LayerShape("x", "conv", 1, 8, 4, 8, 8, 3, 3, 2)
    shapes = stack([layer])
    weight, inputs, outputs = buffer_elements(shapes, tiles(shapes, num(4), num(2), num(2), num(8)).largest)
    assert (float(weight), float(inputs), float(outputs)) == (4 * 2 * 9, 2 * (2 + 3) * (7 * 2 + 3), 4 * 2 * 8)


def test_a_thousand_designs_in_under_a_second():
    """1,000 designs x 27 layers x 3 dataflows with DRAM traffic and three loop orders, forward and backward, one core."""
    shapes, machine = stack(load_layers("accel_models/data/layers.csv")), Machine(16.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        best = float("inf")
        for _ in range(3):
            knobs = (torch.rand(1000, 5, dtype=torch.float64) * 5).requires_grad_(True)
            begin = time.process_time()
            k = torch.exp2(knobs)
            rows, cols = k[:, 0, None, None], k[:, 1, None, None]
            columns = torch.full((1000, 1), 1e6, dtype=torch.float64)
            tile = clipped_tiles(shapes, (k[:, 2, None], k[:, 3, None], k[:, 4, None], columns), "smooth")
            counts = compute_counts(shapes, machine, rows, cols, "smooth")
            out = layer_costs(shapes, machine, counts, rows, cols, tile).latency_cycles
            out.log().sum().backward()
            best = min(best, time.process_time() - begin)
        assert out.shape == (1000, 27, 3) and bool(torch.isfinite(knobs.grad).all()) and best < 1.0
    finally:
        torch.set_num_threads(threads)


def test_fused_layers_cost_nothing_and_pools_stream():
    shapes = stack([LayerShape("r", "relu", 8, 1, 1, 4, 4, 1, 1), LayerShape("p", "pool", 8, 1, 1, 4, 4, 3, 3, 2)])
    counts = compute_counts(shapes, Machine(8.0), num(4).reshape(1, 1), num(4).reshape(1, 1))
    cycles = compute_cycles(shapes, counts, num(4).reshape(1, 1))
    assert cycles[0].tolist() == [0, 0, 0] and cycles[1].tolist() == [8 * 16 * 9 / 4] * 3
