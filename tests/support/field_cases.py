"""For each key of the configuration two runs that differ in it alone, and words with which each condition does not hold."""

import json
from dataclasses import dataclass

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
    VALUE_LOSS,
    WARM_UP,
)
from cosearch.planning.options.shared_frames import OWN_FRAMES, REWARDS
from latency_tables.devices import find_table

SPACE = {"stem_channels": 8, "stage_channels": [8, 16], "stage_repeats": [1, 1], "stage_strides": [1, 2], "hidden": 16}
TASK = (
    "env.name=minatar:breakout",
    "threads=1",
    "env.num_envs=4",
    "rl.rollout_steps=16",
    "budget.search_steps=128",
    "budget.retrain_steps=128",
)
ALONE = (*TASK, f"space.values={json.dumps(SPACE)}", "distill.teacher=none")
SMALL = (*ALONE, "rl.minibatch=16", "strategy.paths_per_rollout=2", "strategy.warmup_fraction=0.1")
BINDING = (*SMALL, "objective.latency_ratio=0.3")  # a target that not every architecture meets
HERE = (*SMALL, "table=THIS", "objective.latency_target_s=0.00012")
A2C = (*ALONE, "rl.algorithm=a2c")
LEARNED = (*TASK, f"space.values={json.dumps(SPACE)}", "rl.minibatch=16", "strategy.paths_per_rollout=2")
FALLING = (*LEARNED, "distill.end_fraction=0.1")
PROPOSALS = (*ALONE, "rl.minibatch=16", "strategy.name=evolution", "strategy.candidates=2")
JUDGED = (*TASK, f"space.values={json.dumps(SPACE)}", "rl.minibatch=16", "strategy.name=random", "strategy.candidates=8")
FINISHED = (*ALONE, "rl.minibatch=16", "strategy.name=random", "strategy.candidates=2")
A3CS = (*SMALL, "strategy.name=a3cs", "strategy.active_paths=0", "strategy.warmup_fraction=0")
PENALTY = (*SMALL, "strategy.target_form=penalty", "strategy.warmup_fraction=0", "objective.latency_target_s=0.0002")
OFF_POLICY = (
    *ALONE,
    "rl.algorithm=dqn",
    "dqn.learning_starts=16",
    "dqn.minibatch=16",
    "dqn.quantiles=4",
    "dqn.target_interval=2",
)
DQN_TAUGHT = tuple(word for word in OFF_POLICY if word != "distill.teacher=none")
CHIP = (*SMALL, "device=zc706", "objective.latency_ratio=0.9", "accel.evaluations=560", "accel.final_evaluations=560")
ONNX = (*LEARNED, "distill.teacher=ONNX", "distill.gamma=0.9", "distill.reward_std=2")


VECTORS = ("threads=1", "env.num_envs=4", "rl.rollout_steps=16", "budget.search_steps=128", "objective.latency_ratio=2")
CONTINUOUS = (
    *VECTORS,
    "env.name=gym:Pendulum-v1",
    "rl.algorithm=sac",
    "sac.learning_starts=16",
    "sac.minibatch=16",
    "sac.updates_per_step=0.25",
)


@dataclass(frozen=True)
class Case:
    """Two runs that differ in one word, and what is looked at.

    Attributes:
        look: name of the function below that runs and looks.
        base: words of both runs.
        change: the value of the second run; the first has the default, or what ``base`` says.
    """

    look: str
    base: tuple[str, ...]
    change: object


