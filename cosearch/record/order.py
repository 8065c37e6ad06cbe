"""``order.json``: in which order a search with several workers began the trainings of its candidates and took their results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cosearch.record.json_record import from_json
from latency_tables.errors import RequestError, RunFolderError
from latency_tables.text.reading import read_json


@dataclass(frozen=True, kw_only=True)
class OrderRecord:
    """The events of a search; ``strategy.order`` repeats them, with any number of workers.

    Attributes:
        order: -1 where the next training began, else the index of the candidate, from 0, whose result was taken.
    """

    order: tuple[int, ...]

    FILE: ClassVar[str] = "order.json"


def recorded_order(run: Path) -> list[int]:
    """The order that a run recorded.

    Args:
        run: the run folder.

    Raises:
        RequestError: it recorded none.
        RunFolderError: the file is damaged.
    """
    path = run / OrderRecord.FILE
    if not path.is_file():
        raise RequestError(
            f"{run} has no {OrderRecord.FILE}: candidates that were told as their trainings ended leave one, those of other runs "
            "were told in the order asked. Name another run, or leave --order-of out"
        )
    return list(from_json(OrderRecord, read_json(path, "the order of a search", RunFolderError), path).order)
