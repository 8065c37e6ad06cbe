"""When each option has an effect: one table over all keys of the configuration. One that is set without effect is refused.

Only what a request says itself counts (``Config.said``): presets and the values of a task's family are made for many requests.
A key stands in ``EFFECTS`` with the conditions that must all hold for it; () is always.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from cosearch.config.run import Config, config_defaults
from cosearch.planning.budget import bracket_rungs
from cosearch.planning.options.condition import Condition, Training, TrainingCondition
from cosearch.planning.options.conditions import (
    ACCELERATOR,
    ANY_ORDER,
    CLIPS,
    CLIPS_GRADIENTS,
    DISCOUNT_TAKEN,
    DISTILLS,
    DISTILLS_ACTOR,
    DQN,
    DUAL,
    EXPLORATION_FALLS,
    EXPLORES_LESS,
    FALLS,
    FALLS_GRADUALLY,
    FALLS_IN_THE_RUN,
    GRADIENT,
    HELD,
    IMAGES,
    INHERITS,
    LEARNS,
    LEVELS,
    LR_FALLS,
    LR_HAS_TIME,
    NO_DEVICES,
    NO_LATENCY_TARGET,
    NO_TABLE,
    NO_TARGETS,
    ON_POLICY,
    ONNX_TEACHER,
    OWN_SCALE,
    PENALTIES,
    PIPELINE,
    PPO,
    PREFERS,
    PRIORITIES,
    PROBABILITIES,
    RATIOS,
    REPAIRED,
    RETRAINING,
    SAC,
    SAME_VALUES,
    SAYS_PROBABILITIES,
    SEARCHED,
    SEVERAL,
    SHARES,
    TABLE,
    TAKES_KWARGS,
    TAKES_LAYOUT,
    TAKES_WRAPPERS,
    TAUGHT,
    TEACHER,
    USED,
    VALUE_LOSS,
    WARM_UP,
)
from cosearch.planning.options.shared_frames import OWN_FRAMES, REWARDS, shared_frames_faults
from cosearch.planning.request import Request
from cosearch.space.parts import Part
from latency_tables.errors import ConfigError

EFFECTS: dict[str, tuple[Condition | TrainingCondition, ...]] = {
    "device": (NO_DEVICES, NO_TABLE),
    "table": (NO_DEVICES,),
    "seed": (),
    "threads": (),
    "compute": (),
    "control": (),
    "env.name": (),
    "env.num_envs": (),
    "env.train_levels": (LEVELS,),
    "env.kwargs": (TAKES_KWARGS,),
    "env.layout": (TAKES_LAYOUT,),
    "env.wrappers": (TAKES_WRAPPERS,),
    "env.episode_steps": (),
    "env.metric": (),
    "env.solved_at": (),
    "env.step_limit_s": (),
    "space.name": (),
    "space.values": (),
    "strategy.name": (),
    "strategy.paths_per_rollout": (USED,),
    "strategy.update_path": (USED, RATIOS),
    "strategy.active_paths": (USED, LEARNS),
    "strategy.temperature_start": (USED, LEARNS),
    "strategy.temperature_end": (USED, LEARNS),
    "strategy.lr": (USED, LEARNS),
    "strategy.target_form": (USED,),
    "strategy.warmup_fraction": (USED,),
    "strategy.warmup_factor": (USED, HELD, WARM_UP),
    "strategy.derive_by": (USED, LEARNS),
    "strategy.candidates": (USED,),
    "strategy.candidate_init": (USED, OWN_FRAMES),
    "strategy.workers": (USED, SEVERAL, OWN_FRAMES),
    "strategy.reduction_factor": (USED,),
    "strategy.judge_by": (USED,),
    "strategy.frames": (USED,),
    "strategy.order": (USED, ANY_ORDER, OWN_FRAMES),
    "strategy.store": (USED, ON_POLICY),
    "strategy.values": (),
    "rl.algorithm": (),
    "rl.rollout_steps": (),
    "rl.epochs": (ON_POLICY, PPO),
    "rl.minibatch": (ON_POLICY,),
    "rl.micro_batch": (ON_POLICY,),
    "rl.lr": (ON_POLICY,),
    "rl.lr_end_fraction": (ON_POLICY, RETRAINING, LR_HAS_TIME),
    "rl.lr_hold_fraction": (ON_POLICY, RETRAINING, LR_FALLS),
    "rl.gamma": (ON_POLICY,),
    "rl.lam": (ON_POLICY, REWARDS),
    "rl.reward_gamma": (ON_POLICY, OWN_SCALE),
    "rl.clip": (ON_POLICY, CLIPS, REWARDS),
    "rl.value_clip": (ON_POLICY, VALUE_LOSS, REWARDS),
    "rl.value_weight": (ON_POLICY, REWARDS),
    "rl.entropy_weight": (ON_POLICY, REWARDS),
    "rl.max_grad_norm": (CLIPS_GRADIENTS,),
    "rl.bf16": (),
    "dqn.replay": (DQN,),
    "dqn.learning_starts": (DQN,),
    "dqn.replay_ratio": (DQN,),
    "dqn.minibatch": (DQN,),
    "dqn.micro_batch": (DQN,),
    "dqn.lr": (DQN,),
    "dqn.lr_end_fraction": (DQN, RETRAINING),
    "dqn.gamma": (DQN,),
    "dqn.n_step": (DQN,),
    "dqn.quantiles": (DQN,),
    "dqn.double": (DQN,),
    "dqn.dueling": (DQN,),
    "dqn.priority_exponent": (DQN,),
    "dqn.beta_start": (DQN, PRIORITIES),
    "dqn.target_interval": (DQN,),
    "dqn.epsilon_start": (DQN, EXPLORATION_FALLS),
    "dqn.epsilon_end": (DQN,),
    "dqn.epsilon_fraction": (DQN, EXPLORES_LESS),
    "dqn.epsilon_inherited": (DQN, EXPLORATION_FALLS, INHERITS),
    "dqn.reward_clip": (DQN,),
    "dqn.temperature": (DQN, TEACHER, TAUGHT, DISTILLS_ACTOR),
    "sac.replay": (SAC,),
    "sac.learning_starts": (SAC,),
    "sac.updates_per_step": (SAC,),
    "sac.minibatch": (SAC,),
    "sac.lr": (SAC,),
    "sac.gamma": (SAC,),
    "sac.tau": (SAC,),
    "distill.teacher": (),
    "distill.gamma": (ONNX_TEACHER, SAME_VALUES, DISCOUNT_TAKEN),
    "distill.reward_std": (ONNX_TEACHER, SAME_VALUES),
    "distill.outputs": (ONNX_TEACHER,),
    "distill.layout": (ONNX_TEACHER,),
    "distill.actor": (TEACHER, TAUGHT),
    "distill.critic": (TEACHER, TAUGHT, SAME_VALUES),
    "distill.temperature": (PROBABILITIES, TEACHER, DISTILLS_ACTOR, TAUGHT, SAYS_PROBABILITIES),
    "distill.fall": (TEACHER, DISTILLS, TAUGHT, FALLS, FALLS_GRADUALLY),
    "distill.fall_begin": (TEACHER, DISTILLS, TAUGHT, FALLS),
    "distill.fall_end": (TEACHER, DISTILLS, TAUGHT, FALLS),
    "distill.end_fraction": (TEACHER, DISTILLS, TAUGHT, FALLS_IN_THE_RUN),
    "objective.latency_target_s": (NO_TARGETS,),
    "objective.latency_ratio": (NO_TARGETS, NO_LATENCY_TARGET),
    "objective.target_statistic": (TABLE,),
    "objective.target_at": (TABLE,),
    "objective.energy_target_j": (),
    "objective.file_target_bytes": (TABLE,),
    "objective.memory_target_bytes": (TABLE,),
    "objective.margin": (),
    "objective.dual_lr": (GRADIENT, PENALTIES, DUAL, LEARNS),
    "objective.quadratic": (GRADIENT, PENALTIES, DUAL, LEARNS),
    "family.devices": (),
    "family.latency_targets_s": (),
    "budget.search_steps": (),
    "budget.retrain_steps": (),
    "budget.bracket": (GRADIENT, RETRAINING, ON_POLICY, PREFERS),
    "budget.retrain_init": (),
    "budget.repair_rounds": (TABLE,),
    "budget.repair_share": (TABLE, RETRAINING, REPAIRED, SHARES),
    "budget.eval_episodes": (),
    "budget.parity_frames": (),
    "budget.checkpoint_interval_s": (),
    "budget.measure_s": (),
    "budget.clip_frames": (IMAGES,),
    "accel.fixed": (ACCELERATOR,),
    "accel.every_steps": (ACCELERATOR, SEARCHED, GRADIENT, PREFERS),
    "accel.evaluations": (ACCELERATOR, SEARCHED),
    "accel.final_evaluations": (ACCELERATOR, SEARCHED),
    "accel.chunks": (ACCELERATOR, SEARCHED),
    "accel.objective": (ACCELERATOR, PIPELINE),
}


def unused(request: Request) -> dict[str, str]:
    """What was said without effect: key -> one sentence with its value, why it has none, and what to do.

    Args:
        request: with what its names stand for.
    """
    found = {}
    for key in config_defaults():
        if key not in request.config.said:
            continue
        missing = next((condition for condition in EFFECTS[key] if not condition.holds(request, key)), None)
        if missing is not None:
            found[key] = _sentence(request.config, key, missing.without(request, key), missing.instead(request, key))
    return found


def check_training_words(said: Iterable[str], config: Config, frame_shape: tuple[int, ...], parts: tuple[Part, ...]) -> None:
    """Raise where a word of a training without a search, as of a teacher, has no effect with its algorithm or environment.

    Args:
        said: keys of the configuration, read by such a training.
        config: of the training.
        frame_shape: ``(height, width, channels)`` of images, or ``(features,)`` of vectors.
        parts: of the observations.

    Raises:
        ConfigError: lists all of them.
    """
    asked, lines = Training(config, frame_shape, parts), []
    for key in sorted(said):
        conditions = (condition for condition in EFFECTS[key] if isinstance(condition, TrainingCondition))
        missing = next((condition for condition in conditions if not condition.holds(asked, key)), None)
        if missing is not None:
            lines.append(_sentence(config, key, missing.without(asked, key), missing.instead(asked, key)))
    if lines:
        raise ConfigError("\n".join(lines))


def _sentence(config: Config, key: str, without: str, instead: str) -> str:
    return f"{key}={_as_typed(config, key)} has no effect {without}; leave it out{f', or {instead}' if instead else ''}"


def check_options(request: Request) -> None:
    """Raise where a value would have no effect, or values contradict each other.

    Args:
        request: with what its names stand for.

    Raises:
        ConfigError: lists all of them.
    """
    lines = list(unused(request).values())
    budget, distill = request.config.budget, request.config.distill
    if budget.retrain_steps == 0 and budget.retrain_init == "scratch":
        lines.append(
            "budget.retrain_steps=0 with budget.retrain_init=scratch would export an agent that has learned nothing: set "
            "budget.retrain_steps, or budget.retrain_init=inherit to keep the searched weights"
        )
    if request.config.strategy.judge_by == "divergence" and not (
        request.teacher is not None and request.strategy.uses_teacher and distill.actor > 0.0
    ):
        lines.append(
            "strategy.judge_by=divergence needs a teacher whose actor the search distils: name one in distill.teacher with "
            "distill.actor above 0 and a strategy that searches with one, or set strategy.judge_by=score"
        )
    lines += shared_frames_faults(request)
    if budget.bracket > 1 and budget.retrain_steps > 0:
        bracket_rungs(request.config, budget.bracket)
    if distill.fall_begin > distill.fall_end:
        lines.append(
            f"distill.fall_begin={distill.fall_begin} is after distill.fall_end={distill.fall_end}: the weights cannot fall "
            "before they begin to; set distill.fall_begin below distill.fall_end"
        )
    if distill.fall == "geometric" and distill.end_fraction == 0.0:
        lines.append(
            "distill.end_fraction=0 with distill.fall=geometric: equal factors never reach 0; set distill.end_fraction=0.01, or "
            "distill.fall=linear"
        )
    if lines:
        raise ConfigError("\n".join(lines))


def _as_typed(config: Config, key: str) -> str:
    section, _, name = key.rpartition(".")
    value: object = getattr(getattr(config, section) if section else config, name)
    return value if isinstance(value, str) else json.dumps(value)
