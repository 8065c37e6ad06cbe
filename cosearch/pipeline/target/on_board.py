"""``cosearch deploy --until-under``: agents on a board, each deployed and measured there, until one is within its targets.

Where the run's agent is over, further architectures with random weights are measured on the board (seconds each) until one holds.
That one is retrained here from the shared weights, exported and deployed in its turn. The rounds are among those of the run
(``rounds.json``); only those on this board decide and count (``budget.repair_rounds``). Interrupted, the same command goes on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cosearch.deploy.deployment import DeployRequest, deploy
from cosearch.deploy.readings import Meter
from cosearch.pipeline.checkpoint import Checkpoint
from cosearch.pipeline.opening import WHERE_RECORDED, Places, opened
from cosearch.pipeline.run import FOR_A_BOARD, is_finished, work_on
from cosearch.pipeline.session import open_session
from cosearch.pipeline.target.repair import Repair, running_of
from cosearch.planning.plan import Plan
from cosearch.record.results.deployment import Deployment
from cosearch.record.results.summary import Summary
from cosearch.record.results.target_rounds import TargetRounds
from cosearch.record.rundir import RunDir
from cosearch.report.page import write_report
from cosearch.training.progress import Progress
from cosearch.training.threads import set_threads
from latency_tables.errors import RequestError, RunFolderError
from latency_tables.table import Table


def deploy_until_under(
    path: Path, request: DeployRequest, progress: Progress, places: Places = WHERE_RECORDED
) -> tuple[Deployment, TargetRounds]:
    """Deploy a run's agent, and further ones in its place, until one is within its targets on the device.

    Args:
        path: run folder with a bundle.
        request: where and how, see ``deploy``.
        progress: display.
        places: of files that were moved.

    Returns:
        The last deployment, and all rounds with their outcome.

    Raises:
        RequestError: the run allows no rounds, or goes through a tracker, which takes no networks that were not compiled before.
        RunFolderError: the run has no bundle, or a file of it is gone; besides these what ``deploy`` raises.
    """
    run = RunDir.open(path)
    plan = opened(run, places, progress, "deploy")
    if plan.config.budget.repair_rounds == 0 or not isinstance(plan.hardware, Table):
        raise RequestError(f"{path} was made with budget.repair_rounds=0, or for an accelerator: there are no rounds to make")
    if request.location.tracker is not None:
        raise RequestError("--until-under measures networks over SSH or here: use --host, or leave it out")
    set_threads(plan.config.threads)
    while True:
        if not is_finished(run):  # a round was interrupted
            _work(run, plan, progress)
        found = deploy(path, request, progress.note)
        rounds, follows = _after(run, plan, found, request, progress)
        if not follows:
            return found, rounds


def _after(run: RunDir, plan: Plan, found: Deployment, request: DeployRequest, progress: Progress) -> tuple[TargetRounds, bool]:
    """Keep what was deployed as a round; where it is over, take the next architecture for the run's own."""
    saved = run.load_checkpoint()
    outputs = None if saved is None else Checkpoint.from_dict(saved).outputs
    if outputs is None or outputs.search is None or outputs.retrain is None:
        raise RunFolderError(f"{run.path} holds no trained agent: `cosearch resume {run.path}` goes on with it")
    period = {} if request.period_s is None else {"period_s": request.period_s}
    meter = Meter(running_of(plan), device=request.device, location=request.location, seconds=request.seconds / 3, **period)
    with run.lock():
        repair = Repair(plan, run, outputs.search, progress.note, meter)
        made = repair.deployed(found)
        following = None if made.holds else repair.another(outputs.retrain.steps)
        if following is not None:
            session = open_session(run, plan, progress)
            try:
                session.checkpoints.begin_again("retrain", following)
            finally:
                session.log.close()
            return repair.tries.rounds, True
        rounds = repair.close()
        deployed = None if rounds.deployed is None else rounds.deployed + 1
        summary = run.read(Summary)
        run.write(replace(summary, target_rounds=rounds.rounds, rounds_outcome=rounds.outcome, deployed_round=deployed))
        write_report(run.path)
    return rounds, False


def _work(run: RunDir, plan: Plan, progress: Progress) -> None:
    with run.lock():
        work_on(open_session(run, plan, progress), FOR_A_BOARD)
