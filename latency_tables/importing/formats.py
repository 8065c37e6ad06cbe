"""Files of latencies that others measured, as operations with seconds; what cannot be said exactly in our operations is left out.

``csv``: documented columns, see :data:`COLUMNS`. ``nn-meter``: the JSON of kernels that nn-Meter's builder profiles (Zhang et
al., MobiSys 2021): kernel type, then identifiers with ``config`` and ``latency`` in milliseconds. ``once-for-all``: the look-up
tables of ProxylessNAS and Once-for-All (Cai et al., ICLR 2019 and 2020) as JSON: names such as
``expanded_conv-input:56x56x24-output:28x28x40-expand:6-kernel:5-stride:2-idskip:0`` with ``mean`` in milliseconds. There
``expand`` is the factor; in the names of Once-for-All, which end in ``-se:0-hs:0``, the channels of the depthwise convolution.
Their blocks end in a linear projection, ours of activation ``none``; those of ProxylessNAS have ReLU6 where ours have ReLU, which
each of their rows says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from latency_tables.errors import ShapeError, TableError
from latency_tables.opspec import OpSpec
from latency_tables.text.reading import read_csv, read_json, shown

SIZES = ("in_channels", "in_height", "in_width", "out_channels", "kernel", "stride", "padding", "groups", "expansion", "hidden")
UNITS = {"latency_s": 1.0, "latency_ms": 1e-3, "latency_us": 1e-6}
ENERGY_UNITS = {"energy_j": 1.0, "energy_mj": 1e-3}
COLUMNS = (
    "key (see `latency_tables show`), or kind, in_channels, in_height, in_width, out_channels and, where they are not the "
    "defaults, kernel (1), stride (1), padding (0), groups (1), expansion (1), hidden (0), activation (relu); one of latency_s, "
    "latency_ms and latency_us; and, if known, energy_j or energy_mj"
)
NN_METER = {
    "conv": ("conv", "none"),
    "conv-bn": ("conv", "none"),
    "conv-relu": ("conv", "relu"),
    "conv-bn-relu": ("conv", "relu"),
    "dwconv": ("dw", "none"),
    "dwconv-bn": ("dw", "none"),
    "dwconv-relu": ("dw", "relu"),
    "dwconv-bn-relu": ("dw", "relu"),
    "fc": ("fc", "none"),
    "fc-relu": ("fc", "relu"),
    "maxpool": ("maxpool", "none"),
}
SHAPE = r"(\d{1,9})x(\d{1,9})x(\d{1,9})"
NUMBER = r"(\d{1,9})"
BLOCK = re.compile(
    f"expanded_conv-input:{SHAPE}-output:{SHAPE}-expand:{NUMBER}-kernel:{NUMBER}-stride:{NUMBER}-idskip:([01])"
    "(?P<se>-se:0)?(?P<hs>-hs:0)?"
)

RELU6 = "timed with ReLU6 behind expansion and depthwise convolution, where this operation has ReLU"


@dataclass(frozen=True)
class Found:
    """One row of a file.

    Attributes:
        op: the operation.
        latency_s: seconds.
        energy_j: joules; None where the file does not say.
        note: in what the operation that was timed differs from ours, for the row's details; empty: in nothing.
    """

    op: OpSpec
    latency_s: float
    energy_j: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Read:
    """What a file holds.

    Attributes:
        rows: in its order.
        left_out: names of what cannot be said in our operations, with the reason.
    """

    rows: tuple[Found, ...]
    left_out: tuple[str, ...] = ()


def read_columns(path: Path, dtype: str) -> Read:
    """A CSV file of :data:`COLUMNS`; every row must be an operation.

    Args:
        path: the file.
        dtype: of its operations.

    Raises:
        TableError: a column is missing or unknown, or a value is wrong; names the row.
    """
    rows = []
    for record in read_csv(path, "a table of latencies", (), TableError):
        where = f"{path}, row {record.number}"
        known = {"key", "kind", "activation", *SIZES, *UNITS, *ENERGY_UNITS}
        unknown = [name for name in record if name not in known]
        if unknown:
            raise TableError(f"{where}: unknown column {shown(unknown[0])}; the columns are {COLUMNS}")
        latency_s = _in_seconds(record, UNITS, where)
        if latency_s is None:
            raise TableError(f"{where}: no latency; the columns are {COLUMNS}")
        rows.append(Found(_operation(record, dtype, where), latency_s, _in_seconds(record, ENERGY_UNITS, where)))
    return Read(tuple(rows))


def _in_seconds(record: dict[str, str], units: dict[str, float], where: str) -> float | None:
    named = [name for name in units if record.get(name, "") != ""]
    if not named:
        return None
    if len(named) > 1:
        raise TableError(f"{where}: {' and '.join(named)} say the same; give one of them")
    return _positive(record[named[0]], f"{where}: {named[0]}") * units[named[0]]


def _operation(record: dict[str, str], dtype: str, where: str) -> OpSpec:
    key, given = record.get("key", ""), [name for name in ("kind", "activation", *SIZES) if record.get(name, "") != ""]
    if key and given:
        raise TableError(f"{where}: the key says all; leave out {', '.join(given)}")
    try:
        if key:
            op = OpSpec.from_key(key)
            if op.dtype != dtype:
                raise TableError(f"{where}: a row of dtype {op.dtype}, the table is to be of {dtype}; see --dtype")
            return op
        missing = [name for name in ("kind", *SIZES[:4]) if name not in given]
        if missing:
            raise TableError(f"{where}: {', '.join(missing)} are missing; the columns are {COLUMNS}")
        sizes = {name: _whole(record[name], f"{where}: {name}") for name in SIZES if name in given}
        return OpSpec(record["kind"], **sizes, activation=record.get("activation") or "relu", dtype=dtype)
    except ShapeError as error:
        raise TableError(f"{where}: {str(error)[:200]}") from error


def _whole(text: str, what: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise TableError(f"{what} must be a whole number, got {shown(text)}")
    return int(text)


def _positive(value: object, what: str) -> float:
    try:
        number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not 0 < number < math.inf:
        raise TableError(f"{what} must be a number above 0, got {shown(value)}")
    return number


def read_nn_meter(path: Path, dtype: str) -> Read:
    """The profiled kernels of nn-Meter's builder; paddings are those of ``same``.

    Args:
        path: the JSON file.
        dtype: of its operations.

    Raises:
        TableError: it is no such file, or none of its kernels is one of our operations.
    """
    rows, left_out = [], []
    for kind, name, entry in _nested(path):
        where = f"{path}: {kind}, {name}"
        config = entry.get("config")
        if kind not in NN_METER:
            left_out.append(f"{kind} {name}: no such operation here")
            continue
        if not isinstance(config, dict) or "latency" not in entry:
            raise TableError(f"{where}: expected an object with config and latency, got {shown(entry)}")
        mean = str(entry["latency"]).partition("+-")[0].strip()
        latency_s = _positive(mean, f"{where}: latency") * 1e-3
        try:
            op = _kernel(*NN_METER[kind], config, dtype, where)
        except ShapeError as error:
            left_out.append(f"{kind} {name}: {error}")
            continue
        rows.append(Found(op, latency_s))
    return Read(tuple(rows), tuple(left_out))


def _nested(path: Path) -> Iterator[tuple[str, str, dict[str, object]]]:
    content = read_json(path, "nn-Meter's profiled kernels", TableError)
    for kind, kernels in content.items() if isinstance(content, dict) else [("", None)]:
        if not isinstance(kernels, dict):
            raise TableError(f"{path}: expected an object of kernel types, each an object of kernels, got {shown(kernels)}")
        for name, entry in kernels.items():
            if not isinstance(entry, dict):
                raise TableError(f"{path}: {shown(kind)}, {shown(name)}: expected an object, got {shown(entry)}")
            yield kind, name, entry


def _kernel(kind: str, activation: str, config: dict[str, object], dtype: str, where: str) -> OpSpec:
    def size(*names: str) -> int:
        name = next((name for name in names if name in config), names[0])
        value = config.get(name)
        if type(value) is not int:
            raise TableError(f"{where}: {name} must be a whole number, got {shown(value)}")
        return value

    channels = size("CIN")
    if kind == "fc":
        return OpSpec("linear", channels, 1, 1, size("COUT"), activation=activation, dtype=dtype)
    pools = kind == "maxpool"
    kernel = size("KERNEL_SIZE", *["POOL_SIZE"] * pools)
    side, stride = size("HW"), size(*["POOL_STRIDES"] * pools, "STRIDES")
    out = channels if kind != "conv" else size("COUT")
    groups = channels if kind == "dw" else 1
    name = "maxpool" if pools else "conv"
    op = OpSpec(name, channels, side, side, out, kernel, stride, (kernel - 1) // 2, groups, activation=activation, dtype=dtype)
    same = -(-side // stride)
    if op.out_height != same:
        raise ShapeError(f"padded by {op.padding} on each side the output is {op.out_height} wide, that of `same` {same}")
    return op


def read_once_for_all(path: Path, dtype: str) -> Read:
    """A look-up table of ProxylessNAS or Once-for-All, as JSON; of its blocks those without squeeze or hard swish.

    Args:
        path: the JSON file; a YAML file must be converted.
        dtype: of its operations.

    Raises:
        TableError: it is no such file.
    """
    content = read_json(path, "a look-up table as JSON (convert one in YAML)", TableError)
    if not isinstance(content, dict):
        raise TableError(f"{path}: expected an object of named blocks, got {shown(content)}")
    rows, left_out = [], []
    for name, entry in content.items():
        mean = entry.get("mean") if isinstance(entry, dict) else entry
        latency_s = _positive(mean, f"{path}: {shown(name)}: mean") * 1e-3
        try:
            op, note = _block(name, dtype)
        except ShapeError as error:
            left_out.append(f"{name}: {error}")
            continue
        rows.append(Found(op, latency_s, note=note))
    return Read(tuple(rows), tuple(left_out))


def _block(name: str, dtype: str) -> tuple[OpSpec, str]:
    parts = BLOCK.fullmatch(name)
    if parts is None:
        raise ShapeError("only expanded_conv without squeeze (se:0) and hard swish (hs:0) is an operation here")
    width, height, channels, out_width, out_height, out, expansion, kernel, stride, skip = map(int, parts.groups()[:10])
    once_for_all = parts["se"] or parts["hs"]
    if once_for_all:  # the channels of the depthwise convolution
        if expansion % max(1, channels):
            raise ShapeError(f"{expansion} channels in the middle are no whole multiple of {channels}")
        expansion //= max(1, channels)
    sizes = (channels, height, width, out, kernel, stride, (kernel - 1) // 2)
    op = OpSpec("mbconv", *sizes, expansion=expansion, activation="none", dtype=dtype)
    if (op.out_height, op.out_width) != (out_height, out_width):
        raise ShapeError(f"padded by {op.padding} the output is {op.out_width}x{op.out_height}, not {out_width}x{out_height}")
    if op.sums_input != bool(skip):
        raise ShapeError(f"idskip is {skip}, this operation {'adds' if op.sums_input else 'does not add'} its input")
    return op, "" if once_for_all else RELU6


FORMATS: dict[str, Callable[[Path, str], Read]] = {
    "csv": read_columns,
    "nn-meter": read_nn_meter,
    "once-for-all": read_once_for_all,
}
