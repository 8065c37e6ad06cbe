"""The section ``family`` of the configuration: several agents from one search."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from cosearch.config.ranges import KNOWN_KEYS_ONLY, PositiveFloat


@dataclass(frozen=True, config=KNOWN_KEYS_ONLY)
class FamilyConfig:
    """Several agents from one search: one for each device and each target; with both lists one for each pair.

    Attributes:
        devices: names as in ``device``, or paths of tables; empty: the one of ``device`` or ``table``.
        latency_targets_s: upper bounds, seconds; empty: the one of the section ``objective``.
    """

    devices: tuple[str, ...] = ()
    latency_targets_s: tuple[PositiveFloat, ...] = ()

    @property
    def wanted(self) -> bool:
        """Whether there is any list."""
        return bool(self.devices or self.latency_targets_s)