BREAKS = {  # words, added to a case, with which a condition does not hold
    ANY_ORDER: ("strategy.name=nsga2",),
    ON_POLICY: ("rl.algorithm=dqn",),
    SAME_VALUES: ("rl.algorithm=dqn",),
    DQN: ("rl.algorithm=ppo",),
    SAC: ("rl.algorithm=ppo",),
    CLIPS_GRADIENTS: ("rl.algorithm=sac", "env.name=gym:Pendulum-v1", "space.values={}", "distill.teacher=none"),
    PPO: ("rl.algorithm=a2c",),
    RATIOS: ("rl.algorithm=a2c",),
    CLIPS: ("rl.algorithm=a2c", "rl.value_clip=false"),
    VALUE_LOSS: ("rl.value_weight=0",),
    PRIORITIES: ("dqn.priority_exponent=0",),
    EXPLORATION_FALLS: ("dqn.epsilon_fraction=0",),
    EXPLORES_LESS: ("dqn.epsilon_start=0.02", "dqn.epsilon_end=0.02", "dqn.epsilon_inherited=0.02"),
    LR_FALLS: ("rl.lr_end_fraction=1",),
    LR_HAS_TIME: ("rl.lr_hold_fraction=1",),
    RETRAINING: ("budget.retrain_steps=0",),
    INHERITS: ("budget.retrain_init=scratch",),
    TEACHER: ("distill.teacher=none",),
    TAUGHT: ("strategy.name=alone", "budget.retrain_steps=0"),
    DISTILLS: ("distill.actor=0", "distill.critic=0"),
    DISTILLS_ACTOR: ("distill.actor=0",),
    FALLS: ("distill.end_fraction=1",),
    FALLS_GRADUALLY: ("distill.fall_begin=0.5", "distill.fall_end=0.5"),
    FALLS_IN_THE_RUN: ("distill.fall_begin=1", "distill.fall_end=1"),
    PROBABILITIES: ("rl.algorithm=sac", "env.name=gym:Pendulum-v1", "space.values={}", "distill.teacher=none"),
    SAYS_PROBABILITIES: ("distill.teacher=ACTIONS", "distill.critic=0"),
    OWN_SCALE: ("distill.teacher=auto",),
    ONNX_TEACHER: ("distill.teacher=auto",),
    DISCOUNT_TAKEN: ("distill.critic=0", "rl.gamma=0.5"),
    SEVERAL: ("strategy.candidates=1",),
    REWARDS: (
        *("strategy.frames=shared", "strategy.judge_by=divergence", "distill.teacher=auto", "strategy.name=random"),
        *("budget.retrain_steps=0", "budget.search_steps=256"),
    ),
    OWN_FRAMES: ("strategy.frames=shared", "strategy.judge_by=divergence", "distill.teacher=auto", "strategy.name=predictor"),
    GRADIENT: ("strategy.name=random", "strategy.candidates=2"),
    HELD: ("strategy.target_form=penalty",),
    PENALTIES: ("strategy.target_form=multiplier",),
    DUAL: ("strategy.name=s3nas",),
    LEARNS: ("strategy.warmup_fraction=1",),
    PREFERS: ("strategy.warmup_fraction=1",),
    WARM_UP: ("strategy.warmup_fraction=0",),
    NO_LATENCY_TARGET: ("objective.latency_target_s=0.001",),
    NO_TABLE: (f"table={find_table('jetson').path}",),
    NO_DEVICES: ('family.devices=["jetson"]',),
    NO_TARGETS: ("family.latency_targets_s=[0.001]",),
    LEVELS: ("env.name=minatar:breakout",),
    TAKES_KWARGS: ("env.name=minatar:breakout", "distill.teacher=none"),
    TAKES_LAYOUT: ("env.name=minatar:breakout",),
    TAKES_WRAPPERS: ("env.name=minatar:breakout", "distill.teacher=none"),
    IMAGES: ("env.name=gym:CartPole-v1", "space.values={}", "distill.teacher=none"),
    ACCELERATOR: ("device=jetson",),
    TABLE: (
        *("device=zc706", "table=", "objective.latency_target_s=0.01"),
        *("accel.evaluations=560", "accel.final_evaluations=560"),
    ),
    REPAIRED: ("budget.repair_rounds=0",),
    SHARES: ("strategy.name=random", "strategy.candidates=1"),
    SEARCHED: ("accel.fixed=true",),
    PIPELINE: ("accel.chunks=1",),
}

