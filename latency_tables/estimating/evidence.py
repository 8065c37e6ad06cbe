"""How well a roofline predicts blocks that it has not seen, on every published set of FBNet latencies.

Three sources: block latencies of HW-NAS-Bench (each above ``skip``), whole networks of HELP (block values recovered by
least squares, as their sum is what was measured), and blocks in TensorFlow eager on a Raspberry Pi 4. Fitted on all block
positions but one, tested on that one, in turn; beside it the trivial model, a constant plus a constant time a MAC.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from latency_tables.errors import TableError
from latency_tables.estimating.published import NEEDED, SHAPE, PublishedRow, block_row, block_shape, fit_roofline, predict_rows
from latency_tables.estimating.roofline import Roofline
from latency_tables.text.markdown import table
from latency_tables.text.reading import read_csv, shown

START = Roofline("sum", 1e-5, 1e13, 0.01, 0.003, 0.01, 1e12, 0.05)
OPERATIONS = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
STAGES = ((1, 16, 1), (4, 24, 1), (4, 32, 2), (4, 64, 2), (4, 112, 1), (4, 184, 2), (1, 352, 1))
SUMS = ("raspi4", "pixel3", "eyeriss", "fpga")  # of HELP: made from HW-NAS-Bench's own rows
ESTIMATES = ("eyeriss", "fpga")
SMALLEST = 0.02  # recovered values below this share of the median are lost in the regression's noise
FILES = ("hwnasbench_fbnet_ops.csv", "help_fbnet_latency.csv.gz", "jh88_rpi4_fbnet_tf2.csv")


@dataclass(frozen=True)
class PublishedSet:
    """Rows of one device and batch size; ``kind`` is measured, recovered or estimated."""

    source: str
    device: str
    kind: str
    batch: int
    rows: tuple[PublishedRow, ...]
    dropped: int = 0


def load_sets(folder: str | Path) -> list[PublishedSet]:
    """All published sets in a folder that holds :data:`FILES`.

    Raises:
        TableError: a file is absent or is not what its name says.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise TableError(f"{folder} lacks {', '.join(missing)}; give the folder with the published latencies")
    try:
        return [*_hw_nas_bench(folder / FILES[0]), *_help(folder / FILES[1]), _eager(folder / FILES[2])]
    except (OSError, ValueError, KeyError, IndexError, EOFError, UnicodeDecodeError) as error:
        raise TableError(f"cannot read the published latencies in {folder}: {error!r}") from error


def _hw_nas_bench(path: Path) -> Iterator[PublishedSet]:
    everything = read_csv(path, "published block latencies", NEEDED, TableError)
    lines = [line for line in everything if line["metric"] == "latency" and not line["op"].endswith("_g2")]
    for device in ("raspi4", "pixel3", *ESTIMATES):
        rows = [
            block_row(
                line["op"], block_shape(line), float(line["value"]) * 1e-3, above_skip=line["value_kind"] == "delta_vs_skip"
            )
            for line in lines
            if line["device"] == device and line["value_kind"] in ("delta_vs_skip", "absolute")
        ]
        yield PublishedSet("HW-NAS-Bench", device, "estimated" if device in ESTIMATES else "measured", 1, tuple(rows))


def layer_shapes() -> list[tuple[int, ...]]:
    """``(in_channels, out_channels, stride, height, width)`` of the 22 layers of the FBNet space at 32x32."""
    shapes: list[tuple[int, ...]] = []
    channels, size = 16, 32
    for count, out, stride in STAGES:
        for number in range(count):
            step = stride if number == 0 else 1
            shapes.append((channels, out, step, size, size))
            channels, size = out, size // step
    return shapes


def _milliseconds(text: str, where: str) -> float:
    if not re.fullmatch(r"[0-9.]{1,20}(e[-+]?[0-9]{1,2})?", text) or text.count(".") > 1:
        raise TableError(f"{where}: expected milliseconds, got {shown(text)}")
    return float(text)


