"""Progress on stderr: a live bar in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cosearch.cli.environment import as_typed
from latency_tables.errors import plain

LINE_EVERY_S = 10.0


class TerminalProgress:
    """Shows stage, rate, time left, score and expected latency.

    Args:
        quiet: show nothing but notes.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
        self._live = not quiet and self._console.is_terminal
        self._quiet, self._last_s, self._total = quiet, 0.0, 0
        self._shown: tuple[Progress, TaskID] | None = None  # the live bar and its task

    def stage(self, name: str, total_steps: int, done_steps: int) -> None:
        """A stage begins."""
        self.close()
        self._total = total_steps
        if self._live:
            bar = Progress(
                TextColumn("{task.description:>8}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[facts]}"),
                console=self._console,
            )
            bar.start()
            self._shown = bar, bar.add_task(name, total=total_steps, completed=done_steps, facts="")
        elif not self._quiet:
            self._console.print(f"{name}: step {done_steps:,} of {total_steps:,}")

    def update(self, metrics: dict[str, Any]) -> None:
        """An update has been made."""
        facts = f"{metrics['steps_per_s']:,.0f} steps/s"
        if metrics.get("score_train") is not None:
            facts += f"  score {metrics['score_train']:.2f}"
        if metrics.get("latency_expected_s") is not None:
            facts += f"  expected {metrics['latency_expected_s'] * 1e3:.3f} ms"
        if metrics.get("teacher_agreement") is not None:
            facts += f"  teacher {metrics['teacher_agreement']:.0%}"
        if self._shown is not None:
            bar, task = self._shown
            bar.update(task, completed=min(metrics["step"], self._total), facts=facts)
        elif not self._quiet and time.monotonic() - self._last_s > LINE_EVERY_S:
            self._last_s = time.monotonic()
            self._console.print(f"{metrics['stage']}: step {metrics['step']:,} of {self._total:,}  {facts}")

    def note(self, text: str) -> None:
        """A line worth reading."""
        self._console.print(plain(as_typed(text)))

    def close(self) -> None:
        """Stop the live display."""
        if self._shown is not None:
            self._shown[0].stop()
            self._shown = None