CASES = {
    "device": Case("plan", SMALL, "raspberry-pi-4"),
    "table": Case("plan", SMALL, str(find_table("raspberry-pi-4").path)),
    "seed": Case("search", SMALL, 1),
    "threads": Case("threads", SMALL, 2),
    "compute": Case("computing", SMALL, "cuda"),
    "control": Case("finish", FINISHED, "CONTROL"),
    "env.name": Case("search", SMALL, "minatar:asterix"),
    "env.num_envs": Case("search", SMALL, 8),
    "env.train_levels": Case("first_frames", ("env.name=procgen:maze", "env.num_envs=4", "distill.teacher=none"), 1),
    "env.kwargs": Case("search", (*VECTORS, "env.name=gym:Pendulum-v1"), {"g": 1.0}),
    "env.layout": Case(
        "first_frames", (*VECTORS, "env.name=gym:own_envs:Picture-v0", "env.layout=channels_last"), "channels_first"
    ),
    "env.wrappers": Case("first_frames", (*VECTORS, "env.name=gym:own_envs:Numbers-v0"), ["frame_stack:2"]),
    "env.episode_steps": Case("finish", SMALL, 2),
    "env.metric": Case("finish", SMALL, "length"),
    "env.solved_at": Case("finish", SMALL, -1.0),
    "env.step_limit_s": Case("training_process", (*VECTORS, "env.name=gym:CartPole-v1"), 60.0),
    "space.name": Case("plan", (*TASK, "distill.teacher=none", "objective.latency_ratio=2"), "cell"),
    "space.values": Case("plan", SMALL, {**SPACE, "hidden": 32}),
    "strategy.name": Case("search", SMALL, "a3cs"),
    "strategy.paths_per_rollout": Case("search", SMALL, 1),
    "strategy.update_path": Case("search", SMALL, "acting"),
    "strategy.active_paths": Case("search", A3CS, 1),
    "strategy.temperature_start": Case("search", A3CS, 1.0),
    "strategy.temperature_end": Case("search", A3CS, 0.1),
    "strategy.lr": Case("search", SMALL, 0.5),
    "strategy.target_form": Case("search", BINDING, "penalty"),
    "strategy.warmup_fraction": Case("search", SMALL, 0.9),
    "strategy.warmup_factor": Case("search", (*BINDING, "strategy.warmup_fraction=0.9"), 1.5),
    "strategy.derive_by": Case("search", SMALL, "scores"),
    "strategy.candidates": Case("search", PROPOSALS, 1),
    "strategy.candidate_init": Case("search", PROPOSALS, "shared"),
    "strategy.workers": Case("asked", PROPOSALS, 2),
    "strategy.reduction_factor": Case("search", (*PROPOSALS, "strategy.candidates=4", "budget.search_steps=512"), 2),
    "strategy.judge_by": Case("search", (*JUDGED, "budget.search_steps=1024"), "divergence"),
    "strategy.frames": Case("search", (*JUDGED, "budget.search_steps=1024", "strategy.judge_by=divergence"), "shared"),
    "strategy.order": Case("asked", PROPOSALS, [-1, -1]),
    "strategy.store": Case("search", SMALL, "/STORE"),
    "strategy.values": Case("search", (*ALONE, "rl.minibatch=16", "strategy.name=darts"), {"order": 2}),
    "rl.algorithm": Case("search", ALONE, "a2c"),
    "rl.rollout_steps": Case("search", SMALL, 8),
    "rl.epochs": Case("search", SMALL, 1),
    "rl.minibatch": Case("search", SMALL, 8),
    "rl.micro_batch": Case("search", SMALL, 4),
    "rl.lr": Case("search", SMALL, 0.01),
    "rl.lr_end_fraction": Case("retrain", SMALL, 0.9),
    "rl.lr_hold_fraction": Case("retrain", SMALL, 0.9),
    "rl.gamma": Case("search", SMALL, 0.5),
    "rl.lam": Case("search", SMALL, 0.5),
    "rl.reward_gamma": Case("search", (*SMALL, "budget.search_steps=640"), 0.1),
    "rl.clip": Case("search", SMALL, 1e-4),
    "rl.value_clip": Case("search", (*SMALL, "rl.clip=0.0001"), False),
    "rl.value_weight": Case("search", SMALL, 0.9),
    "rl.entropy_weight": Case("search", SMALL, 0.5),
    "rl.max_grad_norm": Case("search", SMALL, 0.01),
    "rl.bf16": Case("search", SMALL, False),
    "dqn.replay": Case("search", OFF_POLICY, 32),
    "dqn.learning_starts": Case("search", OFF_POLICY, 48),
    "dqn.replay_ratio": Case("search", OFF_POLICY, 2.0),
    "dqn.minibatch": Case("search", OFF_POLICY, 8),
    "dqn.micro_batch": Case("search", OFF_POLICY, 4),
    "dqn.lr": Case("search", OFF_POLICY, 0.01),
    "dqn.lr_end_fraction": Case("retrain", OFF_POLICY, 0.9),
    "dqn.gamma": Case("search", OFF_POLICY, 0.5),
    "dqn.n_step": Case("search", OFF_POLICY, 1),
    "dqn.quantiles": Case("search", OFF_POLICY, 5),
    "dqn.double": Case("search", OFF_POLICY, False),
    "dqn.dueling": Case("search", OFF_POLICY, False),
    "dqn.priority_exponent": Case("search", OFF_POLICY, 0.0),
    "dqn.beta_start": Case("search", OFF_POLICY, 1.0),
    "dqn.target_interval": Case("search", OFF_POLICY, 3),
    "dqn.epsilon_start": Case("search", OFF_POLICY, 0.2),
    "dqn.epsilon_end": Case("search", OFF_POLICY, 0.5),
    "dqn.epsilon_fraction": Case("search", OFF_POLICY, 0.9),
    "dqn.epsilon_inherited": Case("retrain", OFF_POLICY, 0.7),
    "dqn.reward_clip": Case("search", OFF_POLICY, 0.1),
    "dqn.temperature": Case("search", DQN_TAUGHT, 0.5),
    "sac.replay": Case("search", CONTINUOUS, 32),
    "sac.learning_starts": Case("search", CONTINUOUS, 48),
    "sac.updates_per_step": Case("search", CONTINUOUS, 0.5),
    "sac.minibatch": Case("search", CONTINUOUS, 8),
    "sac.lr": Case("search", CONTINUOUS, 0.01),
    "sac.gamma": Case("search", CONTINUOUS, 0.5),
    "sac.tau": Case("search", CONTINUOUS, 0.5),
    "distill.teacher": Case("search", LEARNED, "none"),
    "distill.gamma": Case("plan", ONNX, 0.8),
    "distill.reward_std": Case("search", ONNX, 3.0),
    "distill.outputs": Case(
        "search", (*LEARNED, "distill.teacher=PROBABILITIES", "distill.critic=0", "distill.outputs=logits"), "probabilities"
    ),
    "distill.layout": Case(
        "search", (*LEARNED, "distill.teacher=FREE", "distill.critic=0", "distill.layout=channels_last"), "channels_first"
    ),
    "distill.actor": Case("search", LEARNED, 1.0),
    "distill.critic": Case("search", LEARNED, 5.0),
    "distill.temperature": Case("search", LEARNED, 0.25),
    "distill.fall": Case("search", FALLING, "geometric"),
    "distill.fall_begin": Case("search", FALLING, 0.4),
    "distill.fall_end": Case("search", FALLING, 0.6),
    "distill.end_fraction": Case("search", LEARNED, 0.1),
    "objective.latency_target_s": Case("plan", SMALL, 0.0003),
    "objective.latency_ratio": Case("plan", SMALL, 0.5),
    "objective.target_statistic": Case("plan", SMALL, "p99"),
    "objective.target_at": Case("plan", SMALL, "period"),
    "objective.energy_target_j": Case("plan", SMALL, 0.01),
    "objective.file_target_bytes": Case("plan", SMALL, 40_000),
    "objective.memory_target_bytes": Case("plan", SMALL, 10**9),
    "objective.margin": Case("plan", SMALL, 0.05),
    "objective.dual_lr": Case("search", PENALTY, 0.9),
    "objective.quadratic": Case("search", PENALTY, 9.0),
    "family.devices": Case("plan", SMALL, ["jetson", "raspberry-pi-4"]),
    "family.latency_targets_s": Case("plan", SMALL, [0.0003, 0.0004]),
    "budget.search_steps": Case("search", SMALL, 64),
    "budget.retrain_steps": Case("retrain", SMALL, 64),
    "budget.bracket": Case("retrain", (*SMALL, "budget.retrain_steps=256"), 2),
    "budget.retrain_init": Case("retrain", SMALL, "scratch"),
    "budget.repair_rounds": Case("rounds", HERE, 2),
    "budget.repair_share": Case("rounds", HERE, 1.0),
    "budget.eval_episodes": Case("finish", FINISHED, 3),
    "budget.parity_frames": Case("finish", FINISHED, 7),
    "budget.checkpoint_interval_s": Case("search", SMALL, 0),
    "budget.measure_s": Case("finish", FINISHED, 0.1),
    "budget.clip_frames": Case("finish", FINISHED, 5),
    "accel.fixed": Case("plan", (*SMALL, "device=zc706", "objective.latency_ratio=0.9"), True),
    "accel.every_steps": Case("search", (*CHIP, "strategy.warmup_fraction=0"), 64),
    "accel.evaluations": Case("plan", CHIP, 1120),
    "accel.final_evaluations": Case("plan", CHIP, 1120),
    "accel.chunks": Case("plan", CHIP, 2),
    "accel.objective": Case("plan", (*CHIP, "accel.chunks=2"), "interval"),
}
SHOWN_ALONE = {  # figures of the log behind which the runs are the same
    "rl.clip": {"log: clip_fraction"},
    "rl.value_clip": {"log: loss_value"},
    "strategy.temperature_start": {"log: temperature"},
    "strategy.temperature_end": {"log: temperature"},
    "dqn.epsilon_start": {"log: epsilon"},  # a difference of rounding
    "dqn.epsilon_inherited": {"log: epsilon"},
    "dqn.temperature": {"log: distill_actor"},  # said also where its weight is 0
    "distill.temperature": {"log: distill_actor"},
    **{f"distill.{key}": {"log: distill_weight"} for key in ("fall", "fall_begin", "fall_end", "end_fraction")},
}
