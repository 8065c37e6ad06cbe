"""Presets: named sets of configuration values, nothing else. Every value can be overridden."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Preset:
    """A named set of values.

    Attributes:
        name, description: for lists.
        values: nested configuration values.
    """

    name: str
    description: str
    values: dict[str, dict[str, object]] = field(hash=False)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "smoke",
            "the whole pipe in one or two minutes, for tests; its agent is not good yet",
            {
                "budget": {"search_steps": 8_192, "retrain_steps": 8_192, "eval_episodes": 64, "measure_s": 2.0},
                "strategy": {"candidates": 2},
            },
        ),
        Preset("quick", "the default: about ten minutes on two CPU cores", {}),
        Preset(
            "judged",
            "nine candidates learn side by side from the same frames and are judged by how near they come to the teacher",
            {
                "space": {"name": "macro"},
                "strategy": {
                    "name": "predictor",
                    "judge_by": "divergence",
                    "frames": "shared",
                    "candidates": 9,
                    "reduction_factor": 3,
                    "values": {"initial": 9, "largest_of": 64, "rules": True},
                },
            },
        ),
        Preset(
            "standard",
            "hours on a CPU: ten times the quick budget",
            {
                "budget": {"search_steps": 2_000_000, "retrain_steps": 4_000_000, "eval_episodes": 1000},
            },
        ),
        Preset(
            "paper",
            "the published scale of A3C-S, meant for a GPU",
            {
                "budget": {
                    "search_steps": 20_000_000,
                    "retrain_steps": 20_000_000,
                    "retrain_init": "scratch",
                    "eval_episodes": 1000,
                },
                "strategy": {"name": "a3cs", "update_path": "acting"},
            },
        ),
    )
}
