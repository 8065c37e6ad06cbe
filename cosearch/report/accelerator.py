"""The report's section on the accelerator: its design, what it occupies, each layer's utilisation, roofline, energy by part.

Read from ``architecture.json`` alone, where the search left design, limits and the network on it. All of it is modelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cosearch.report.architecture import cells
from cosearch.report.data import Run, number, part, records
from cosearch.report.format import count_text, significant
from cosearch.report.plots import Plot
from cosearch.report.svg import AGENT, MUTED, TARGET, figure, inline_svg

NOT_VALIDATED = (
    "Cycles, DRAM bytes and energies of these models are checked against SCALE-Sim, ZigZag and Timeloop. Nothing here validates "
    "absolute frames per second of an FPGA, timing closure, routing or power; static power is left out."
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
class Section:
    """What the page shows of an accelerator.

    Attributes:
        name: of the design.
        design: label and text of each line of the design table.
        chunks: the stages: number, array, engine and dataflow, tile, and the three buffers in bytes.
        speed: label and text: one frame alone, and a full pipeline.
        layers: the layers that take time.
        energy: part and joules; empty where unknown.
        no_energy: the sentence that stands in its place.
        roofline: the plot.
        not_validated: what nothing here proves.
    """

    name: str
    design: list[tuple[str, str]]
    chunks: list[dict[str, Any]]
    speed: list[tuple[str, float, float]]
    layers: list[Layer]
    energy: list[tuple[str, float]]
    no_energy: str
    roofline: Plot | None
    not_validated: str


def accelerator_section(run: Run) -> Section | None:
    """The section of a run whose device is an accelerator; None for any other, and before the search has ended."""
    record = part(run.architecture, "predicted", "accelerator")
    design, network = part(record, "design"), part(record, "network")
    if not design or not network:
        return None
    parts = _energy(network)
    return Section(
        name=str(design.get("name")),
        design=_design(record),
        chunks=_chunks(design),
        speed=_speed(network),
        layers=_layers(run, record),
        energy=parts,
        no_energy="" if parts else NO_ENERGY,
        roofline=roofline_plot(record),
        not_validated=NOT_VALIDATED,
    )


def _design(record: dict[str, Any]) -> list[tuple[str, str]]:
    design, used, limits = part(record, "design"), part(record, "network", "resources"), part(record, "limits")
    platform = part(design, "platform")
    lines = [("platform", str(platform.get("description") or platform.get("name")))]
    for label, key in (
        ("DSP slices", "dsp"),
        ("BRAM, 18 kbit", "bram18"),
        ("processing elements", "elements"),
        ("SRAM, bytes", "sram_bytes"),
    ):
        value, limit = number(used, key), number(limits, key)
        if value is not None and limit is not None:
            lines.append((label, f"{value:g} of {limit:g}"))
    clock, bandwidth = number(platform, "clock_hz"), number(platform, "dram_bytes_per_s")
    buffers = "double" if design.get("double_buffered") else "single"
    lines += [
        ("clock", f"{clock / 1e6:g} MHz"),
        ("DRAM bandwidth", f"{bandwidth / 1e9:g} GB/s"),
        (
            "numbers",
            f"weights {design.get('weight_bits')}, activations {design.get('activation_bits')}, "
            f"sums {design.get('partial_bits')} bits",
        ),
        ("buffers", buffers),
    ]
    area = number(used, "area_mm2")
    return [*lines, ("area", f"{significant(area)} mm²")] if area is not None else lines


def _chunks(design: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for index, chunk in enumerate(records(design, "chunks")):
        tile, engine = chunk.get("tile"), "tile engine"
        if chunk.get("engine") == "systolic":
            engine = DATAFLOWS.get(str(chunk.get("dataflow")), "unknown")
        found.append(
            {
                "number": index + 1,
                "array": f"{chunk.get('rows')} × {chunk.get('cols')}",
                "engine": engine,
                "tile": "× ".join(str(size) for size in tile) if tile else "best of each layer",
                "buffers": [number(chunk, f"{what}_buffer_bytes") for what in ("weight", "input", "output")],
            }
        )
    return found


def _speed(network: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Label, seconds and frames per second."""
    alone, full = number(network, "latency_s"), number(network, "interval_s")
    return [
        ("one frame alone, as for an agent in one environment", alone, 1.0 / alone),
        ("pipeline full, many environments", full, 1.0 / full),
    ]


def _layers(run: Run, record: dict[str, Any]) -> list[Layer]:
    platform = part(record, "design", "platform")
    clock = number(platform, "clock_hz")
    blocks = [f"{box.point}: {box.operation}" if box.point else box.operation for box in cells(run)[0] if box.key is not None]
    found = []
    for layer in records(record, "network", "layers"):
        latency = number(layer, "latency_s")
        if not latency:
            continue  # applied while a tile leaves its buffer
        place, _, name = str(layer.get("name")).partition(".")
        block = blocks[int(place)] if place.isdigit() and int(place) < len(blocks) else place
        moving = number(layer, "dram_bytes") / number(platform, "dram_bytes_per_s")
        found.append(
            Layer(
                name=f"{block}, {name}",
                chunk=int(layer["chunk"]) + 1,
                utilisation=number(layer, "utilisation") if layer["macs"] else None,
                bound="DRAM" if moving > number(layer, "cycles") / clock else "array",
                cycles=number(layer, "cycles"),
                dram_bytes=number(layer, "dram_bytes"),
                latency_s=latency,
                energy_j=number(layer, "energy_j"),
            )
        )
    return found


def _energy(network: dict[str, Any]) -> list[tuple[str, float]]:
    """Joules of one frame by part, over all layers; empty where a layer's energy is unknown."""
    totals: dict[str, float] = {}
    for layer in records(network, "layers"):
        parts = layer.get("energy_parts")
        if parts is None:
            return []
        for name, energy_j in parts.items():
            totals[name] = totals.get(name, 0.0) + energy_j
    return list(totals.items())


def roofline_plot(record: dict[str, Any]) -> Plot | None:
    """Attained multiply-accumulates a second against those for each DRAM byte, under the two roofs of the design.

    Args:
        record: ``predicted.accelerator`` of ``architecture.json``.
    """
    design = part(record, "design")
    clock, bandwidth = number(design, "platform", "clock_hz"), number(design, "platform", "dram_bytes_per_s")
    busy = [layer for layer in records(record, "network", "layers") if layer["macs"] and layer["dram_bytes"]]
    if not busy or clock is None or bandwidth is None:
        return None
    peaks = sorted({chunk["rows"] * chunk["cols"] * clock for chunk in records(design, "chunks")})
    work = np.array([layer["macs"] / layer["dram_bytes"] for layer in busy])
    rate = np.array([layer["macs"] / layer["latency_s"] for layer in busy])
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
