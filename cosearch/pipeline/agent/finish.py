"""The last stage: evaluate on held-out levels, export with its parity gate, measure, summarise, report.

On the device itself the agent is measured against the run's targets; where it is over, another architecture follows and nothing
else is done. Everything here can be done again from the final weights, so an interrupted finish simply starts over. The agent
that is evaluated is the exported file itself, run by onnxruntime: the score is that of what gets deployed (of a library of TVM,
that of the ONNX file that it was compiled from).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from cosearch.config.run import Config
from cosearch.deploy.bundle.folder import write_bundle
from cosearch.deploy.clip import animate, play
from cosearch.deploy.export import export_agent, to_onnx
from cosearch.deploy.figures import measured_latency, paced_latency
from cosearch.deploy.judging import EVAL_ENVS, judged, random_score, solved_at
from cosearch.deploy.measure import AgentLatency, SideBySide
from cosearch.deploy.observing import observations, observed
from cosearch.deploy.onnx_agent import OnnxAgent
from cosearch.deploy.readings import Readings
from cosearch.pipeline.agent.artifact import Deployed, deploy, measure_deployed
from cosearch.pipeline.agent.policy_figures import compare_with_policy
from cosearch.pipeline.checkpoint import RetrainOutput, SearchOutput
from cosearch.pipeline.search.co_design import in_short
from cosearch.pipeline.session import Clock, Resources
from cosearch.pipeline.target.checks import checked_targets, measured_figures
from cosearch.pipeline.target.repair import Repair, running_of
from cosearch.planning.control import control_of
from cosearch.planning.identity import teacher_identity
from cosearch.planning.plan import Plan
from cosearch.planning.teacher import other_task
from cosearch.record.durable import write_bytes_atomic
from cosearch.record.results.agent import AgentRecord, LatencyRecord
from cosearch.record.results.evaluation import EpisodesRecord
from cosearch.record.results.summary import Interval, ReferenceAgent, Summary, TargetCheck, all_met, predicted_by
from cosearch.record.run_record import ReferenceRecord
from cosearch.record.rundir import RunDir
from cosearch.report.page import write_report
from cosearch.rl.evaluate import Score, evaluate
from cosearch.rl.policy import how_to_act
from cosearch.rl.rollout import Forward
from cosearch.rl.task import make_task
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.space.network import AgentNetwork, reference_agents
from cosearch.space.parts import can_be_shown
from cosearch.space.space import Architecture
from cosearch.statistics import mean_text
from cosearch.training.algorithms import acting, as_policy, within_bounds
from cosearch.training.progress import Progress
from latency_tables.text.writing import remove


def run_finish(
    plan: Plan,
    searched: SearchOutput,
    trained: RetrainOutput,
    resources: Resources,
    run: RunDir,
    progress: Progress,
    clock: Clock,
    repair: Repair | None = None,
    *,
    may_follow: bool = True,
) -> SearchOutput | None:
    """Produce the run's results from its final weights.

    Args:
        plan: the resolved run.
        searched, trained: what the stages before gave.
        resources: streams and teacher of the run.
        run: gets the results.
        progress: display.
        clock: of the run.
        repair: the rounds on the device; None where no target can be measured here.
        may_follow: whether another architecture takes the place of one that measures over its targets.

    Returns:
        That architecture, which is to be retrained; None where the run has its results.
    """
    config, streams = plan.config, resources.streams
    greedy = config.rl.algorithm == "sac" or (plan.acts_greedily and config.rl.algorithm != "dqn")
    progress.stage("finish", 4, 0)
    architecture = plan.space.architecture(searched.choices)
    network = derive(architecture, torch.Generator().manual_seed(0))
    network.load_state_dict(trained.weights)
    network = within_bounds(network, config).float().eval()
    seen = observed(network, config, config.budget.parity_frames, streams)
    frames = seen.frames
    exported = export_agent(network, run.path, frames, seen.begins, plan.space.action_sizes)
    progress.note(f"exported agent.onnx: max difference {exported.parity.max_abs_difference:.1e} over {len(frames)} observations")

    def played_by(path: Path, *, test: bool) -> Score:
        return _evaluate(config, streams, as_policy(OnnxAgent(path), config), progress, greedy=greedy, test=test)

    deployed = deploy(
        plan.artifact,
        run.path,
        frames,
        evaluate=lambda path: played_by(path, test=True),
        compare=lambda path: played_by(path, test=False),
        observe=lambda count: observations(network, config, count, streams, test=False),
        greedy=_acting(plan)["rule"] == "argmax" and plan.space.policy != "gaussian",  # whose means are never exactly the same
        note=progress.note,
        action_sizes=plan.space.action_sizes,
        fine_tuned_steps=trained.fine_tuned_steps,
    )
    measured_last, rounds, readings = None, None, None
    if repair is not None:
        measured_last, readings = repair.check(deployed.model)
        if not measured_last.holds and may_follow:
            following = repair.another(trained.steps)
            if following is not None:
                return following
        rounds = repair.close()
    score = deployed.score
    progress.note(f"score on held-out levels {mean_text(score.mean, score.ci95, len(score.returns))}")
    actions = "greedy" if _acting(plan)["rule"] == "argmax" else "sampled"
    run.write(
        EpisodesRecord(levels="test", actions=actions, returns=score.returns, lengths=score.lengths, successes=score.successes)
    )
    timed = _measure(plan, deployed)
    agents = {} if timed is None else dict(timed.agents)
    if "agent" in agents and readings is not None:
        agents["agent"] = as_checked(agents["agent"], readings, plan)
    agent = agents.get("agent")
    prediction = plan.hardware.predict(architecture.ops())
    latency = LatencyRecord(
        predicted_s=prediction.latency_s,
        predicted_provenance=prediction.provenance,
        predicted_for=plan.hardware.device.table_name,
        measured=None if agent is None else agent.measured,
        paced=None if agent is None else agent.paced,
        conditions={} if timed is None else timed.conditions,
    )
    run.write(
        AgentRecord(
            parity=exported.parity,
            artifact=deployed.record,
            inputs=exported.inputs,
            outputs=exported.outputs,
            memory=exported.memory,
            preprocessing=exported.preprocessing,
            acting=_acting(plan),
            latency=latency,
            architecture=tuple(architecture.choice_names),
        )
    )
    teacher_mean, teacher_ci95, played = _teacher_score(config, resources, progress)
    taught = (teacher_mean, teacher_ci95)
    checks = checked_targets(plan, architecture, measured_figures(plan, deployed.record.bytes, agent, measured_last))
    summary = _summary(plan, architecture, score, agents, checks, taught, searched.steps + trained.steps, clock.spent_s)
    by_chance = None
    if teacher_mean is not None:
        by_chance = random_score(config.env, config.budget.eval_episodes, streams.derive("eval", 0), progress.note)
    summary = replace(summary, evaluation=judged(score, _solved_at(config), teacher_mean, by_chance))
    if played is not None and by_chance is not None and plan.teacher is not None and plan.teacher.understood is not None:
        latency_s, policy = compare_with_policy(plan, plan.teacher.understood, score, played, by_chance, timed)
        summary = replace(summary, policy_score_mean=played.mean, policy_latency_s=latency_s, policy=policy)
    if plan.not_known and summary.target_met is None:
        progress.note(plan.not_known)
    for check in checks:
        if check.probability is not None:
            progress.note(
                f"predicted, not measured on {plan.hardware.device.name}: the target holds there with probability "
                f"{check.probability:.2f}, by the residuals of {check.residuals} networks"
            )
    if rounds is not None:
        summary = replace(
            summary,
            target_rounds=rounds.rounds,
            rounds_outcome=rounds.outcome,
            deployed_round=None if rounds.deployed is None else rounds.deployed + 1,
        )
    run.write(summary)
    write_bundle(run, frames, begins=seen.begins)
    remove(run.path / "clip.gif")
    if config.budget.clip_frames and can_be_shown(plan.space.frame_shape, plan.space.parts):
        player = as_policy(OnnxAgent(run.path / "agent.onnx"), config)
        shown = play(player, config, config.budget.clip_frames, config.seed, greedy=greedy)
        write_bytes_atomic(run.path / "clip.gif", animate(shown))
    write_report(run.path)
    return None


def as_checked(agent: AgentLatency, readings: Readings, plan: Plan) -> AgentLatency:
    """The agent's latency as its targets were checked by: of all visits, not of those beside the reference agents.

    Args:
        agent: timed beside the others.
        readings: of the check.
        plan: the resolved run.
    """
    measured, pace = agent.measured, readings.pace
    if readings.visits:
        measured = measured_latency(
            readings.visits, device=measured.device, runtime_version=readings.runtime_version, running=running_of(plan)
        )
    return AgentLatency(measured, agent.paced if pace is None else paced_latency(pace))


def _summary(
    plan: Plan,
    architecture: Architecture,
    score: Score,
    agents: Mapping[str, AgentLatency],
    checks: tuple[TargetCheck, ...],
    teacher: tuple[float | None, Interval | None],
    env_steps: int,
    wall_s: float,
) -> Summary:
    ops = architecture.ops()
    predicted = plan.constraints[0].cost.exact(architecture)
    teacher_mean, teacher_ci95 = teacher
    measured = agents["agent"].measured if agents else None
    measured_s = None if measured is None else measured.p50_s
    met, was_measured = all_met(checks), all(check.measured is not None for check in checks)
    return Summary(
        score_mean=score.mean,
        score_ci95=score.ci95,
        episodes=len(score.returns),
        episodes_cut=score.cut,
        teacher_score_mean=teacher_mean,
        teacher_score_ci95=teacher_ci95,
        share_of_teacher=score.mean / teacher_mean if teacher_mean else None,
        latency_predicted_s=predicted,
        latency_predicted_for=plan.hardware.device.table_name,
        latency_measured_s=measured_s,
        latency_measured_on="not measured" if measured is None else f"{measured.device}/{measured.identity}",
        latency_target_s=plan.constraints[0].value,
        target_met=met,
        target_checked_by="measurement" if was_measured else "nothing" if met is None else predicted_by(plan.hardware.provenance),
        targets=checks,
        table_provenance=plan.hardware.provenance,
        table_id=plan.hardware.table_id,
        params=sum(op.params for op in ops),
        macs=sum(op.macs for op in ops),
        env_steps=env_steps,
        wall_s=wall_s,
        strategy=plan.strategy.name,
        seed=plan.config.seed,
        reference_agents=tuple(
            _reference_agent(name, reference, predicted, measured_s, agents[name].measured.p50_s if name in agents else None)
            for name, reference in plan.references.items()
        ),
        control=control_of(plan.config),
        accelerator=None if plan.accelerator is None else in_short(plan.accelerator, architecture),
    )


def _reference_agent(
    name: str, reference: ReferenceRecord, predicted_s: float, measured_s: float | None, own_measured_s: float | None
) -> ReferenceAgent:
    return ReferenceAgent(
        name=name,
        latency_predicted_s=reference.latency_predicted_s,
        params=reference.params,
        macs=reference.macs,
        latency_measured_s=own_measured_s,
        predicted_ratio=predicted_s / reference.latency_predicted_s,
        measured_ratio=None if measured_s is None or own_measured_s is None else measured_s / own_measured_s,
    )


def _solved_at(config: Config) -> float | None:
    env = make_task(config.env, 1, 0)
    try:
        return solved_at(config.env, env)
    finally:
        env.close()


def _teacher_score(
    config: Config, resources: Resources, progress: Progress
) -> tuple[float | None, Interval | None, Score | None]:
    """What the teacher's file says of its return; a user's ONNX file says nothing, and none says anything of success, length or a
    task with other wrappers or arguments: then the teacher plays the agent's own evaluation."""
    teacher = resources.teacher
    if teacher is None:
        return None, None, None
    if not teacher.record.is_onnx and not other_task(teacher.record, config.env):
        said = teacher_identity(teacher.record)
        return said.score_mean, said.score_ci95, None
    score = _evaluate(config, resources.streams, teacher.plays, progress, greedy=teacher.record.is_greedy)
    return score.mean, score.ci95, score


