"""`cosearch teacher`: PPO or A2C on a fixed network, resumable, with the hyper-parameters that Procgen's authors published.

64 environments x 256 steps, 8 minibatches of 2,048, 3 epochs, Adam 5e-4 eps 1e-5, gamma 0.999, lambda 0.95, clip 0.2 also on
the value, entropy 0.01, value 0.5, gradient norm 0.5 (Cobbe et al. 2020), rewards scaled by returns of discount 0.99 (the default
of the wrapper that they used). Differs in: the learning rate is constant for the first half and then falls linearly to a fifth
(``rl.lr_end_fraction=1`` keeps it constant, as published). A family of environments may have values of its own in their place
(``EnvFamily.teacher``; Procgen has shorter rollouts, learned from once in smaller minibatches); KEY=VALUE words come last.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from cosearch.compute import compute_device
from cosearch.config.fixed import check_words
from cosearch.config.run import Config, resolve
from cosearch.planning.builtins import load_builtins
from cosearch.planning.identity import check_environment, environment_record
from cosearch.planning.options.unused import check_training_words
from cosearch.planning.plan import versions
from cosearch.planning.size import check_size
from cosearch.planning.teacher import task_said
from cosearch.record.json_record import from_json, to_json
from cosearch.record.run_record import EnvironmentRecord
from cosearch.record.rundir import RunDir, as_folder_name
from cosearch.record.state import read, read_state
from cosearch.rl.envs import split_name
from cosearch.rl.evaluate import Score, evaluate
from cosearch.rl.heldout import HeldOut
from cosearch.rl.learning.learner import ALGORITHMS
from cosearch.rl.learning.minibatches import check_minibatches
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.rl.policy import policy_of
from cosearch.rl.task import make_task
from cosearch.rl.teacher import save_teacher
from cosearch.seeding import Streams
from cosearch.space.network import AgentNetwork, fixed_agents
from cosearch.space.parts import Part
from cosearch.training.algorithms import make_training
from cosearch.training.progress import Progress
from cosearch.training.stage import Training
from cosearch.training.threads import set_threads
from latency_tables.errors import ConfigError, RequestError, RunFolderError, UnknownNameError
from latency_tables.opspec import OpSpec
from latency_tables.text.writing import check_destination, make_folder

PUBLISHED = {
    "rl.rollout_steps": 256,
    "rl.epochs": 3,
    "rl.minibatch": 2048,
    "rl.lr": 5e-4,
    "rl.lr_end_fraction": 0.2,
    "rl.lr_hold_fraction": 0.5,
    "rl.gamma": 0.999,
    "rl.reward_gamma": 0.99,
    "rl.value_weight": 0.5,
    "rl.entropy_weight": 0.01,
    "rl.max_grad_norm": 0.5,
    "rl.clip": 0.2,
    "rl.lam": 0.95,
    "env.num_envs": 64,
    "distill.teacher": "none",
}
OPTIONS = {"env.name": "--env", "env.train_levels": "--train-levels", "seed": "--seed", "threads": "--threads"}
READ = (  # how the keys begin that a teacher's training reads
    *("compute", "rl."),
    *("env.num_envs", "env.kwargs", "env.layout", "env.wrappers", "env.episode_steps", "env.step_limit_s"),
)
SAVE_EVERY = 8  # updates between checkpoints


@dataclass(frozen=True)
class TeacherRequest:
    """What is asked for.

    Attributes:
        env, network: names; no network: the family's own, or the first reference agent.
        steps: environment steps.
        seed: the one seed.
        threads: CPU threads; 0 for all cores.
        episodes: of the final scores.
        train_levels: Procgen training levels; None: the default of ``env.train_levels``, or none on a task without levels.
        test_envs: environments on held-out levels that are played beside the training, for a learning curve; 0: none.
        values: KEY=VALUE words over the published configuration.
    """

    env: str
    network: str
    steps: int
    seed: int
    threads: int
    episodes: int
    train_levels: int | None = None
    test_envs: int = 0
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class TeacherPlan:
    """A teacher that can be trained here.

    Attributes:
        request: with its network named.
        config: of the training.
        device: where it is trained.
        ops: of the network.
        policy: what its outputs mean.
        parts: of the observations.
        environment: as it is here, for the record.
    """

    request: TeacherRequest
    config: Config
    device: torch.device
    ops: Sequence[OpSpec]
    policy: str
    parts: tuple[Part, ...]
    environment: EnvironmentRecord


def train_teacher(request: TeacherRequest, out: Path, runs: Path, command: str, progress: Progress) -> dict[str, object]:
    """Train, score on test and training levels, write the teacher file.

    Args:
        request: what to train.
        out: the JSON file; the weights go beside it.
        runs: folder of the run folders.
        command: the command line, for the record.
        progress: display.

    Returns:
        The provenance that was written.

    Raises:
        RequestError: ``out`` is not a .json file.
        ConfigError: an unknown key, a value out of its range, years of training, or ``compute=cuda`` where there is no GPU.
        UnknownNameError: no such network for these frames.
        RunFolderError: the run folder belongs to another request.
    """
    check_out(out)
    plan = plan_teacher(request)
    RunDir.check_new(Path(runs), None)
    make_folder(out.parent)
    request = plan.request
    run = open_run(plan, Path(runs), as_folder_name("teacher", request.env, request.network, f"s{request.seed}"), command)
    return teach(plan, run, out, command, progress)


def check_out(out: Path) -> None:
    """Raise now where a teacher could not be written after hours of training.

    Args:
        out: its JSON file.

    Raises:
        RequestError: it is no .json file, or something is there that is no file.
    """
    if out.suffix != ".json":
        raise RequestError(f"--out must be a .json file (the weights go beside it), got {out}")
    for file in (out, out.with_suffix(".safetensors")):
        check_destination(file)


def plan_teacher(request: TeacherRequest) -> TeacherPlan:
    """What is needed to train a teacher.

    Args:
        request: what to train.

    Raises:
        ConfigError: an unknown key, a value out of its range, a word without effect, a minibatch of one frame, years of training,
            or ``compute=cuda`` where there is no GPU.
        UnknownNameError: no such environment, or no such network for its frames.
    """
    load_builtins()
    config = teacher_config(request)
    device = compute_device(config.compute)
    family, _ = split_name(request.env)
    network = request.network or str(family.teacher.get("network", ""))
    probe = make_task(config.env, 1, 0)
    networks, policy = fixed_agents(probe.frame_shape, probe.num_actions, probe.parts), policy_of(probe).name
    environment = environment_record(probe)
    probe.close()
    check_training_words(resolve(overrides=request.values).said, config, probe.frame_shape, probe.parts)
    check_minibatches(config.rl.rollout_steps, config.env.num_envs, config.rl.minibatch)
    check_size(config, probe.frame_shape, train_steps=request.steps)
    network = network or next(iter(networks))
    if network not in networks:
        raise UnknownNameError(f"unknown network {network!r} for {request.env}: expected one of {', '.join(networks)}")
    request = replace(request, network=network, train_levels=config.env.train_levels if family.has_levels else None)
    return TeacherPlan(request, config, device, networks[network], policy, probe.parts, environment)


def open_run(plan: TeacherPlan, runs: Path, name: str, command: str) -> RunDir:
    """The run folder of a teacher: a new one, or the one in which the same training was begun.

    Args:
        plan: of the teacher.
        runs: folder that holds it.
        name: of it.
        command: the command line, for the record of a new one.

    Raises:
        RunFolderError: it belongs to another request.
        ConfigError: it was begun with another environment.
    """
    request, environment = plan.request, plan.environment
    if not (runs / name).exists():
        began_with = {"environment": to_json(environment), "versions": versions()}
        return RunDir.create(runs, name, {"command": command, "request": asdict(request), **began_with})
    run = RunDir.open(runs / name, teacher=True)
    began = run.record.get("request")
    if request.train_levels is None and isinstance(began, dict):  # earlier versions recorded a number where there are no levels
        began = {**began, "train_levels": None}
    if began != json.loads(json.dumps(asdict(request))):
        raise RunFolderError(
            f"{run.path} was begun with other values ({run.record.get('request')}); move it away or use other --runs"
        )
    if "environment" in run.record:  # an earlier version did not record it
        check_environment(run.path, from_json(EnvironmentRecord, run.record["environment"], run.path / "run.json"), environment)
    return run


def teach(plan: TeacherPlan, run: RunDir, out: Path, command: str, progress: Progress) -> dict[str, object]:
    """Train, or go on with a training, score, and write the teacher file.

    Args:
        plan: of the teacher.
        run: its folder.
        out, command, progress: see :func:`train_teacher`.

    Returns:
        The provenance that was written.
    """
    request, config, streams = plan.request, plan.config, Streams(plan.request.seed)
    set_threads(request.threads)
    network = AgentNetwork(plan.ops, streams.torch("weights"), policy=plan.policy, parts=plan.parts)
    with run.lock():
        training = _train(run, config, plan.device, request, network, streams, progress)
    scores = {levels: _score(network, config, request, levels, progress) for levels in ("test", "train")}
    provenance: dict[str, object] = {
        "command": command,
        "algorithm": config.rl.algorithm,
        "seed": request.seed,
        "steps": training.step,
        "train_levels": request.train_levels,
        "task": task_said(config.env),
        "score_mean": scores["test"].mean,
        "score_ci95": scores["test"].ci95,
        "episodes": len(scores["test"].returns),
        "episodes_cut": scores["test"].cut,
        "score_train_mean": scores["train"].mean,
        "score_train_ci95": scores["train"].ci95,
    }
    save_teacher(
        out,
        network,
        env=request.env,
        description=f"{request.network}, {config.rl.algorithm.upper()}",
        gamma=config.rl.discount,
        reward_std=training.rounds.collector.scale.std,
        provenance=provenance,
    )
    return {"teacher": str(out), **provenance}


def teacher_config(request: TeacherRequest) -> Config:
    """The configuration of a teacher's training: published values, then the family's, then the request's words.

    Raises:
        ConfigError: an unknown key, a value out of its range, a word without effect, or an algorithm without a policy and a
            state value.
        UnknownNameError: no such environment.
    """
    family, game = split_name(request.env)
    own = {**family.teacher, **family.suited.get(game, {})}
    values = {**PUBLISHED, **{key: value for key, value in own.items() if "." in key}}
    words = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    fixed = {"env.name": request.env, "seed": request.seed, "env.train_levels": request.train_levels, "threads": request.threads}
    if request.train_levels is not None and not family.has_levels:
        raise ConfigError(
            f"--train-levels {request.train_levels} has no effect with {request.env}, which has no levels: leave it out"
        )
    config = resolve(overrides=[*words, *request.values], options=fixed)
    if config.rl.algorithm not in ALGORITHMS:
        raise ConfigError(
            f"a teacher has a policy and a state value, rl.algorithm={config.rl.algorithm} learns action values: "
            f"set rl.algorithm to {' or '.join(ALGORITHMS)}"
        )
    check_words(request.values, OPTIONS, READ)
    return config


def _train(
    run: RunDir,
    config: Config,
    device: torch.device,
    request: TeacherRequest,
    network: AgentNetwork,
    streams: Streams,
    progress: Progress,
) -> Training:
    subject = NetworkSubject(network, lr=config.rl.lr, bf16=config.rl.bf16, device=device)
    training = make_training(config, subject, streams, None, total_steps=request.steps)
    held_out = None
    if request.test_envs:
        held_out = HeldOut(make_task(config.env, request.test_envs, streams.derive("env", 1), test=True), streams.torch("eval"))
    saved = run.load_checkpoint()
    if saved is not None:
        anew = training.restore(read_state(saved, "training"))
        if len(anew):
            progress.note(f"{len(anew)} running episodes could not be continued and begin anew: the environment does not replay")
        if held_out is not None:
            held_out.restore(read_state(saved, "held_out"))
        streams.load_state_dict(read_state(saved, "streams"))
    before, started = read(saved, "wall_s", float) if saved and "wall_s" in saved else 0.0, time.perf_counter()
    run.truncate_metrics(training.step, "teacher")
    progress.stage("teacher", request.steps, training.step)
    try:
        while not training.finished:
            values = training.advance()
            if held_out is not None:
                held_out.play(subject.actors()[0], config.rl.rollout_steps)
                values["score_eval"] = held_out.score
            wall_s = before + time.perf_counter() - started
            line = {"stage": "teacher", "wall_s": round(wall_s, 3), **values}
            run.append_metrics(line)
            progress.update(line)
            if training.step // training.steps_per_update % SAVE_EVERY == 0 or training.finished:
                state = {"training": training.state(), "streams": streams.state_dict(), "wall_s": wall_s}
                run.save_checkpoint({**state, **({"held_out": held_out.state()} if held_out else {})}, training.step)
    finally:
        training.close()
        if held_out is not None:
            held_out.close()
    return training


def _score(network: AgentNetwork, config: Config, request: TeacherRequest, levels: str, progress: Progress) -> Score:
    streams = Streams(request.seed)
    env = make_task(config.env, min(64, request.episodes), streams.derive("eval"), test=levels == "test")
    network.cpu().eval()
    try:
        generator = torch.Generator().manual_seed(streams.derive("eval", 1))
        return evaluate(network, env, request.episodes, generator, episode_steps=config.env.episode_steps, note=progress.note)
    finally:
        env.close()
