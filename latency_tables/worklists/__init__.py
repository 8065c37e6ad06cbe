"""Work lists: which operations a table must hold, and which whole networks prove it.

A work list is a JSON object ``{"space", "ops", "networks"}``: the distinct operations of a search space and sampled
whole networks, each a list of operations (with branches: an object of ``ops`` and ``wiring``), from the whole range of
work that the space has. ``uniform`` may hold further networks, drawn uniformly, that only certify. The shipped ones were
written by ``cosearch``; a file of your own has the same form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from latency_tables.errors import ShapeError, TableError, UnknownNameError
from latency_tables.opspec import OpSpec
from latency_tables.text.reading import read_json, shown

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Network(Sequence[OpSpec]):
    """A whole network, read as the sequence of its blocks.

    Attributes:
        ops: the blocks in order of execution.
        wiring: for each block the indices of the blocks that it reads; None: each reads the one before.
    """

    ops: tuple[OpSpec, ...]
    wiring: tuple[tuple[int, ...], ...] | None = None

    @overload
    def __getitem__(self, index: int) -> OpSpec: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[OpSpec, ...]: ...

    def __getitem__(self, index: int | slice) -> OpSpec | tuple[OpSpec, ...]:
        return self.ops[index]

    def __len__(self) -> int:
        return len(self.ops)

    def to_json(self) -> object:
        """Plain JSON: a list of blocks, or an object with blocks and wiring; :meth:`from_json` reads it back."""
        ops = [op.to_dict() for op in self.ops]
        return ops if self.wiring is None else {"ops": ops, "wiring": [list(inputs) for inputs in self.wiring]}

    @classmethod
    def of(cls, ops: Iterable[OpSpec], wiring: Sequence[Sequence[int]] | None = None) -> Network:
        """The network of any blocks and indices."""
        return cls(tuple(ops), None if wiring is None else tuple(tuple(inputs) for inputs in wiring))

    @classmethod
    def from_json(cls, values: object) -> Network:
        """The network that :meth:`to_json` wrote.

        Raises:
            ShapeError: a block is not valid.
            KeyError, TypeError: it is something else.
        """
        ops, wiring = (values["ops"], values["wiring"]) if isinstance(values, dict) else (values, None)
        if not isinstance(ops, list):
            raise TypeError(f"a network must be a list of operations, or an object with ops and wiring, got {values!r:.60}")
        if wiring is not None and not (
            isinstance(wiring, list) and all(isinstance(i, list) and all(type(n) is int for n in i) for i in wiring)
        ):
            raise TypeError(f"the wiring of a network must be a list of lists of indices, got {wiring!r:.60}")
        return cls.of([OpSpec.from_dict(op) for op in ops], wiring)


@dataclass(frozen=True)
class WorkList:
    """The operations and whole networks of one space.

    Attributes:
        space: name of the search space.
        ops: the distinct operations, sorted by key.
        networks: whole networks, each the list of its blocks; half of them calibrate, half certify.
        uniform: further whole networks, for a second certificate.
    """

    space: str
    ops: tuple[OpSpec, ...]
    networks: tuple[Network, ...]
    uniform: tuple[Network, ...] = ()

    def cast(self, *, dtype: str, batch: int = 1) -> WorkList:
        """The same list in another dtype or batch size."""

        def convert(op: OpSpec) -> OpSpec:
            return dataclasses.replace(op, dtype=dtype, batch=batch)

        groups = (tuple(Network.of(map(convert, n), n.wiring) for n in group) for group in (self.networks, self.uniform))
        return WorkList(self.space, tuple(convert(op) for op in self.ops), *groups)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON object."""
        return {
            "space": self.space,
            "ops": [op.to_dict() for op in self.ops],
            "networks": [network.to_json() for network in self.networks],
            "uniform": [network.to_json() for network in self.uniform],
        }


def make_worklist(
    space: str, ops: list[OpSpec], networks: Sequence[Sequence[OpSpec]], uniform: Sequence[Sequence[OpSpec]] = ()
) -> WorkList:
    """A work list whose operations also cover its networks, without doubles; a plain sequence of blocks is a chain."""
    distinct = {op.key: op for op in [*ops, *(op for network in (*networks, *uniform) for op in network)]}
    groups = (tuple(n if isinstance(n, Network) else Network.of(n) for n in group) for group in (networks, uniform))
    return WorkList(space, tuple(distinct[key] for key in sorted(distinct)), *groups)


def join_worklists(lists: Sequence[WorkList]) -> WorkList:
    """All operations of several lists; the networks, and so calibration and certificate, are the first one's."""
    first, *others = lists
    ops = [*first.ops, *(op for other in others for op in other.ops)]
    return make_worklist("+".join(work.space for work in lists), ops, first.networks, first.uniform)


def load_worklist(name: str | Path) -> WorkList:
    """A shipped work list by name (``chain``), or a file.

    Raises:
        UnknownNameError: neither a shipped name nor a file.
        TableError: the file is not a work list.
    """
    shipped = FOLDER / f"{name}.json"
    path = shipped if shipped.is_file() else Path(name)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in FOLDER.glob("*.json"))) or "none"
        raise UnknownNameError(f"no work list {name}; shipped: {names}; or give a JSON file with space, ops and networks")
    values = read_json(path, "a work list", TableError)
    try:
        if not isinstance(values, dict):
            raise TypeError(f"got {shown(values)}")
        networks = values["networks"].values() if isinstance(values["networks"], dict) else values["networks"]
        ops = [OpSpec.from_dict(op) for op in values.get("ops", [])]
        listed = (networks, values.get("uniform", []))
        groups = [[Network.from_json(network) for network in group] for group in listed]
        work = make_worklist(str(values["space"]), ops, *groups)
        if not work.ops:
            raise ValueError("it names no operation")
        return work
    except (ValueError, KeyError, TypeError, AttributeError, ShapeError) as error:
        raise TableError(
            f"{path} is not a work list (expected an object with space, ops, networks): {str(error)[:200]}"
        ) from error
