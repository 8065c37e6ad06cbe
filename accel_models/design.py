"""Accelerator designs as data: a platform (what there is), chunks (what is built on it), number formats; JSON round trip.

A design is one or more chunks, each an array with its own buffers, that work as a pipeline over contiguous parts of a network
(A3C-S; Multi-CLP, Shen et al., ISCA 2017). Units are SI. ``sources`` says where each figure of a platform comes from. The file
format is :meth:`AccelDesign.to_dict` as JSON; ``designs`` holds the shipped ones.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TypeVar

from accel_models.energy import ENERGY_TABLES
from accel_models.engines.systolic import DATAFLOWS, DEPTHWISE_MODES
from latency_tables.errors import DesignError
from latency_tables.writing import write_bytes_atomic

ENGINES = ("systolic", "tile")
DSP_KINDS = ("DSP48E1", "DSP48E2")
BITS = (8, 16)
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
        dsp_limit, bram18_limit, dsp_kind: FPGA only; BRAM in blocks of 18 kbit.
        pe_limit, sram_limit_bytes: ASIC only.
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
            f"{n} must be above 0, got {getattr(self, n)!r}"
            for n in ("clock_hz", "dram_bytes_per_s")
            if not _number(getattr(self, n)) or not getattr(self, n) > 0
        ]
        needed = {"fpga": ("dsp_limit", "bram18_limit"), "asic": ("pe_limit", "sram_limit_bytes")}
        if self.kind not in needed:
            faults.append(f"kind must be fpga or asic, got {self.kind!r}")
        faults += [
            f"{name} of an {self.kind} must be an integer of at least 1, got {getattr(self, name)!r}"
            for name in needed.get(self.kind, ())
            if not _whole(getattr(self, name))
        ]
        if self.kind == "fpga" and self.dsp_kind not in DSP_KINDS:
            faults.append(f"dsp_kind must be one of {', '.join(DSP_KINDS)}, got {self.dsp_kind!r}")
        if self.energy is not None and self.energy not in ENERGY_TABLES:
            faults.append(f"energy must be null or one of {', '.join(ENERGY_TABLES)}, got {self.energy!r}")
        _refuse(f"platform {self.name!r}", faults)

    @property
    def dram_bytes_per_cycle(self) -> float:
        """DRAM bandwidth in bytes per clock cycle."""
        return self.dram_bytes_per_s / self.clock_hz


@dataclass(frozen=True)
class Chunk:
    """One array with its buffers.

    Attributes:
        rows, cols: sides of a systolic array; of a tile engine the products ``c`` (rows) and ``g k p q`` (columns).
        dataflow: ``ws``, ``os`` or ``is`` (systolic).
        weight_buffer_bytes, input_buffer_bytes, output_buffer_bytes: one tile each; double buffering doubles the memory.
        tile: ``(k, c, p, q)`` largest buffer tile of every layer, or None: each layer gets its best tile that fits.
        engine: ``systolic`` or ``tile``.
        unroll: multipliers along G, K, C, P, Q; tile engine only.
    """

    rows: int
    cols: int
    dataflow: str
    weight_buffer_bytes: int
    input_buffer_bytes: int
    output_buffer_bytes: int
    tile: tuple[int, int, int, int] | None = None
    engine: str = "systolic"
    unroll: tuple[int, int, int, int, int] | None = None

    def __post_init__(self) -> None:
        names = ("rows", "cols", "weight_buffer_bytes", "input_buffer_bytes", "output_buffer_bytes")
        faults = [
            f"{n} must be an integer of at least 1, got {getattr(self, n)!r}" for n in names if not _whole(getattr(self, n))
        ]
        if self.dataflow not in DATAFLOWS:
            faults.append(f"dataflow must be one of {', '.join(DATAFLOWS)}, got {self.dataflow!r}")
        if self.engine not in ENGINES:
            faults.append(f"engine must be one of {', '.join(ENGINES)}, got {self.engine!r}")
        if self.tile is not None and (len(self.tile) != 4 or not all(_whole(t) for t in self.tile)):
            faults.append(f"tile must be null or four integers of at least 1 (k, c, p, q), got {self.tile!r}")
        if (self.unroll is not None) != (self.engine == "tile"):
            faults.append("unroll belongs to engine 'tile', and that engine needs it")
        elif self.unroll is not None:
            good = len(self.unroll) == 5 and all(_whole(u) for u in self.unroll)
            if not good or self.rows != self.unroll[2] or self.rows * self.cols != _product(self.unroll):
                faults.append(
                    f"unroll must be five integers (g, k, c, p, q) with rows = c and cols = g k p q, got {self.unroll!r}"
                )
        _refuse("chunk", faults)

    @property
    def elements(self) -> int:
        """Processing elements, one multiplier each."""
        return self.rows * self.cols


@dataclass(frozen=True)
class AccelDesign:
    """A whole accelerator.

    Attributes:
        name: for reports.
        platform, chunks: what it is built on, and what is built.
        weight_bits, activation_bits: 8 or 16; the wider one is the multiplier's.
        partial_bits: width of partial sums.
        depthwise_mode: ``columns`` or ``channels``, see ``systolic.product_view``.
        overlap_fill: arrays load the next stationary tile while they compute.
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
            f"{n} must be one of 8, 16, got {getattr(self, n)!r}"
            for n in ("weight_bits", "activation_bits")
            if getattr(self, n) not in BITS
        ]
        if self.partial_bits not in (16, 24, 32, 48):
            faults.append(f"partial_bits must be one of 16, 24, 32, 48, got {self.partial_bits!r}")
        if not self.chunks:
            faults.append("a design needs at least one chunk")
        if self.depthwise_mode not in DEPTHWISE_MODES:
            faults.append(f"depthwise_mode must be one of {', '.join(DEPTHWISE_MODES)}, got {self.depthwise_mode!r}")
        _refuse(f"design {self.name!r}", faults)

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
            raise DesignError(f"design {record['name']!r}: chunks must be a list, got {chunks!r}")
        record["chunks"] = tuple(_chunk(values) for values in chunks)
        return _made(cls, record)


