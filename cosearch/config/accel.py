"""The section of the accelerator co-search; used where the device is an accelerator platform."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from cosearch.config.ranges import KNOWN_KEYS_ONLY, Evaluations, Positive


@dataclass(frozen=True, config=KNOWN_KEYS_ONLY)
class AccelConfig:
    """The accelerator that is searched together with the agent; used where the device is an accelerator platform.

    Attributes:
        fixed: keep the platform's own design instead of searching one.
        every_steps: environment steps of the search between two searches of the accelerator.
        evaluations: of each of these; at least 560.
        final_evaluations: of the last one, for the derived network, and of those for the reference agents; at least 560.
        chunks: most stages of the accelerator's pipeline.
        objective: what the accelerator minimises: ``latency`` of one frame, or ``interval`` between the frames of a full
            pipeline. The agent's latency target bounds one frame's latency in both cases.
    """

    fixed: bool = False
    every_steps: Positive = 20_000
    evaluations: Evaluations = 1_120
    final_evaluations: Evaluations = 4_000
    chunks: Positive = 1
    objective: Literal["latency", "interval"] = "latency"
