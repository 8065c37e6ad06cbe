"""The report's section on the accelerator: its design, what it occupies, each layer's utilisation, roofline, energy by part.

Read from ``architecture.json`` alone, where the search left design, limits and the network on it. All of it is modelled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accel_models.design import AccelDesign, Chunk
from cosearch.record.results.architecture import AcceleratorRecord, NetworkRecord
from cosearch.report.architecture import cells
from cosearch.report.data import Run
from cosearch.report.drawings.plots import Plot
from cosearch.report.drawings.svg import AGENT, MUTED, TARGET, figure, inline_svg
from cosearch.report.format import count_text, significant

NOT_VALIDATED = (
    "Cycles of the array and the rules that count traffic are checked against SCALE-Sim, ZigZag and Timeloop; latency and energy "
    "of whole layers are not. Nothing here validates absolute frames per second of an FPGA, timing closure, routing or power; "
    "static power is left out."
)
NO_ENERGY = "null: no sourced constants for this platform"
DATAFLOWS = {"ws": "weight-stationary", "os": "output-stationary", "is": "input-stationary"}


@dataclass(frozen=True)
class Layer:
    """One row of the table of layers; energy is None where unknown.

    Attributes:
        name: block and layer.
        chunk: stage of the pipeline, from 1.
        utilisation: share of the array's multiplications that are used, 0..1; None for layers without weights.
        bound: ``array``, ``DRAM`` or empty: what the latency waits for.
        cycles, dram_bytes, latency_s, energy_j: of the layer.
    """

    name: str
    chunk: int
    utilisation: float | None
    bound: str
    cycles: float
    dram_bytes: float
    latency_s: float
    energy_j: float | None


@dataclass(frozen=True)
class Array:
    """One row of the table of arrays.

    Attributes:
        number: stage of the pipeline, from 1.
        array: rows and columns.
        engine: dataflow, or that it is a tile engine.
        tile: its sizes, or that each layer has its own.
        buffers: bytes for weights, inputs and outputs.
    """

    number: int
    array: str
    engine: str
    tile: str
    buffers: tuple[float, float, float]


@dataclass(frozen=True)
class Section:
    """What the page shows of an accelerator.

    Attributes:
        name: of the design.
        design: label and text of each line of the design table.
        chunks: the stages of the pipeline.
        speed: label, seconds for each frame and frames per second: one frame alone, and a full pipeline.
        layers: the layers that take time.
        energy: part and joules; empty where unknown.
        no_energy: the sentence that stands in its place.
        roofline: the plot.
        not_validated: what nothing here proves.
    """

    name: str
    design: list[tuple[str, str]]
    chunks: list[Array]
    speed: list[tuple[str, float, float]]
    layers: list[Layer]
    energy: list[tuple[str, float]]
    no_energy: str
    roofline: Plot | None
    not_validated: str


def accelerator_section(run: Run) -> Section | None:
    """The section of a run whose device is an accelerator; None for any other, and before the search has ended."""
    record = None if run.architecture is None else run.architecture.predicted.accelerator
    if record is None:
        return None
    design, network = AccelDesign.from_dict(record.design), record.network
    parts = _energy(network)
    return Section(
        name=design.name,
        design=_design(design, record),
        chunks=[_array(number, chunk) for number, chunk in enumerate(design.chunks, start=1)],
        speed=[
            ("one frame alone, as for an agent in one environment", network.latency_s, network.single_frame_per_s),
            ("pipeline full, many environments", network.interval_s, network.frames_per_s),
        ],
        layers=_layers(run, design, network),
        energy=parts,
        no_energy="" if parts else NO_ENERGY,
        roofline=roofline_plot(design, network),
        not_validated=NOT_VALIDATED,
    )


def _design(design: AccelDesign, record: AcceleratorRecord) -> list[tuple[str, str]]:
    used, limits, platform = record.network.resources, record.limits, design.platform
    lines = [("platform", platform.description or platform.name)]
    for label, value, limit in (
        ("DSP slices", used.dsp, limits.dsp),
        ("BRAM, 18 kbit", used.bram18, limits.bram18),
        ("processing elements", used.elements, limits.elements),
        ("SRAM, bytes", used.sram_bytes, limits.sram_bytes),
    ):
        if value is not None and limit is not None:
            lines.append((label, f"{value:g} of {limit:g}"))
    bits = f"weights {design.weight_bits}, activations {design.activation_bits}, sums {design.partial_bits} bits"
    lines += [
        ("clock", f"{platform.clock_hz / 1e6:g} MHz"),
        ("DRAM bandwidth", f"{platform.dram_bytes_per_s / 1e9:g} GB/s"),
        ("numbers", bits),
        ("buffers", "double" if design.double_buffered else "single"),
    ]
    return lines if used.area_mm2 is None else [*lines, ("area", f"{significant(used.area_mm2)} mm²")]


def _array(number: int, chunk: Chunk) -> Array:
    return Array(
        number=number,
        array=f"{chunk.rows} × {chunk.cols}",
        engine="tile engine" if chunk.dataflow is None or chunk.engine == "tile" else DATAFLOWS[chunk.dataflow],
        tile="× ".join(str(size) for size in chunk.tile) if chunk.tile else "best of each layer",
        buffers=(chunk.weight_buffer_bytes, chunk.input_buffer_bytes, chunk.output_buffer_bytes),
    )


def _layers(run: Run, design: AccelDesign, network: NetworkRecord) -> list[Layer]:
    platform = design.platform
    blocks = [f"{box.point}: {box.operation}" if box.point else box.operation for box in cells(run)[0] if box.key is not None]
    rows = []
    for layer in network.layers:
        if not layer.latency_s:
            continue  # applied while a tile leaves its buffer
        place, _, name = layer.name.partition(".")
        block = blocks[int(place)] if place.isdigit() and int(place) < len(blocks) else place
        moving = layer.dram_bytes / platform.dram_bytes_per_s
        rows.append(
            Layer(
                name=f"{block}, {name}",
                chunk=layer.chunk + 1,
                utilisation=layer.utilisation if layer.macs else None,
                bound="DRAM" if moving > layer.cycles / platform.clock_hz else "array",
                cycles=layer.cycles,
                dram_bytes=layer.dram_bytes,
                latency_s=layer.latency_s,
                energy_j=layer.energy_j,
            )
        )
    return rows


def _energy(network: NetworkRecord) -> list[tuple[str, float]]:
    """Joules of one frame by part, over all layers; empty where a layer's energy is unknown."""
    totals: dict[str, float] = {}
    for layer in network.layers:
        if layer.energy_parts is None:
            return []
        for name, energy_j in layer.energy_parts.items():
            totals[name] = totals.get(name, 0.0) + energy_j
    return list(totals.items())