def _acting(plan: Plan) -> dict[str, object]:
    config, greedy = plan.config, plan.acts_greedily
    env = make_task(config.env, 1, 0)
    try:
        how = how_to_act(env)
    finally:
        env.close()
    if config.env.layout == "channels_first" and "parts" not in how:
        how["layout"] = config.env.layout
    if config.rl.algorithm == "dqn":
        kept = ("first_action", "layout", "action_names", "parts")
        return {**acting(config), **{key: value for key, value in how.items() if key in kept}}
    rule = acting(config, greedy=greedy)
    return {**(rule if how["policy"] != "gaussian" else {"rule": rule["rule"], "value": rule["value"]}), **how}


def _evaluate(
    config: Config, streams: Streams, agent: Forward, progress: Progress, *, greedy: bool = False, test: bool = True
) -> Score:
    """Returns on held-out levels; those on training levels, from other seeds, choose the int8 form."""
    of_env, of_actions = (0, 3) if test else (8, 9)
    env = make_task(config.env, min(EVAL_ENVS, config.budget.eval_episodes), streams.derive("eval", of_env), test=test)
    try:
        return evaluate(
            agent,
            env,
            config.budget.eval_episodes,
            torch.Generator().manual_seed(streams.derive("eval", of_actions)),
            greedy=greedy,
            episode_steps=config.env.episode_steps,
            metric=config.env.metric,
            note=progress.note,
        )
    finally:
        env.close()


def _measure(plan: Plan, deployed: Deployed) -> SideBySide | None:
    """The agent and the reference agents, in turns on this machine as they are deployed; None where it cannot run the agent."""
    shape, parts = plan.space.frame_shape, plan.space.parts
    references = {
        name: to_onnx(AgentNetwork(ops, torch.Generator().manual_seed(0), parts=parts).eval(), shape)
        for name, ops in reference_agents(shape, plan.space.num_actions, parts).items()
        if name in plan.references
    }
    teacher = plan.teacher
    policy = None if teacher is None or teacher.understood is None else teacher.path.read_bytes()
    return measure_deployed(plan.artifact, deployed, references, policy, seconds=plan.config.budget.measure_s)
