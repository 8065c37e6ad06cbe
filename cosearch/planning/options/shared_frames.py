"""What ``strategy.frames=shared`` needs: candidates learn from frames that others played, which rewards say little about."""

from __future__ import annotations

from cosearch.planning.options.condition import Condition
from cosearch.planning.request import Request

OWN_FRAMES = Condition(
    "candidates have frames of their own",
    lambda r, key: r.config.strategy.frames == "own",
    lambda r, key: "with strategy.frames=shared, where all candidates train at once, in this process, from weights of their own",
    lambda r, key: "set strategy.frames=own",
)

REWARDS = Condition(
    "something learns from rewards: strategy.frames=own, or budget.retrain_steps above 0",
    lambda r, key: r.config.strategy.frames == "own" or "frames" in r.strategy.unused or r.config.budget.retrain_steps > 0,
    lambda r, key: "with strategy.frames=shared and budget.retrain_steps=0, where nothing learns from rewards",
    lambda r, key: "set budget.retrain_steps",
)


def shared_frames_faults(request: Request) -> list[str]:
    """What keeps the candidates of a search from learning from shared frames, one sentence each; empty without that option.

    Args:
        request: with what its names stand for.
    """
    config, strategy = request.config, request.strategy
    if config.strategy.frames == "own" or "frames" in strategy.unused:
        return []
    found = []
    if not config.rl.on_policy:
        found.append(f"strategy.frames=shared needs rl.algorithm=ppo or a2c, got {config.rl.algorithm}")
    if config.strategy.judge_by != "divergence" and not (
        request.teacher is not None and strategy.uses_teacher and config.distill.actor > 0.0
    ):
        found.append(
            "strategy.frames=shared needs a teacher whose actor the search distils, for nothing else is learned: name one in "
            "distill.teacher with distill.actor above 0, or set strategy.frames=own"
        )
    if config.strategy.judge_by != "divergence" and strategy.candidates(config.strategy) > 1:
        found.append(
            "strategy.frames=shared compares candidates by what they learn from a teacher: set strategy.judge_by=divergence, or "
            "strategy.frames=own"
        )
    if request.space.remembers:
        found.append(
            "strategy.frames=shared needs networks without a memory: one cannot learn from what another remembered; set "
            "strategy.frames=own"
        )
    if strategy.learns_from_results(config.strategy):
        found.append(
            f"strategy {strategy.name!r} names candidates by the results of earlier ones, which shared frames train at once: set "
            f"strategy.name=random, strategy.name=predictor with strategy.values.initial={config.strategy.candidates}, or "
            "strategy.frames=own"
        )
    return found
