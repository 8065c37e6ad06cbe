"""The conditions under which options have an effect; ``unused`` has the table of them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from accel_models.design import AccelDesign, design_names
from cosearch.config.run import config_defaults
from cosearch.planning.options.condition import Asked, Condition, TrainingCondition
from cosearch.planning.options.learned import begins_learned, explores_less
from cosearch.planning.request import Request
from cosearch.rl.envs import split_name
from cosearch.space.parts import can_be_shown
from cosearch.strategies.base import STRATEGIES
from cosearch.strategies.relaxation import learned


def _users(key: str) -> str:
    return ", ".join(info.name for info in STRATEGIES.entries() if key.removeprefix("strategy.") not in info.unused)


def _strategy(request: Request, key: str) -> str:
    return f"with strategy {request.strategy.name!r}"


def _algorithm(request: Asked, key: str) -> str:
    return f"with rl.algorithm={request.config.rl.algorithm}"


def _on_policy(request: Request) -> bool:
    return request.config.rl.on_policy


def _holds_target(request: Request) -> bool:
    return request.strategy.kind == "gradient" and request.strategy.holds_target(request.config.strategy)


def _further_targets(request: Request) -> bool:
    objective = request.config.objective
    return any(
        each is not None for each in (objective.energy_target_j, objective.file_target_bytes, objective.memory_target_bytes)
    )


def _prefers_at_first(request: Request) -> bool:
    """Whether a gradient strategy's scores prefer any candidate before its first step."""
    options = request.strategy.options(request.config.strategy)
    scores = request.strategy.make(request.space, options, torch.Generator().manual_seed(0)).scores()
    return learned(scores, request.space.zeros)


def _own(request: Request, key: str) -> str:
    """The option of the algorithm's own section that stands for one of ``rl``; empty where it has none."""
    own = key.replace("rl.", f"{request.config.rl.algorithm}.", 1)
    return own if own in config_defaults() else ""


def _fixed(words: str) -> Callable[[object, str], str]:
    return lambda request, key: words


