"""The specification of a device that nobody measured: each constant of its roofline with the source that it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from latency_tables.errors import TableError, UnknownNameError
from latency_tables.estimating.roofline import COMBINE, Roofline
from latency_tables.header import MAX_LATENCY_S
from latency_tables.text.fields import number, object_of, one_of, text_of
from latency_tables.text.reading import read_json

SPECS = Path(__file__).parents[1] / "specs"
FIELDS = ("name", "description", "combine", "constants", "overhead", "interval_factors", "error", "sources")


@dataclass(frozen=True)
class Specification:
    """What ``fit`` makes an estimated table from.

    Attributes:
        name, description: of the device.
        combine: see ``Roofline``.
        constants: by name ``value`` and ``source``, see ``roofline.CONSTANTS``.
        overhead_s: fixed seconds of one inference.
        overhead_source: where that comes from.
        interval_factors: (low, high) of true over estimated latency.
        error: what the estimate was compared with, and the error there.
        sources: what the constants were taken from.
        published: name of the device in the published block latencies, or None where it is not among them.
    """

    name: str
    description: str
    combine: str
    constants: Mapping[str, object]
    overhead_s: float
    overhead_source: str
    interval_factors: tuple[float, float]
    error: Mapping[str, object]
    sources: tuple[str, ...]
    published: str | None = None

    @property
    def model(self) -> dict[str, object]:
        """The roofline as it stands in the header of a table."""
        return {"kind": "roofline", "combine": self.combine, "constants": self.constants}

    def roofline(self) -> Roofline:
        """The roofline that the constants give.

        Raises:
            TableError: a constant is absent, out of range or without a source.
        """
        return Roofline.from_dict(self.model)


def list_specs() -> list[str]:
    """Names of the shipped specifications."""
    return sorted(path.stem for path in SPECS.glob("*.json"))


def load_spec(name: str | Path) -> Specification:
    """A shipped specification by name, or a file.

    Raises:
        UnknownNameError: neither a shipped name nor a file.
        TableError: the file is not a specification.
    """
    shipped = SPECS / f"{name}.json"
    path = shipped if shipped.is_file() else Path(name)
    if not path.is_file():
        raise UnknownNameError(f"no specification {name}; shipped: {', '.join(list_specs())}; or give a JSON file")
    fields = read_json(path, "a specification", TableError)
    if not isinstance(fields, dict) or not set(FIELDS) <= set(fields):
        raise TableError(f"{path} is not a specification; it needs the fields {', '.join(FIELDS)}")
    return _read(fields, str(path))


def _read(fields: Mapping[str, object], where: str) -> Specification:
    overhead = object_of(fields["overhead"], f"{where}: overhead", "value and source")
    factors, sources, published = fields["interval_factors"], fields["sources"], fields.get("published")
    if not isinstance(factors, list) or len(factors) != 2:
        raise TableError(f"{where}: interval_factors must be [low, high], got {factors!r:.60}")
    low = number(factors[0], f"{where}: interval_factors[0]", low=0, high=1, positive=True)
    high = number(factors[1], f"{where}: interval_factors[1]", low=low, high=100)
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise TableError(f"{where}: sources must be a list of texts, got {sources!r:.60}")
    if published is not None:
        published = text_of(object_of(published, f"{where}: published", "device"), "device", f"{where}: published")
    return Specification(
        name=text_of(fields, "name", where),
        description=text_of(fields, "description", where),
        combine=one_of(fields["combine"], COMBINE, f"{where}: combine"),
        constants=object_of(fields["constants"], f"{where}: constants", "value and source of each"),
        overhead_s=number(overhead.get("value"), f"{where}: overhead.value", low=0, high=MAX_LATENCY_S),
        overhead_source=text_of(overhead, "source", f"{where}: overhead"),
        interval_factors=(low, high),
        error=object_of(fields["error"], f"{where}: error", "what the estimate was compared with"),
        sources=tuple(sources),
        published=published,
    )
