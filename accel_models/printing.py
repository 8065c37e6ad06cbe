"""Results and progress for people: milliseconds and microjoules exist only here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from accel_models.design import AccelDesign
from accel_models.evaluation import NetworkResult
from accel_models.references.rows import Statistics
from accel_models.searching.benchmark import BenchmarkRow
from accel_models.searching.methods import MethodRow
from latency_tables.text.terminal import say, show

NOT_VALIDATED = (
    "modelled; the array's cycles and the rules that count traffic are checked against SCALE-Sim, ZigZag and Timeloop, latency "
    "and energy of whole layers are not. Not validated by anything here: absolute frames per second of an FPGA, timing closure, "
    "power. Static power is not included."
)


def _show(content: RenderableType) -> None:
    show(content, width=140, soft_wrap=True)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int, float], None]]:
    """A bar on stderr; the callable takes the number done and the best value."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("best {task.fields[best]}"),
    )
    console = Console(stderr=True, markup=False, emoji=False)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total, best="-")
        yield lambda done, best: bar.update(task, completed=done, best=f"{best:.6g}")


def benchmark_progress(row: BenchmarkRow) -> None:
    """One finished row of the benchmark, on stderr."""
    say(f"{row.network} J={row.chunks} {row.method}: mean {row.mean:.4f}, {row.seconds:.1f} s a run", error=True)


def _value(value: float | None, scale: float, digits: int = 3) -> str:
    return "unknown" if value is None else f"{value * scale:.{digits}f}"


def network_report(design: AccelDesign, result: NetworkResult) -> None:
    """Layers, chunks and totals."""
    table = Table("layer", "chunk", "cycles", "latency us", "DRAM kB", "energy uJ", "array busy %", box=None)
    for layer in result.layers:
        table.add_row(
            layer.name,
            str(layer.chunk),
            f"{layer.cycles:.0f}",
            _value(layer.latency_s, 1e6, 2),
            f"{layer.dram_bytes / 1e3:.1f}",
            _value(layer.energy_j, 1e6, 2),
            f"{100 * layer.utilisation:.1f}",
        )
    _show(table)
    for index, (chunk, seconds) in enumerate(zip(design.chunks, result.chunk_s, strict=True)):
        sizes = f"{chunk.weight_buffer_bytes}, {chunk.input_buffer_bytes}, {chunk.output_buffer_bytes}"
        array = "tile" if chunk.engine == "tile" else f"{chunk.engine} {chunk.dataflow}"
        _show(
            f"chunk {index}: {chunk.rows} x {chunk.cols} {array}, "
            f"buffers (weights, inputs, outputs) {sizes} bytes; {seconds * 1e3:.3f} ms"
        )
    r, platform = result.resources, design.platform
    used = {
        "DSP": (r.dsp, platform.dsp_limit),
        "BRAM18": (r.bram18, platform.bram18_limit),
        "elements": (r.elements, platform.pe_limit),
        "SRAM bytes": (r.sram_bytes, platform.sram_limit_bytes),
    }
    shown = [f"{name} {value:g} of {limit}" for name, (value, limit) in used.items() if value is not None and limit is not None]
    _show(f"{design.name} on {platform.name}: {', '.join(shown)}; area {_value(r.area_mm2, 1)} mm2")
    _show(f"one frame in flight (an agent in one environment): {_value(result.latency_s, 1e3)} ms, {1 / result.latency_s:.1f} /s")
    _show(
        f"full pipeline ({len(design.chunks)} in flight): a frame each {_value(result.interval_s, 1e3)} ms, "
        f"{result.frames_per_s:.1f} /s"
    )
    _show(
        f"energy {_value(result.energy_j, 1e6, 2)} uJ a frame (constants: "
        f"{platform.energy or 'none known for this platform'}), DRAM {result.dram_bytes / 1e3:.1f} kB a frame"
    )
    _show(NOT_VALIDATED)


def method_table(rows: Sequence[MethodRow], objective: str) -> None:
    """Methods at equal evaluations."""
    if not rows:
        return
    table = Table("method", f"{objective} ({'joules' if objective == 'energy' else 'cycles'})", "ratio", "evaluations", box=None)
    for row in rows:
        table.add_row(
            row.method,
            "none within limits" if row.value is None else f"{row.value:.6g}",
            "-" if row.ratio is None else f"{row.ratio:.3f}",
            str(row.evaluations),
        )
    _show(table)


def check_report(reference: str, exact_means: str, errors: Statistics) -> None:
    """Statistics of a comparison.

    Args:
        reference: its name.
        exact_means: which quantities are equal in an exact row.
        errors: over all rows.
    """

    def percent(value: float | None) -> str:
        return "not in this reference" if value is None else f"{100 * value:.4g} %"

    rank = errors.latency_spearman
    lines = (
        f"{errors.rows} rows of {reference}",
        f"exact rows            {percent(errors.exact_share)}   ({exact_means})",
        f"cycles, mean error    {percent(errors.cycles_mape)}   95 % of rows below {percent(errors.cycles_p95)}",
        f"cycles, median error  {percent(errors.latency_median_error)}",
        f"cycles, Spearman      {'not defined' if rank is None else f'{rank:.5f}'}",
        f"energy, mean error    {percent(errors.energy_mape)}   95 % of rows below {percent(errors.energy_p95)}",
        f"worst row             {percent(errors.worst_row)}   {errors.worst_row_name}",
    )
    _show("\n".join(lines))