USED = Condition(
    "the strategy uses it",
    lambda r, key: key.removeprefix("strategy.") not in r.strategy.unused,
    _strategy,
    lambda r, key: f"choose a strategy that uses it: {_users(key)}",
)
SEVERAL = Condition(
    "there are several candidates",
    lambda r, key: r.strategy.candidates(r.config.strategy) > 1,
    _fixed("with one candidate, which no other is trained beside"),
    _fixed("set strategy.candidates"),
)
ANY_ORDER = Condition(
    "the strategy may be told in any order",
    lambda r, key: r.strategy.any_order,
    lambda r, key: f"with strategy {r.strategy.name!r}, which is told in the order asked",
    lambda r, key: f"choose one that may be told in any order: {', '.join(i.name for i in STRATEGIES.entries() if i.any_order)}",
)
GRADIENT = Condition(
    "the strategy is a gradient strategy",
    lambda r, key: r.strategy.kind == "gradient",
    _strategy,
    lambda r, key: f"choose a gradient strategy: {_users('strategy.lr')}",
)
HELD = Condition(
    "strategy.target_form=multiplier",
    lambda r, key: _holds_target(r),
    _fixed("where targets are penalties"),
    _fixed("set strategy.target_form=multiplier"),
)
WARM_UP = Condition(
    "strategy.warmup_fraction is above 0",
    lambda r, key: r.config.strategy.warmup_fraction > 0.0,
    _fixed("with strategy.warmup_fraction=0: there is no warm-up"),
    _fixed("set strategy.warmup_fraction"),
)
LEARNS = Condition(
    "strategy.warmup_fraction is below 1",
    lambda r, key: r.config.strategy.warmup_fraction < 1.0,
    _fixed("with strategy.warmup_fraction=1: only weights learn"),
    _fixed("set strategy.warmup_fraction"),
)
PREFERS = Condition(
    "strategy.warmup_fraction is below 1, or the scores of the strategy differ before they learn",
    lambda r, key: r.config.strategy.warmup_fraction < 1.0 or _prefers_at_first(r),
    _fixed("with strategy.warmup_fraction=1: the search prefers no architecture"),
    _fixed("set strategy.warmup_fraction"),
)
PENALTIES = Condition(
    "a target is a penalty: with strategy.target_form=penalty, or beside the latency's",
    lambda r, key: not _holds_target(r) or _further_targets(r),
    _fixed("with strategy.target_form=multiplier: the latency target bounds what the search samples"),
    _fixed("set strategy.target_form=penalty"),
)
DUAL = Condition(
    "the penalties of the strategy have a dual variable",
    lambda r, key: not r.strategy.own_penalty,
    _strategy,
    lambda r, key: "its penalty has a form of its own; choose another strategy",
)
ON_POLICY = Condition(
    "rl.algorithm is ppo or a2c",
    lambda r, key: _on_policy(r),
    _algorithm,
    lambda r, key: (
        f"set {_own(r, key)}: {'the DQN' if r.config.rl.algorithm == 'dqn' else 'SAC'} has {_own(r, key)}"
        if _own(r, key)
        else "set rl.algorithm=ppo"
    ),
)
PPO = TrainingCondition(
    "rl.algorithm=ppo",
    lambda r, key: r.config.rl.algorithm == "ppo",
    _algorithm,
    _fixed("set rl.algorithm=ppo"),
)
RATIOS = Condition(
    "rl.algorithm is ppo, dqn or sac",
    lambda r, key: r.config.rl.algorithm != "a2c",
    _fixed("with rl.algorithm=a2c, whose gradient has no importance weights and so holds along the path that acted alone"),
    _fixed("set rl.algorithm=ppo"),
)
CLIPS = TrainingCondition(
    "rl.algorithm=ppo, or rl.value_clip=true and rl.value_weight is above 0",
    lambda r, key: r.config.rl.algorithm == "ppo" or (r.config.rl.value_clip and r.config.rl.value_weight > 0.0),
    lambda r, key: f"with rl.algorithm=a2c and {'rl.value_weight=0' if r.config.rl.value_clip else 'rl.value_clip=false'}",
    lambda r, key: "set rl.value_weight" if r.config.rl.value_clip else "set rl.value_clip=true",
)
LR_FALLS = TrainingCondition(
    "rl.lr_end_fraction is below 1",
    lambda r, key: r.config.rl.lr_end_fraction < 1.0,
    _fixed("with rl.lr_end_fraction=1: the learning rate does not fall"),
    _fixed("set rl.lr_end_fraction"),
)
LR_HAS_TIME = TrainingCondition(
    "rl.lr_hold_fraction is below 1",
    lambda r, key: r.config.rl.lr_hold_fraction < 1.0,
    _fixed("with rl.lr_hold_fraction=1: the learning rate does not fall"),
    _fixed("set rl.lr_hold_fraction"),
)
VALUE_LOSS = TrainingCondition(
    "rl.value_weight is above 0",
    lambda r, key: r.config.rl.value_weight > 0.0,
    _fixed("with rl.value_weight=0"),
    _fixed("set rl.value_weight"),
)
CLIPS_GRADIENTS = Condition(
    "rl.algorithm is ppo, a2c or dqn",
    lambda r, key: r.config.rl.algorithm != "sac",
    _fixed("with rl.algorithm=sac, which does not clip its gradients"),
    _fixed("set rl.algorithm=ppo"),
)
DQN = Condition("rl.algorithm=dqn", lambda r, key: r.config.rl.algorithm == "dqn", _algorithm, _fixed("set rl.algorithm=dqn"))
SAC = Condition("rl.algorithm=sac", lambda r, key: r.config.rl.algorithm == "sac", _algorithm, _fixed("set rl.algorithm=sac"))
PRIORITIES = Condition(
    "dqn.priority_exponent is above 0",
    lambda r, key: r.config.dqn.priority_exponent > 0.0,
    _fixed("with dqn.priority_exponent=0: transitions drawn alike need no weights"),
    _fixed("set dqn.priority_exponent"),
)
EXPLORATION_FALLS = Condition(
    "dqn.epsilon_fraction is above 0",
    lambda r, key: r.config.dqn.epsilon_fraction > 0.0,
    _fixed("with dqn.epsilon_fraction=0: dqn.epsilon_end holds from the start"),
    _fixed("set dqn.epsilon_fraction"),
)
EXPLORES_LESS = Condition(
    "dqn.epsilon_start differs from dqn.epsilon_end, or dqn.epsilon_inherited where a training begins with weights that have "
    "learned",
    lambda r, key: explores_less(r),
    lambda r, key: f"with dqn.epsilon_start=dqn.epsilon_end={r.config.dqn.epsilon_end}: exploration does not fall",
    _fixed("set dqn.epsilon_start"),
)
RETRAINING = Condition(
    "there is retraining: budget.retrain_steps is above 0",
    lambda r, key: r.config.budget.retrain_steps > 0,
    _fixed("with budget.retrain_steps=0: there is no retraining"),
    _fixed("set budget.retrain_steps"),
)
INHERITS = Condition(
    "a training begins with weights that have learned: retraining with budget.retrain_init=inherit, or later candidates with "
    "strategy.candidate_init=shared or a strategy whose candidates start from earlier ones",
    lambda r, key: begins_learned(r),
    lambda r, key: (
        "with budget.retrain_init=scratch: nothing has learned yet"
        if r.config.budget.retrain_steps > 0
        else "with budget.retrain_steps=0: there is no retraining"
    ),
    _fixed("set budget.retrain_steps and budget.retrain_init=inherit"),
)
TEACHER = Condition(
    "there is a teacher",
    lambda r, key: r.teacher is not None,
    lambda r, key: f"without a teacher (distill.teacher={r.config.distill.teacher}, env.name={r.config.env.name})",
    _fixed("name one in distill.teacher (`cosearch list teachers`)"),
)
TAUGHT = Condition(
    "the strategy searches with a teacher, or there is retraining",
    lambda r, key: r.strategy.uses_teacher or r.config.budget.retrain_steps > 0,
    lambda r, key: f"with strategy {r.strategy.name!r}, which searches without a teacher, and budget.retrain_steps=0",
    _fixed("set budget.retrain_steps"),
)
DISTILLS = Condition(
    "distill.actor or distill.critic is above 0 (dqn and sac: distill.actor)",
    lambda r, key: r.config.distill.actor > 0.0 or (_on_policy(r) and r.config.distill.critic > 0.0),
    lambda r, key: f"with distill.actor=0{' and distill.critic=0' if _on_policy(r) else ''}",
    _fixed("set distill.actor"),
)
FALLS = Condition(
    "distill.end_fraction is below 1",
    lambda r, key: r.config.distill.end_fraction < 1.0,
    _fixed("with distill.end_fraction=1: the weights do not fall"),
    _fixed("set distill.end_fraction"),
)
FALLS_IN_THE_RUN = Condition(
    "distill.fall_begin is below 1",
    lambda r, key: r.config.distill.fall_begin < 1.0,
    _fixed("with distill.fall_begin=1: the weights would fall after the last step"),
    _fixed("set distill.fall_begin"),
)
FALLS_GRADUALLY = Condition(
    "distill.fall_begin is below distill.fall_end",
    lambda r, key: r.config.distill.fall_begin != r.config.distill.fall_end,
    lambda r, key: f"with distill.fall_begin=distill.fall_end={r.config.distill.fall_end}: the weights fall at once",
    _fixed("set distill.fall_end"),
)
PROBABILITIES = Condition(
    "rl.algorithm is ppo, a2c or dqn",
    lambda r, key: r.config.rl.algorithm != "sac",
    lambda r, key: "with rl.algorithm=sac, which learns the teacher's best actions alone",
    _fixed("set rl.algorithm=ppo"),
)
SAYS_PROBABILITIES = Condition(
    "the teacher says how likely each action is",
    lambda r, key: r.teacher is None or r.teacher.understood is None or r.teacher.understood.teaches_by == "distribution",
    lambda r, key: f"with teacher {'' if r.teacher is None else r.teacher.name!r}, which says its best action alone",
    _fixed(""),
)
DISTILLS_ACTOR = Condition(
    "distill.actor is above 0",
    lambda r, key: r.config.distill.actor > 0.0,
    _fixed("with distill.actor=0"),
    _fixed("set distill.actor"),
)
SAME_VALUES = Condition(
    "rl.algorithm is ppo or a2c",
    lambda r, key: _on_policy(r),
    lambda r, key: f"with rl.algorithm={r.config.rl.algorithm}: its values have another reward scale than the teacher's",
    _fixed("set rl.algorithm=ppo"),
)
ONNX_TEACHER = Condition(
    "the teacher is an ONNX file",
    lambda r, key: r.teacher is not None and r.teacher.is_onnx,
    lambda r, key: (
        "without an ONNX teacher: " + ("there is none" if r.teacher is None else f"teacher {r.teacher.name!r} knows its own")
    ),
    _fixed("name an ONNX file in distill.teacher"),
)
DISCOUNT_TAKEN = Condition(
    "distill.critic is above 0, or rl.gamma is the teacher's",
    lambda r, key: r.config.distill.critic > 0.0 or r.config.rl.gamma == r.config.distill.gamma,
    lambda r, key: f"with distill.critic=0 and rl.gamma={r.config.rl.gamma}",
    _fixed("leave rl.gamma out"),
)
OWN_SCALE = Condition(
    "no teacher says what its rewards were divided by",
    lambda r, key: r.teacher is None or r.teacher.reward_std is None,
    lambda r, key: (
        f"beside teacher {'' if r.teacher is None else r.teacher.name!r}: rewards are divided by what it divided its own by"
    ),
    _fixed("set distill.teacher=none"),
)
NO_LATENCY_TARGET = Condition(
    "no latency target is given",
    lambda r, key: r.config.objective.latency_target_s is None or "objective.latency_target_s" not in r.config.said,
    lambda r, key: f"beside objective.latency_target_s={r.config.objective.latency_target_s}",
    _fixed("leave the target out"),
)
NO_TARGETS = Condition(
    "no list of latency targets is given",
    lambda r, key: not r.config.family.latency_targets_s,
    _fixed("beside family.latency_targets_s, which has the targets"),
    _fixed("leave the list out"),
)
NO_DEVICES = Condition(
    "no list of devices is given",
    lambda r, key: not r.config.family.devices,
    _fixed("beside family.devices, which has the devices"),
    _fixed("put it into that list (a table by its path)"),
)
NO_TABLE = Condition(
    "no table is given",
    lambda r, key: not r.config.table or "table" not in r.config.said,
    lambda r, key: f"beside table={r.config.table}, which is used instead",
    _fixed("leave the table out"),
)
LEVELS = Condition(
    "the environments have training levels (Procgen)",
    lambda r, key: split_name(r.config.env.name)[0].has_levels,
    lambda r, key: f"with {r.config.env.name}, which has no levels",
    _fixed("choose a Procgen game"),
)
TAKES_KWARGS = TrainingCondition(
    "the environment is made with values beside its name (gym, ale, quantum)",
    lambda r, key: split_name(r.config.env.name)[0].takes_kwargs,
    lambda r, key: f"with {r.config.env.name}, which is made from its name alone",
    _fixed("choose an environment gym:ID"),
)
TAKES_WRAPPERS = TrainingCondition(
    "the environment is Gymnasium's (gym)",
    lambda r, key: split_name(r.config.env.name)[0].takes_wrappers,
    lambda r, key: f"with {r.config.env.name}, which has wrappers of its own or none",
    _fixed("choose an environment gym:ID or MODULE:FUNCTION"),
)


