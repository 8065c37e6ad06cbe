"""A run from request to report, and its resumption: the only place that knows the order of the stages."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cosearch.deploy.bundle.folder import AS_EXPORTED, BundleOptions, check_options, rewrite_bundle
from cosearch.fleet.cluster import HERE, Cluster
from cosearch.pipeline.agent.bracket import Bracket
from cosearch.pipeline.agent.finish import run_finish
from cosearch.pipeline.agent.retrain import run_retrain
from cosearch.pipeline.checkpoint import Checkpoint, SearchOutput
from cosearch.pipeline.family.comparison import compare_agents
from cosearch.pipeline.family.folders import begin_agents, share_training
from cosearch.pipeline.opening import WHERE_RECORDED, Places, opened, own_tables, record_places
from cosearch.pipeline.rehearsal import rehearse
from cosearch.pipeline.search.stage import run_search, search_for_all
from cosearch.pipeline.session import Session, open_session
from cosearch.pipeline.target.repair import Repair, meter_of, stage_after_search, write_taken
from cosearch.planning.plan import Plan
from cosearch.planning.recorded import config_of
from cosearch.record.json_record import to_json
from cosearch.record.results.family import agent_folder, agent_names, family_of
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir, as_folder_name
from cosearch.rl.probe import doubts
from cosearch.training.progress import Progress
from cosearch.training.threads import set_threads
from latency_tables.errors import RequestError, RunFolderError


def start_run(plan: Plan, runs: Path, name: str, command: str, progress: Progress, cluster: Cluster = HERE) -> RunDir:
    """Make the run folder and work until the report.

    Args:
        plan: the resolved run.
        runs: folder of the runs.
        name: the run's name.
        command: the command line, for the record.
        progress: display.
        cluster: where candidates are trained that are trained side by side.

    Raises:
        RequestError: a cluster would have nothing to do.
        RunFolderError: the folder exists or is in use.
        RunFailedError: the run failed; the last checkpoint is kept. Or no agent could be exported at its end: no folder is made.
    """
    check_cluster(plan, cluster)
    set_threads(plan.config.threads)
    for one in {one.hardware.table_id: one for one in plan.every}.values():
        rehearse(one, progress.note)
    for doubt in doubts(plan.config.env, plan.config.budget.search_steps + plan.config.budget.retrain_steps):
        progress.note(f"the environment: {doubt}")
    if plan.inexact_resume is not None:
        progress.note(f"not exactly resumable: {plan.inexact_resume}")
    if plan.not_known:
        progress.note(plan.not_known)
    if plan.counts.few:
        progress.note(f"space: {plan.counts.text()}")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    run = RunDir.create(Path(runs), name, to_json(replace(plan.record(command), name=name, created_utc=created)))
    _work(run, plan, progress, cluster=cluster)
    return run


def resume_run(
    path: Path, progress: Progress, places: Places = WHERE_RECORDED, *, fresh_episodes: bool = False, cluster: Cluster = HERE
) -> RunDir:
    """Go on from the newest checkpoint; a finished run is left as it is.

    Args:
        path: the run folder.
        progress: display.
        places: of files that were moved.
        fresh_episodes: where the environment does not replay though it did when the run began, its episodes begin anew.
        cluster: where candidates are trained that are trained side by side.

    Raises:
        RunFolderError: not a run folder, or of `cosearch bench search`, or in use, or a file of it is gone.
        TableError: the device's table is not the one the run began with.
        ConfigError: nor is the teacher, or the environment.
    """
    run = _with_an_agent(path)
    if is_finished(run):
        progress.note(f"{path} is finished: `cosearch report {path}` writes its report again")
        return run
    plan = opened(run, places, progress, "resume")
    check_cluster(plan, cluster)
    if fresh_episodes and plan.inexact_resume is None:
        because = "its running episodes may begin anew after a resume, as was asked for"
        agents = {name: replace(agent, inexact_resume=because) for name, agent in plan.agents.items()}
        plan = replace(plan, inexact_resume=because, agents=agents)
    _work(run, plan, progress, cluster=cluster)
    compare_again(path)
    return run


def check_cluster(plan: Plan, cluster: Cluster) -> None:
    """Raise where a cluster would have nothing to do.

    Raises:
        RequestError: the run trains no candidates side by side.
    """
    if cluster.address and (plan.strategy.kind != "proposal" or plan.config.strategy.workers == 1):
        raise RequestError(
            f"--cluster has no effect on a run of {plan.strategy.name} with strategy.workers={plan.config.strategy.workers}: a "
            "cluster trains the candidates of a proposal strategy side by side. Set strategy.workers, or leave --cluster out; "
            "many runs at once: `cosearch compare --cluster ADDRESS`"
        )


def is_finished(run: RunDir) -> bool:
    """Whether the run has reached its report."""
    checkpoint = run.load_checkpoint()
    return checkpoint is not None and Checkpoint.from_dict(checkpoint).stage == "done"


def export_again(path: Path, progress: Progress, places: Places = WHERE_RECORDED, bundle: BundleOptions = AS_EXPORTED) -> RunDir:
    """Do the last stage again from the final weights: export, evaluation, measurement, bundle, report.

    Args:
        path: the run folder.
        progress: display.
        places: of files that were moved.
        bundle: opset of the bundle's file, and where its action is chosen.

    Raises:
        RunFolderError: the run has no final weights yet, or is of `cosearch bench search`, or a file of it is gone.
        TableError: the device's table is not the one the run began with.
        ConfigError: nor is the teacher, or the environment.
        RequestError: the agent cannot have such a bundle.
    """
    run = _with_an_agent(path)
    if agent_names(run):
        given = own_tables(run, config_of(run), places.tables)
        for agent in run.read(RunRecord).agents:
            own = (given[agent.table_id],) if agent.table_id in given else ()
            export_again(agent_folder(path, agent.name), progress, replace(places, tables=own), bundle)
        return run
    check_options(run, bundle)
    checkpoint = run.load_checkpoint()
    if checkpoint is None or Checkpoint.from_dict(checkpoint).outputs.retrain is None:
        raise RunFolderError(f"{path} has no trained agent yet: `cosearch resume {path}` goes on with it")
    _work(run, opened(run, places, progress, "export"), progress, again="finish")
    if bundle != AS_EXPORTED:
        with run.lock():
            rewrite_bundle(run, bundle)
    compare_again(path)
    return run


def _with_an_agent(path: Path) -> RunDir:
    """The run in a folder, of a kind whose agent is trained."""
    run = RunDir.open(path)
    if run.of_bench:
        raise RunFolderError(
            f"{path} is a search for the tabular benchmark, which trains no agent: "
            "the same `cosearch bench search` goes on with it"
        )
    return run


def compare_again(path: Path) -> None:
    """Bring the record and the page of a family up to date, after one of its agents has changed.

    Args:
        path: folder of an agent of a family; nothing is done for any other run.
    """
    family = family_of(path)
    if family is not None:
        compare_agents(RunDir.open(family))


def default_name(plan: Plan) -> str:
    """The name of a run that was given none: task, device, strategy and seed."""
    config = plan.config
    devices = {one.hardware.device.table_name: one for one in plan.every}
    device = next(iter(devices)) if len(devices) == 1 else f"{len(devices)}-devices"
    _, _, game = config.env.name.partition(":")
    return as_folder_name(game, device, config.strategy.name, f"s{config.seed}")


def free_name(runs: Path, stem: str) -> str:
    """``stem``, or ``stem-2``, ``stem-3``, ... whichever folder does not exist yet."""
    names = [stem, *(f"{stem}-{i}" for i in range(2, 10_000))]
    return next(name for name in names if not (Path(runs) / name).exists())


def _search_for_all(session: Session) -> None:
    plan, log = session.plan, session.log
    found = search_for_all(plan, session.resources, session.run, log, session.checkpoints)
    begin_agents(session, found)
    compare_agents(session.run)
    session.checkpoints.finish_stage("agents")


def _agents(session: Session) -> None:
    """Each agent to its report; one that is finished is left as it is."""
    finished: dict[str, Plan] = {}
    for number, (name, plan) in enumerate(session.plan.agents.items(), start=1):
        run = RunDir.open(agent_folder(session.run.path, name))
        if not is_finished(run):
            twin = share_training(run, plan, finished)
            same = f", the same network as {twin}, whose retraining it shares" if twin else ""
            session.log.progress.note(f"agent {number} of {len(session.plan.agents)}: {name}{same}")
            _work(run, plan, session.log.progress)
        compare_agents(session.run)  # also of one that was finished just before a process ended
        finished[name] = plan
    session.checkpoints.finish_stage("done")


def _search(session: Session) -> None:
    found = run_search(session.plan, session.resources, session.run, session.log, session.checkpoints)
    session.checkpoints.finish_stage(stage_after_search(session.plan, session.run, found), search=found)


def _repair(session: Session, searched: SearchOutput) -> Repair:
    return Repair(session.plan, session.run, searched, session.log.progress.note, meter_of(session.plan))


def _fit(session: Session) -> None:
    session.checkpoints.finish_stage("retrain", search=_repair(session, _searched(session)).fit())


def _retrain(session: Session) -> None:
    searched, plan, log, checkpoints = _searched(session), session.plan, session.log, session.checkpoints
    if not searched.retrained_steps and session.run.read(RunRecord).trained_as is not None:
        session.run.change_record(trained_as=None)  # what was to be shared was interrupted: it makes its own
    if searched.others:
        searched, trained = Bracket(plan, searched, session.resources, session.run, log, checkpoints).finish()
    else:
        trained = run_retrain(plan, searched, session.resources, log, checkpoints)
    checkpoints.finish_stage("finish", search=searched, retrain=trained)


def _finish(session: Session, *, may_follow: bool = True) -> None:
    trained = session.checkpoints.current.outputs.retrain
    if trained is None:
        raise RunFolderError(f"{session.run.path}: its checkpoint holds no final weights; start a new run")
    searched = _searched(session)
    repair = _repair(session, searched)
    following = run_finish(
        session.plan,
        searched,
        trained,
        session.resources,
        session.run,
        session.log.progress,
        session.clock,
        repair if repair.measures else None,
        may_follow=may_follow,
    )
    if following is None:
        session.checkpoints.finish_stage("done")
    else:
        session.checkpoints.begin_again("retrain", following)


def _finish_again(session: Session) -> None:
    _finish(session, may_follow=False)


def _searched(session: Session) -> SearchOutput:
    searched = session.checkpoints.current.outputs.search
    if searched is None:
        raise RunFolderError(f"{session.run.path}: its checkpoint holds no architecture; start a new run")
    write_taken(session.plan, session.run, searched, session.log.progress.note)
    return searched


STAGES = {"search": _search, "fit": _fit, "retrain": _retrain, "finish": _finish}
TRAINING = {name: STAGES[name] for name in ("search", "fit", "retrain")}  # without the finish
FOR_A_BOARD = {**STAGES, "finish": _finish_again}  # what the agent measures here puts no other in its place
FAMILY_STAGES = {"search": _search_for_all, "agents": _agents}


def work_on(session: Session, stages: Mapping[str, Callable[[Session], None]] = STAGES) -> None:
    """Do the stages that are left, in their order.

    Args:
        session: taken up where the run stands.
        stages: by name; the first one that is not among them ends the work.
    """
    try:
        while session.checkpoints.current.stage in stages:
            stages[session.checkpoints.current.stage](session)
    finally:
        session.log.close()


def _work(run: RunDir, plan: Plan, progress: Progress, again: str | None = None, cluster: Cluster = HERE) -> None:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    set_threads(plan.config.threads)
    with run.lock():
        record_places(run, plan)
        session = open_session(run, plan, progress, cluster)
        if again is not None:
            session.checkpoints.go_back_to(again)
            work_on(session, {again: _finish_again})
        else:
            work_on(session, FAMILY_STAGES if plan.agents else STAGES)
