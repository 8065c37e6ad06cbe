"""TensorBoard event files beside ``metrics.jsonl``.

The log is the truth and the event file its copy: opening the writer writes the copy anew from the log, so that a run that
was killed and resumed shows neither a gap nor a doubled step, whatever its last event file had kept. A tag is
``stage/metric``; a line about a candidate has the tag ``stage-candidate/metric``. It is written in the caller's own thread:
a full disk then is an error of the run, not of a thread beside it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from cosearch.record.durable import one_clear_error
from cosearch.record.metrics import REQUIRED, number, read_metrics
from latency_tables.errors import RunFolderError
from latency_tables.text.reading import OWN_DIGITS, read_json
from latency_tables.text.writing import remove

SUFFIX = ".cosearch"  # end of our event files' names: files of other writers in the folder are left alone


class EventWriter:
    """Writes the numbers of metrics lines as TensorBoard scalars.

    On resume, cut ``metrics.jsonl`` back to the checkpoint first, then open the writer. Usable as a context manager.

    Args:
        run_path: the run folder. Lines that its log already holds are written at once.

    Raises:
        RunFolderError: the log cannot be read.
        RunFailedError: the disk is full or refuses the write, now or later.
    """

    def __init__(self, run_path: Path) -> None:
        path = Path(run_path)
        lines = read_metrics(path / "metrics.jsonl")
        outdated = sorted(path.glob(f"events.out.tfevents.*{SUFFIX}"))
        self._start_s = _start(path)
        self._last_step: dict[str, int] = {}
        now_ns = time.time_ns()
        self._path = path / f"events.out.tfevents.{now_ns // 10**9:010d}.{now_ns}{SUFFIX}"
        with one_clear_error(self._path):
            self._writer = RecordWriter(self._path.open("wb"))
        self._write(Event(wall_time=now_ns / 1e9, file_version="brain.Event:2"))
        for line in lines:
            self.add(line)
        self.flush()
        for file in outdated:  # only now: a kill in between leaves a copy too many, never one too few
            remove(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def add(self, metrics: Mapping[str, object]) -> None:
        """Write the numbers of one line; null, text and lists have no curve and are passed over.

        Args:
            metrics: a line of ``metrics.jsonl``. A step that a curve already has, or has passed, is not written again.
        """
        stage, step, wall_s = metrics["stage"], int(number(metrics, "step") or 0), number(metrics, "wall_s") or 0.0
        group = stage if metrics.get("candidate") is None else f"{stage}-{metrics['candidate']}"
        for key, value in metrics.items():
            tag = f"{group}/{key}"
            if key in REQUIRED or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if step > self._last_step.get(tag, -1):
                self._last_step[tag] = step
                moment = self._start_s + wall_s
                scalar = Summary.Value(tag=tag, simple_value=value)
                self._write(Event(wall_time=moment, step=step, summary=Summary(value=[scalar])))

    def flush(self) -> None:
        """Hand everything to the system."""
        with one_clear_error(self._path):
            self._writer.flush()

    def close(self) -> None:
        """Hand everything to the system and close the file; safe to call twice."""
        with one_clear_error(self._path):
            self._writer.close()

    def _write(self, event: Event) -> None:
        with one_clear_error(self._path):
            self._writer.write(event.SerializeToString())


def _start(run_path: Path) -> float:
    """Moment from which ``wall_s`` counts, seconds since 1970: when the run was made; now, where that is not recorded."""
    record = run_path / "run.json"
    try:
        content = read_json(record, "a file of a run", RunFolderError, digits=OWN_DIGITS)
        moment = datetime.fromisoformat(str(content.get("created_utc") if isinstance(content, dict) else None))
    except (RunFolderError, ValueError):
        return time.time()
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