def _help(path: Path) -> Iterator[PublishedSet]:
    lines = read_csv(path, "published latencies of networks", ("arch_id", "op_idx"), TableError)
    shapes = layer_shapes()
    places = list(dict.fromkeys(shapes))
    counts = np.zeros((len(lines), len(places), len(OPERATIONS)))
    for i, line in enumerate(lines):
        if not re.fullmatch(f"[0-{len(OPERATIONS) - 1}]{{{len(shapes)}}}", line["op_idx"]):
            raise TableError(f"{path}, row {line.number}: op_idx must be {len(shapes)} digits below {len(OPERATIONS)}")
        for shape, digit in zip(shapes, line["op_idx"], strict=True):
            counts[i, places.index(shape), int(digit)] += 1
    design = np.concatenate([np.ones((len(lines), 1)), counts[:, :, :-1].reshape(len(lines), -1)], axis=1)
    names = [(place, name) for place in places for name in OPERATIONS[:-1]]
    for column in [name for name in lines[0] if name not in ("arch_id", "op_idx", *SUMS)]:
        measured = np.array([_milliseconds(line[column], f"{path}, column {column}") for line in lines]) * 1e-3
        solved = np.linalg.lstsq(design, measured, rcond=None)[0][1:]
        values = [(place, name, float(v)) for (place, name), v in zip(names, solved, strict=True) if not name.endswith("_g2")]
        least = SMALLEST * float(np.median([v for *_, v in values]))
        kept = tuple(block_row(name, place, v) for place, name, v in values if v > max(least, 0.0))
        batch = column.rsplit("_", 1)[-1]
        gpu = batch in ("1", "32", "64") and not column.startswith("essential")
        yield PublishedSet("HELP", column, "recovered", int(batch) if gpu else 1, kept, len(values) - len(kept))


def _eager(path: Path) -> PublishedSet:
    everything = read_csv(path, "published block latencies", ("op", "value", *SHAPE), TableError)
    lines = [line for line in everything if line["op"] != "skip" and not line["op"].endswith("_g2")]
    rows = [block_row(line["op"], block_shape(line), float(line["value"]) * 1e-6, above_skip=False) for line in lines]
    return PublishedSet("jh88/fbnet, TensorFlow 2.0 eager", "raspberry pi 4", "measured", 1, tuple(rows))


@dataclass(frozen=True)
class Evidence:
    """Relative errors on block positions that a fit has not seen, as fractions; beside it the trivial model.

    Attributes:
        rows: number of blocks.
        mape, median_ape: mean and median absolute error.
        within_10: share of blocks within 10 %.
        bias: mean signed error; positive: predicted too slow.
        macs_mape, macs_median_ape: of a constant plus a constant time a MAC.
    """

    rows: int
    mape: float
    median_ape: float
    within_10: float
    bias: float
    macs_mape: float
    macs_median_ape: float

    def shares(self) -> tuple[float, ...]:
        """The figures in the order of the README's table."""
        return (self.mape, self.median_ape, self.within_10, self.bias, self.macs_mape, self.macs_median_ape)


def left_out(published: PublishedSet) -> Evidence:
    """Errors on each position's rows when fitted on the others.

    In each turn the form of the roofline (launches overlap with work or add to it) is the one that fits the other
    positions better.
    """
    errors: list[float] = []
    trivial: list[float] = []
    for place in sorted({row.place for row in published.rows}):
        seen = [row for row in published.rows if row.place != place]
        unseen = [row for row in published.rows if row.place == place]
        fits = [fit_roofline(replace(START, combine=form), seen, batch=published.batch) for form in ("sum", "max")]
        best = min(fits, key=lambda fit: float(np.abs(_errors(fit, seen, published.batch)).mean()))
        errors += _errors(best, unseen, published.batch).tolist()
        trivial += _work_errors(seen, unseen)
    size, plain = np.abs(errors), np.abs(trivial)
    return Evidence(
        rows=len(errors),
        mape=float(size.mean()),
        median_ape=float(np.median(size)),
        within_10=float((size <= 0.1).mean()),
        bias=float(np.mean(errors)),
        macs_mape=float(plain.mean()),
        macs_median_ape=float(np.median(plain)),
    )


def _errors(roofline: Roofline, rows: Sequence[PublishedRow], batch: int) -> np.ndarray:
    return predict_rows(roofline, rows, batch=batch) / np.array([row.latency_s for row in rows]) - 1


def _work_errors(seen: Sequence[PublishedRow], unseen: Sequence[PublishedRow]) -> list[float]:
    def design(rows: Sequence[PublishedRow]) -> np.ndarray:
        macs = [sum(la.macs for la in row.layers) - sum(la.macs for la in row.minus) for row in rows]
        return np.stack([np.ones(len(rows)), np.array(macs)], axis=1) / np.array([row.latency_s for row in rows])[:, None]

    solved = np.linalg.lstsq(design(seen), np.ones(len(seen)), rcond=None)[0]
    return (design(unseen) @ solved - 1).tolist()


def markdown(figures: Sequence[tuple[PublishedSet, Evidence]]) -> str:
    """The figures as a table for the README."""
    titles = (
        "published set",
        "device",
        "kind",
        "batch",
        "blocks",
        "error",
        "median",
        "within 10 %",
        "bias",
        "MACs: error",
        "median",
    )
    lines = []
    for published, errors in figures:
        cells = [published.source, published.device, published.kind, str(published.batch), str(errors.rows)]
        cells += ["-" if math.isnan(share) else f"{100 * share:.1f} %" for share in errors.shares()]
        lines.append(cells)
    return "\n".join(table(titles, lines))
