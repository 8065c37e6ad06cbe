"""Draws a table: as a picture (matplotlib) and in the terminal (rich). Units are for reading here: us and mJ."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from latency_tables.checks import Finding
from latency_tables.compare import Comparison
from latency_tables.errors import RequestError, plain
from latency_tables.opspec import OpSpec
from latency_tables.schema import Row
from latency_tables.table import Table
from latency_tables.text.writing import make_folder, one_clear_error, regular_file, write_bytes_atomic

if TYPE_CHECKING:
    from rich.table import Table as RichTable

TOP = 12
Column = tuple[str, Literal["left", "right"]]
ROW_COLUMNS: tuple[Column, ...] = (
    ("operation", "left"),
    ("us", "right"),
    ("interval", "right"),
    ("mJ", "right"),
    ("P x t mJ", "right"),
    ("MMAC", "right"),
    ("note", "left"),
)
DIFF_COLUMNS: tuple[Column, ...] = (("operation", "left"), ("first us", "right"), ("second us", "right"), ("ratio", "right"))


def terminal_table(table: Table) -> RichTable:
    """A ``rich`` table of all rows, slowest first."""
    from rich.table import Table as RichTable

    device = table.device
    shown = RichTable(title=f"{device.name}: {device.description}", caption=caption(table))
    for name, side in ROW_COLUMNS:
        shown.add_column(name, justify=side, overflow="fold")
    for row in sorted(table.rows.values(), key=lambda r: -(r.latency_s or 0.0)):
        shown.add_row(
            row.key,
            _us(row.latency_s),
            _interval(row),
            _mj(row.energy_j),
            _mj(None if table.power_w is None or row.latency_s is None else table.power_w * row.latency_s),
            f"{OpSpec.from_key(row.key).macs / 1e6:.2f}",
            _note(row),
        )
    return shown


def caption(table: Table) -> str:
    """One or two sentences on what the table is worth; the provenance comes first."""
    device = table.device
    text = (
        f"{table.provenance}; {device.runtime}, {device.dtype}, {device.threads} thread(s); a network costs "
        f"{table.overhead_s * 1e6:.1f} us + {table.scale:.4f} x sum of rows"
    )
    text += f"; {_energy(table)}"
    proof = table.certificate
    if proof is None:
        return f"{text}; no certificate"
    accuracy = proof.accuracy
    tau = "-" if accuracy.kendall_tau is None else f"{accuracy.kendall_tau:.3f}"
    return (
        f"{text}; on {accuracy.networks} other whole networks: error {accuracy.mape:.2%}, "
        f"{accuracy.within_10:.0%} within 10 %, tau {tau}, bias {accuracy.bias:+.2%}"
    )


def _energy(table: Table) -> str:
    """What the energies are worth, always beside constant power times time."""
    rows = [row for row in table.rows.values() if row.latency_s is not None]
    count = sum(row.energy_j is not None for row in rows)
    if not count:
        return "energy unknown"
    if table.power_w is None:
        networks = "unknown" if table.overhead_j is None else "known, without certificate"
        return f"energy of {count} of {len(rows)} rows, that of networks {networks}"
    proof = None if table.certificate is None else table.certificate.energy
    if proof is None:
        kind = "is that" if table.provenance == "estimated" else "has no certificate"
        return f"energy beside {table.power_w:.3g} W x time: {kind}"
    from_rows, from_time = proof
    return f"energy error {from_rows.mape:.2%}, of {table.power_w:.3g} W x time {from_time.mape:.2%}"


def draw_table(table: Table, path: str | Path, *, findings: list[Finding] | None = None) -> None:
    """Write a picture: slowest rows with intervals, latency against MACs, and predicted against measured networks.

    Args:
        table: what is drawn.
        path: the file; its ending says which kind of picture, PNG where it has none.
        findings: what checking the table gave.

    Raises:
        RequestError: an ending that is no kind of picture, or something that is no regular file is there.
        RunFailedError: the disk refuses the write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    target = Path(path)
    with one_clear_error(target):
        regular_file(target)
    figure = Figure(figsize=(15, 5.5), layout="constrained")
    kinds = FigureCanvasAgg(figure).get_supported_filetypes()
    ending = target.suffix[1:].lower() or "png"
    if ending not in kinds:
        raise RequestError(f"a picture can be written as {', '.join(sorted(kinds))}; got the file {target}")
    bars, work, proof = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    timed = [(r.latency_s, r) for r in table.rows.values() if r.latency_s is not None]
    timed.sort(key=lambda pair: pair[0])
    top = timed[-TOP:]
    values = [latency_s * 1e6 for latency_s, _ in top]
    spans = [row.interval_s or (latency_s, latency_s) for latency_s, row in top]
    errors = [
        [max(0.0, v - low * 1e6) for v, (low, _) in zip(values, spans)],
        [max(0.0, high * 1e6 - v) for v, (_, high) in zip(values, spans)],
    ]
    bars.barh([short_name(row.key) for _, row in top], values, xerr=errors, color="#4477aa", ecolor="#222222")
    bars.set(xlabel="us", title=f"slowest {len(top)} of {len(timed)} rows")
    ops = [(OpSpec.from_key(row.key), latency_s) for latency_s, row in timed]
    for kind in sorted({op.kind for op, _ in ops}):
        points = [(op.macs / 1e6, latency_s * 1e6) for op, latency_s in ops if op.kind == kind]
        work.plot(*zip(*points), "o", label=kind, markersize=4)
    work.set(xlabel="million MACs", ylabel="us", xscale="symlog", yscale="log", title="work is not time")
    work.legend(fontsize=8)
    certificate = table.certificate
    if certificate is not None and certificate.measured_s:
        measured, predicted = ([v * 1e6 for v in times_s] for times_s in (certificate.measured_s, certificate.predicted_s))
        proof.plot(measured, predicted, "o", markersize=4, color="#228833")
        proof.axline((measured[0], measured[0]), slope=1, color="#888888", linewidth=1)
        proof.set(xlabel="measured, us", ylabel="predicted, us", title=f"{len(measured)} networks outside the fit")
    else:
        proof.set_axis_off()
        proof.text(0.5, 0.5, "no certificate", ha="center", transform=proof.transAxes)
    flags = f"; {len(findings)} findings" if findings else ""
    title = plain(f"{table.device.name} — {table.provenance}{flags}\n{caption(table)}")
    figure.suptitle(title, fontsize=9, parse_math=False)
    picture = io.BytesIO()
    figure.savefig(picture, format=ending, dpi=110)
    make_folder(target.parent)
    write_bytes_atomic(target, picture.getbuffer())