def load_design(source: str | Path) -> AccelDesign:
    """A shipped design by name, or one from a JSON file.

    Raises:
        DesignError: there is no such design, or its file is not valid.
    """
    path = Path(source)
    if not path.exists() and (DESIGNS / f"{source}.json").exists():
        path = DESIGNS / f"{source}.json"
    if not path.is_file():
        raise DesignError(
            f"no design {str(source)!r}: give a JSON file, or one of {', '.join(design_names())}"
            f"{_nearest(str(source), design_names())}"
        )
    try:
        return AccelDesign.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise DesignError(f"{path}: not JSON: {error}") from error
    except DesignError as error:
        raise DesignError(f"{path}: {error}") from error


def save_design(design: AccelDesign, path: str | Path) -> None:
    """Write a design in the format that :func:`load_design` reads.

    Raises:
        RequestError: something that is no regular file is there.
        RunFailedError: the disk refuses the write.
    """
    write_bytes_atomic(Path(path), (json.dumps(design.to_dict(), indent=1) + "\n").encode())


def design_names() -> list[str]:
    """Names of the shipped designs."""
    return sorted(path.stem for path in DESIGNS.glob("*.json"))


def _chunk(values: object) -> Chunk:
    record = _checked(Chunk, values, "chunk")
    return _made(Chunk, {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()})


def _made(kind: Callable[..., T], record: Mapping[str, object]) -> T:
    """The dataclass from its fields; the types of the values are checked where it is made."""
    return kind(**record)


def _checked(kind: type, values: object, what: str) -> dict[str, object]:
    if not isinstance(values, dict):
        raise DesignError(f"{what}: expected an object, got {values!r}")
    known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(kind)}
    faults = [f"unknown field {name!r}{_nearest(name, list(known))}" for name in values if name not in known]
    faults += [f"field {name!r} is missing" for name, needed in known.items() if needed and name not in values]
    _refuse(what, faults)
    return dict(values)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _refuse(what: str, faults: list[str]) -> None:
    if faults:
        raise DesignError(f"{what}: {'; '.join(faults)}")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _product(values: tuple[int, ...]) -> int:
    out = 1
    for value in values:
        out *= value
    return out
