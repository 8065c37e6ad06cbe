"""Topologies of SCALE-Sim as layers: the CSV of convolutions, and that of matrix products (Samajdar et al., ISPASS 2020).

A convolution has its padding in its input already, and where the stride leaves a remainder SCALE-Sim counts one more position:
the output has ``ceil((input - filter + stride) / stride)`` rows. Where a name contains ``DP`` it runs the convolution once for
each channel, with filters of one channel: depthwise. A product of ``M x K`` and ``K x N`` is a convolution of one pixel at M
positions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from latency_tables.errors import DesignError
from latency_tables.text.reading import read_csv, read_text, shown

NAME = "Layer name"
CONVOLUTION = (NAME, "IFMAP Height", "IFMAP Width", "Filter Height", "Filter Width", "Channels", "Num Filter")
PRODUCT = ("Layer", "M", "N", "K")
STRIDES = ("Strides", "Stride")
TWO_STRIDES = ("Stride Height", "Stride Width")


def is_topology(path: Path) -> bool:
    """Whether a CSV file begins as one of SCALE-Sim's two kinds.

    Raises:
        DesignError: it cannot be read.
    """
    first = read_text(path, "a list of layers", DesignError).partition("\n")[0]
    names = [name.strip().lower() for name in first.split(",")]
    return names[0] == NAME.lower() or names[:4] == [name.lower() for name in PRODUCT]


def read_topology(path: Path) -> list[tuple[str, dict[str, object]]]:
    """The layers of a topology: where each stands, for messages, and its record in the format of a layer file.

    Raises:
        DesignError: a column is missing or unknown, a value is no size, or the two strides of a layer differ.
    """
    rows = [
        (f"{path}, row {row.number}", {name.lower(): value for name, value in row.items()})
        for row in read_csv(path, "a topology of SCALE-Sim", (), DesignError, trimmed=True)
    ]
    made = _product if NAME.lower() not in rows[0][1] else _convolution
    return [(where, made(row, where)) for where, row in rows]


def _product(row: Mapping[str, str], where: str) -> dict[str, object]:
    sizes = _sizes(row, PRODUCT, (), where)
    return _record(row["layer"], sizes["n"], sizes["k"], (sizes["m"], 1), (1, 1), 1)


def _convolution(row: Mapping[str, str], where: str) -> dict[str, object]:
    strides = TWO_STRIDES if "stride height" in row else tuple(name for name in STRIDES if name.lower() in row)[:1]
    if not strides:
        raise DesignError(f"{where}: the column Strides is missing")
    sizes = _sizes(row, CONVOLUTION, strides, where)
    steps = {sizes[name.lower()] for name in strides}
    if len(steps) > 1:
        raise DesignError(f"{where}: a layer has one stride here, got {' and '.join(map(str, sorted(steps)))}")
    stride = steps.pop()
    rows, columns = (-(-(sizes[f"ifmap {side}"] - sizes[f"filter {side}"] + stride) // stride) for side in ("height", "width"))
    if min(rows, columns) < 1:
        raise DesignError(f"{where}: the filter is larger than its input")
    window = (sizes["filter height"], sizes["filter width"])
    name, filters, channels = row[NAME.lower()], sizes["num filter"], sizes["channels"]
    if "DP" not in name:
        return _record(name, filters, channels, (rows, columns), window, stride)
    record = _record(name, filters * channels, channels, (rows, columns), window, stride)
    return {**record, "kind": "dw"} if filters == 1 else {**record, "G": channels}


def _record(name: str, k: int, c: int, out: tuple[int, int], window: tuple[int, int], stride: int) -> dict[str, object]:
    sizes = {"C": c, "K": k, "P": out[0], "Q": out[1], "R": window[0], "S": window[1], "stride": stride}
    return {"name": name, "kind": "conv", **sizes}


def _sizes(row: Mapping[str, str], needed: tuple[str, ...], strides: tuple[str, ...], where: str) -> dict[str, int]:
    wanted = [name.lower() for name in (*needed[1:], *strides)]
    missing = [name for name in wanted if name not in row]
    unknown = [name for name in row if name not in (needed[0].lower(), *wanted)]
    if missing or unknown:
        fault = f"the column {missing[0]} is missing" if missing else f"unknown column {unknown[0]!r:.60}"
        raise DesignError(f"{where}: {fault}; a topology has {', '.join((*needed, *(strides or STRIDES[:1])))}")
    wrong = [name for name in wanted if not re.fullmatch("[1-9][0-9]{0,8}", row[name])]
    if wrong:
        raise DesignError(f"{where}: {wrong[0]} must be a whole number of at least 1, got {shown(row[wrong[0]])}")
    return {name: int(row[name]) for name in wanted}
