"""Accelerator designs as data: a platform (what there is), chunks (what is built on it), number formats; JSON round trip.

A design is one or more chunks, each an array with its own buffers, that work as a pipeline over contiguous parts of a network
(A3C-S; Multi-CLP, Shen et al., ISCA 2017). Units are SI. ``sources`` says where each figure of a platform comes from. The file
format is :meth:`AccelDesign.to_dict` as JSON; ``designs`` holds the shipped ones.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TypeVar

from accel_models.energy import ENERGY_TABLES
from accel_models.engines.systolic import DATAFLOWS, DEPTHWISE_MODES
from latency_tables.errors import DesignError
from latency_tables.text.reading import read_json, shown
from latency_tables.text.writing import make_folder, write_bytes_atomic

ENGINES = ("systolic", "tile")
DSP_KINDS = ("DSP48E1", "DSP48E2")
BITS, PARTIAL_BITS = (8, 16), (16, 24, 32, 48)
MAX_RATE = 1e18  # cycles or bytes a second
MAX_COUNT = 10**12  # elements, blocks, bytes
MAX_CHUNKS, MAX_FAULTS = 256, 5
_WHOLE = f"an integer from 1 to {MAX_COUNT}"
T = TypeVar("T")
DESIGNS = Path(__file__).with_name("designs")


@dataclass(frozen=True)
class Platform:
    """What a design is built on.

    Attributes:
        name, description: for reports.
        kind: ``fpga`` (counts DSP and BRAM) or ``asic`` (counts processing elements, SRAM and area).
        clock_hz: clock of array and buffers.
        dram_bytes_per_s: bandwidth that all chunks share.
        dsp_limit, bram18_limit, dsp_kind: of an FPGA, None for an ASIC; BRAM in blocks of 18 kbit.
        pe_limit, sram_limit_bytes: of an ASIC, None for an FPGA.
        energy: a name of ``energy.ENERGY_TABLES``, or None where no constants are known: then energies are None, never 0.
        sources: figure -> where it comes from.
    """

    name: str
    description: str
    kind: str
    clock_hz: float
    dram_bytes_per_s: float
    dsp_limit: int | None = None
    bram18_limit: int | None = None
    dsp_kind: str | None = None
    pe_limit: int | None = None
    sram_limit_bytes: int | None = None
    energy: str | None = None
    sources: dict[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        faults = [
            f"{n} must be from 1 to {MAX_RATE:g}, got {shown(getattr(self, n))}"
            for n in ("clock_hz", "dram_bytes_per_s")
            if not _number(getattr(self, n)) or not 1 <= getattr(self, n) <= MAX_RATE
        ]
        needed = {"fpga": ("dsp_limit", "bram18_limit"), "asic": ("pe_limit", "sram_limit_bytes")}
        foreign = {"fpga": needed["asic"], "asic": (*needed["fpga"], "dsp_kind")}
        if not _among(self.kind, needed):
            faults.append(f"kind must be fpga or asic, got {shown(self.kind)}")
        own = needed.get(self.kind, ()) if isinstance(self.kind, str) else ()
        faults += [
            f"{name} of an {self.kind} must be {_WHOLE}, got {shown(getattr(self, name))}"
            for name in own
            if not _whole(getattr(self, name))
        ]
        others = foreign.get(self.kind, ()) if isinstance(self.kind, str) else ()
        unread = [name for name in others if getattr(self, name) is not None]
        if unread:
            faults.append(f"{' and '.join(unread)} would have no effect on an {self.kind}: leave it out")
        if self.kind == "fpga" and not _among(self.dsp_kind, DSP_KINDS):
            faults.append(f"dsp_kind must be one of {', '.join(DSP_KINDS)}, got {shown(self.dsp_kind)}")
        if self.energy is not None and not _among(self.energy, ENERGY_TABLES):
            faults.append(f"energy must be null or one of {', '.join(ENERGY_TABLES)}, got {shown(self.energy)}")
        faults += _not_texts(self, ("name", "description"))
        if not (isinstance(self.sources, Mapping) and all(isinstance(p, str) for item in self.sources.items() for p in item)):
            faults.append(f"sources must be an object of texts, got {shown(self.sources)}")
        _refuse(f"platform {shown(self.name)}", faults)

    @property
    def dram_bytes_per_cycle(self) -> float:
        """DRAM bandwidth in bytes per clock cycle."""
        return self.dram_bytes_per_s / self.clock_hz


@dataclass(frozen=True)
class Chunk:
    """One array with its buffers.

    Attributes:
        rows, cols: sides of a systolic array; of a tile engine the products ``c`` (rows) and ``g k p q`` (columns).
        dataflow: ``ws``, ``os`` or ``is`` of a systolic array. A tile engine has none: None. In files of earlier versions it
            names one, which is read and has no effect.
        weight_buffer_bytes, input_buffer_bytes, output_buffer_bytes: one tile each; double buffering doubles the memory.
        tile: ``(k, c, p, q)`` largest buffer tile of every layer, or None: each layer gets its best tile that fits.
        engine: ``systolic`` or ``tile``.
        unroll: multipliers along G, K, C, P, Q; tile engine only.
    """

    rows: int
    cols: int
    dataflow: str | None
    weight_buffer_bytes: int
    input_buffer_bytes: int
    output_buffer_bytes: int
    tile: tuple[int, int, int, int] | None = None
    engine: str = "systolic"
    unroll: tuple[int, int, int, int, int] | None = None

    def __post_init__(self) -> None:
        names = ("rows", "cols", "weight_buffer_bytes", "input_buffer_bytes", "output_buffer_bytes")
        faults = [f"{n} must be {_WHOLE}, got {shown(getattr(self, n))}" for n in names if not _whole(getattr(self, n))]
        if not _among(self.dataflow, DATAFLOWS) and not (self.engine == "tile" and self.dataflow is None):
            faults.append(f"dataflow must be one of {', '.join(DATAFLOWS)}, got {shown(self.dataflow)}")
        if not _among(self.engine, ENGINES):
            faults.append(f"engine must be one of {', '.join(ENGINES)}, got {shown(self.engine)}")
        if self.tile is not None and not _wholes(self.tile, 4):
            faults.append(f"tile must be null or four integers of at least 1 (k, c, p, q), got {shown(self.tile)}")
        if (self.unroll is not None) != (self.engine == "tile"):
            faults.append("unroll belongs to engine 'tile', and that engine needs it")
        elif self.unroll is not None and not self._fits(self.unroll):
            faults.append(
                f"unroll must be five integers (g, k, c, p, q) with rows = c and cols = g k p q, got {shown(self.unroll)}"
            )
        _refuse("chunk", faults)

    def _fits(self, unroll: tuple[int, ...]) -> bool:
        return _wholes(unroll, 5) and self.rows == unroll[2] and self.rows * self.cols == _product(unroll)

    @property
    def elements(self) -> int:
        """Processing elements, one multiplier each."""
        return self.rows * self.cols

    @property
    def ports(self) -> tuple[int, int, int]:
        """Words of weights, inputs and sums that the array takes at once.

        On a systolic array one input a row: the columns share it. Depthwise layers in mode ``columns`` take up to rows times
        cols inputs a cycle, which is not counted (``resources``).
        """
        if self.unroll is None:
            return self.cols, self.rows, self.cols
        g, k, c, p, q = self.unroll
        return g * k * c, g * c * p * q, g * k * p * q


@dataclass(frozen=True)
class AccelDesign:
    """A whole accelerator.

    Attributes:
        name: for reports.
        platform, chunks: what it is built on, and what is built.
        weight_bits, activation_bits: 8 or 16; the wider one is the multiplier's.
        partial_bits: width of partial sums.
        depthwise_mode: ``columns`` or ``channels`` on systolic arrays, see ``systolic.product_view``.
        overlap_fill: systolic arrays load the next stationary tile while they compute. Where no chunk is systolic, this and
            ``depthwise_mode`` must have their defaults.
        double_buffered: buffers load the next tile while the array works on this one; otherwise the two times add up.
    """

    name: str
    platform: Platform
    chunks: tuple[Chunk, ...]
    weight_bits: int = 8
    activation_bits: int = 8
    partial_bits: int = 32
    depthwise_mode: str = "columns"
    overlap_fill: bool = False
    double_buffered: bool = True

    def __post_init__(self) -> None:
        faults = [
            f"{n} must be one of {', '.join(map(str, known))}, got {shown(getattr(self, n))}"
            for n, known in (("weight_bits", BITS), ("activation_bits", BITS), ("partial_bits", PARTIAL_BITS))
            if not _among(getattr(self, n), known)
        ]
        faults += [
            f"{n} must be true or false, got {shown(getattr(self, n))}"
            for n in ("overlap_fill", "double_buffered")
            if not isinstance(getattr(self, n), bool)
        ]
        if not 1 <= len(self.chunks) <= MAX_CHUNKS:
            faults.append(f"a design needs from 1 to {MAX_CHUNKS} chunks, got {len(self.chunks)}")
        if not _among(self.depthwise_mode, DEPTHWISE_MODES):
            faults.append(f"depthwise_mode must be one of {', '.join(DEPTHWISE_MODES)}, got {shown(self.depthwise_mode)}")
        defaults = {f.name: f.default for f in fields(self)}
        unread = [n for n in ("depthwise_mode", "overlap_fill") if getattr(self, n) != defaults[n]]
        if unread and self.chunks and all(chunk.engine == "tile" for chunk in self.chunks):
            faults.append(f"{' and '.join(unread)} would have no effect, no chunk is a systolic array: leave it out")
        faults += _not_texts(self, ("name",))
        _refuse(f"design {shown(self.name)}", faults)

    @property
    def multiplier_bits(self) -> int:
        """Width of the multipliers."""
        return max(self.weight_bits, self.activation_bits)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON object; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> AccelDesign:
        """The design that :meth:`to_dict` wrote.

        Raises:
            DesignError: a field is missing, unknown or out of range.
        """
        record = _checked(cls, values, "design")
        record["platform"] = _made(Platform, _checked(Platform, record["platform"], "platform"))
        chunks = record["chunks"]
        if not isinstance(chunks, (list, tuple)):
            raise DesignError(f"design {shown(record['name'])}: chunks must be a list, got {shown(chunks)}")
        record["chunks"] = tuple(_chunk(values) for values in chunks)
        return _made(cls, record)


def load_design(source: str | Path) -> AccelDesign:
    """A shipped design by name, or one from a JSON file.

    Raises:
        DesignError: there is no such design, or its file is not valid.
    """
    path = Path(source)
    if not path.is_file() and (DESIGNS / f"{source}.json").exists():
        path = DESIGNS / f"{source}.json"
    if not path.is_file():
        raise DesignError(
            f"no design {str(source)!r}: give a JSON file, or one of {', '.join(design_names())}"
            f"{_nearest(str(source), design_names())}"
        )
    content = read_json(path, "a design", DesignError)
    try:
        return AccelDesign.from_dict(content)
    except DesignError as error:
        raise DesignError(f"{path}: {error}") from error


def save_design(design: AccelDesign, path: str | Path) -> None:
    """Write a design in the format that :func:`load_design` reads.

    Raises:
        RequestError: something that is no regular file is there.
        RunFailedError: the disk refuses the write.
    """
    make_folder(Path(path).parent)
    write_bytes_atomic(Path(path), (json.dumps(design.to_dict(), indent=1) + "\n").encode())


def design_names() -> list[str]:
    """Names of the shipped designs."""
    return sorted(path.stem for path in DESIGNS.glob("*.json"))


def _chunk(values: object) -> Chunk:
    if isinstance(values, dict) and values.get("engine") == "tile":
        values = {"dataflow": None, **values}
    record = _checked(Chunk, values, "chunk")
    return _made(Chunk, {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()})


def _made(kind: Callable[..., T], record: Mapping[str, object]) -> T:
    """The dataclass from its fields; the types of the values are checked where it is made."""
    return kind(**record)


def _checked(kind: type, values: object, what: str) -> dict[str, object]:
    if not isinstance(values, dict):
        raise DesignError(f"{what}: expected an object, got {shown(values)}")
    known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(kind)}
    faults = [f"unknown field {shown(name)}{_nearest(name, list(known))}" for name in values if name not in known]
    faults += [f"field {name!r} is missing" for name, needed in known.items() if needed and name not in values]
    _refuse(what, faults)
    return dict(values)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _refuse(what: str, faults: list[str]) -> None:
    if faults:
        more = f"; and {len(faults) - MAX_FAULTS} more" if len(faults) > MAX_FAULTS else ""
        raise DesignError(f"{what}: {'; '.join(faults[:MAX_FAULTS])}{more}")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_COUNT


def _wholes(values: object, count: int) -> bool:
    return isinstance(values, tuple) and len(values) == count and all(_whole(value) for value in values)


def _among(value: object, known: Iterable[object]) -> bool:
    """Whether it is one of some texts or integers, and of their type: 8.0 is not 8, and a list is none of them."""
    return any(type(value) is type(one) and value == one for one in known)


def _not_texts(record: Platform | AccelDesign, names: Iterable[str]) -> list[str]:
    return [f"{n} must be a text, got {shown(getattr(record, n))}" for n in names if not isinstance(getattr(record, n), str)]


def _product(values: tuple[int, ...]) -> int:
    out = 1
    for value in values:
        out *= value
    return out