def roofline_plot(design: AccelDesign, network: NetworkRecord) -> Plot | None:
    """Attained multiply-accumulates a second against those for each DRAM byte, under the two roofs of the design.

    Args:
        design: the accelerator.
        network: its layers on it.
    """
    clock, bandwidth = design.platform.clock_hz, design.platform.dram_bytes_per_s
    busy = [layer for layer in network.layers if layer.macs and layer.dram_bytes]
    if not busy:
        return None
    peaks = sorted({chunk.rows * chunk.cols * clock for chunk in design.chunks})
    work = np.array([layer.macs / layer.dram_bytes for layer in busy])
    rate = np.array([layer.macs / layer.latency_s for layer in busy])
    x = np.geomspace(min(work.min(), peaks[0] / bandwidth) / 2, max(work.max(), peaks[-1] / bandwidth) * 2, 200)
    with figure(height=3.1) as (drawing, (axes,)):
        for index, peak in enumerate(peaks):
            axes.plot(x, np.minimum(bandwidth * x, peak), color=TARGET, linewidth=1.4, label=None if index else "roof")
        axes.plot(work, rate, "o", color=AGENT, markersize=4, label="layer", linestyle="none")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("MACs for each DRAM byte", color=MUTED)
        axes.set_ylabel("MACs a second")
        axes.legend(loc="lower right")
        best = count_text(float(rate.max()))
        svg = inline_svg(drawing, "roofline", f"Roofline: {len(busy)} layers, the fastest at {best} MACs a second")
    caption = "Slope: the DRAM port. Level: every multiplier busy. A layer far below both waits for the array to fill and drain."
    return Plot("Roofline", svg, caption)
