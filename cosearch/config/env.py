"""The section ``env`` of the configuration: the task."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from cosearch.config.ranges import KNOWN_KEYS_ONLY, Finite, Positive, PositiveFloat

EPISODE_STEPS = 27_000
Metric = Literal["return", "success", "length"]
METRICS: tuple[Metric, ...] = ("return", "success", "length")


@dataclass(frozen=True, config=KNOWN_KEYS_ONLY)
class EnvConfig:
    """The task.

    Attributes:
        name: ``FAMILY:GAME``, `cosearch list envs`; or ``package.module:function``, which makes a Gymnasium environment.
        num_envs: environments stepped together.
        train_levels: Procgen training levels ``0 .. n - 1``; the test levels are all later ones.
        kwargs: what a Gymnasium environment is made with beside its id, e.g. ``env.kwargs.gravity=9.8``, and a quantum circuit
            beside its target, ``env.kwargs.noise=0.001``.
        layout: order of a Gymnasium environment's images, ``channels_last`` or ``channels_first``; null: channels last, and a
            shape that looks like the other one is refused until one of the two is named.
        wrappers: around a Gymnasium environment, the nearest to it first: ``frame_stack:4``, ``grey_scale``, ``resize:84x84``,
            ``time_limit:1000``, ``reward_scale:0.1``, ``flatten``, ``keep:image,direction``, or ``package.module:Class``.
        episode_steps: an evaluation counts an episode that takes longer as it then stands, and says how many it cut. The
            default is the field's limit for Atari, 108,000 frames of which every fourth is seen.
        metric: what scores are the mean of over evaluation episodes: ``return``; ``success``, as the information of the last step
            says it (``is_success`` or ``success``); ``length`` in environment steps. Training learns from rewards all the same.
        solved_at: mean score from which the task counts as solved; null: of returns what Gymnasium's register names.
        step_limit_s: seconds that a step of all environments may take; they are then stepped in a process of their own, which
            changes no result and which they may crash, end or hang. null: in this process, without a limit.
    """

    name: str = "procgen:starpilot"
    num_envs: Positive = 64
    train_levels: Annotated[int, Field(ge=1, le=2_000_000_000)] = 100_000
    kwargs: dict[str, object] = dataclasses.field(default_factory=dict)
    layout: Literal["channels_last", "channels_first"] | None = None
    wrappers: tuple[str, ...] = ()
    episode_steps: Positive = EPISODE_STEPS
    metric: Metric = "return"
    solved_at: Finite | None = None
    step_limit_s: PositiveFloat | None = None
