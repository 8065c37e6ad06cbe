"""What shows the user how far a stage is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What shows the user how far a run is."""

    def stage(self, name: str, total_steps: int, done_steps: int) -> None:
        """A stage begins, or goes on after a resume."""

    def update(self, metrics: dict[str, object]) -> None:
        """An update has been made."""

    def note(self, text: str) -> None:
        """A line worth reading."""