def terminal_comparison(first: Table, second: Table, comparison: Comparison, *, limit: int = 20) -> RichTable:
    """A ``rich`` table of the rows that changed most."""
    from rich.table import Table as RichTable

    title = f"{second.device.name} ({second.provenance}) against {first.device.name} ({first.provenance})"
    tau = "-" if comparison.kendall_tau is None else f"{comparison.kendall_tau:.3f}"
    shown = RichTable(
        title=title,
        caption=f"{len(comparison.rows)} shared rows: ratio {comparison.ratio_median:.3f} "
        f"(quartiles {comparison.ratio_low:.3f} to {comparison.ratio_high:.3f}), tau {tau}",
    )
    for name, side in DIFF_COLUMNS:
        shown.add_column(name, justify=side, overflow="fold")
    for key, a, b, ratio in comparison.rows[:limit]:
        shown.add_row(key, _us(a), _us(b), f"{ratio:.3f}")
    return shown


def short_name(key: str) -> str:
    """An operation for a plot's axis: kind, shapes, kernel, stride and expansion."""
    op = OpSpec.from_key(key)
    widen = f" e{op.expansion}" if op.kind == "mbconv" else ""
    return f"{op.kind} {op.in_channels}x{op.in_height}x{op.in_width}→{op.out_channels} k{op.kernel}s{op.stride}{widen}"


def _mj(value_j: float | None) -> str:
    return "-" if value_j is None else f"{value_j * 1e3:.3g}"


def _us(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1e6:.2f}"


def _interval(row: Row) -> str:
    span = row.interval_s
    return "-" if not span or row.latency_s is None else f"{span[0] * 1e6:.2f} .. {span[1] * 1e6:.2f}"


def _note(row: Row) -> str:
    if row.status != "ok":
        return f"{row.status}: {row.details.get('reason', '')}"
    return "" if row.details.get("sure", True) else "unsure"