def _has_images(request: Asked) -> bool:
    return len(request.frame_shape) == 3 or any(part.kind == "image" for part in request.parts)


TAKES_LAYOUT = TrainingCondition(
    "observations are images of an environment gym:ID",
    lambda r, key: split_name(r.config.env.name)[0].takes_layout and _has_images(r),
    lambda r, key: (
        f"with {r.config.env.name}, whose "
        + ("images have their channels last" if _has_images(r) else "observations are vectors")
    ),
    _fixed(""),
)
IMAGES = Condition(
    "observations are images",
    lambda r, key: can_be_shown(r.frame_shape, r.space.parts),
    lambda r, key: f"with {r.config.env.name}, whose observations are vectors and no pictures",
    _fixed(""),
)
ACCELERATOR = Condition(
    "the device is an accelerator",
    lambda r, key: isinstance(r.hardware, AccelDesign),
    lambda r, key: f"on device {r.config.table or r.config.device!r}, which has a table",
    lambda r, key: f"choose an accelerator: {', '.join(design_names())}",
)
TABLE = Condition(
    "the device has a table",
    lambda r, key: not isinstance(r.hardware, AccelDesign),
    lambda r, key: f"on accelerator {r.config.table or r.config.device!r}, where no agent is run",
    _fixed("choose a device of `cosearch list devices`"),
)
REPAIRED = Condition(
    "budget.repair_rounds is above 0",
    lambda r, key: r.config.budget.repair_rounds > 0,
    _fixed("with budget.repair_rounds=0: no architecture takes the place of another"),
    _fixed("set budget.repair_rounds"),
)
SHARES = Condition(
    "the search leaves shared weights",
    lambda r, key: r.strategy.kind != "proposal" or r.config.strategy.candidate_init == "shared",
    _fixed("where candidates train alone: what follows the derived architecture has all steps of the retraining"),
    _fixed("set strategy.candidate_init=shared, or choose a strategy with a supernet"),
)
SEARCHED = Condition(
    "accel.fixed=false",
    lambda r, key: not r.config.accel.fixed,
    _fixed("with a fixed accelerator, which is not searched"),
    _fixed("leave --fixed-accelerator (accel.fixed) out"),
)
PIPELINE = Condition(
    "accel.chunks is above 1, or the platform's own design has several chunks",
    lambda r, key: (
        (r.config.accel.chunks > 1 and not r.config.accel.fixed)
        or (isinstance(r.hardware, AccelDesign) and len(r.hardware.chunks) > 1)
    ),
    _fixed("with one chunk: its frames follow each other at their own latency"),
    _fixed("set accel.chunks=2"),
)
