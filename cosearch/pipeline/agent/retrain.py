"""The retraining stage: the derived network alone, with the teacher's labels, from the searched weights or from scratch.

An architecture that takes the place of one that measured over its target is retrained briefly, from the shared weights.
"""

from __future__ import annotations

from cosearch.pipeline.agent.fine_tuning import FineTuning
from cosearch.pipeline.checkpoint import RetrainOutput, SearchOutput
from cosearch.pipeline.search.derivation import contiguous
from cosearch.pipeline.session import Checkpointing, Resources, RunLog
from cosearch.pipeline.train import go_on, train
from cosearch.planning.budget import retraining_steps, search_share
from cosearch.planning.plan import Plan
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.space.derivation.derive import derive
from cosearch.training.algorithms import as_deployed, as_trained, learning_rate, make_training


def run_retrain(
    plan: Plan, searched: SearchOutput, resources: Resources, log: RunLog, checkpoints: Checkpointing
) -> RetrainOutput:
    """Retrain to the end of the budget, or go on where the checkpoint stands.

    Args:
        plan: the resolved run.
        searched: the architecture and its weights.
        resources, log, checkpoints: of the session.

    Returns:
        The final weights.
    """
    config, streams = plan.config, resources.streams
    architecture = plan.space.architecture(searched.choices)
    network = as_trained(derive(architecture, streams.torch("weights")), config, streams)
    inherited = config.budget.retrain_init == "inherit" or searched.brief
    if inherited:
        network.load_state_dict(searched.weights)
    steps, before = retraining_steps(config, brief=searched.brief), searched.retrained_steps
    done = rounded = 0
    if steps:
        subject = NetworkSubject(network, lr=learning_rate(config), bf16=config.rl.bf16, device=resources.device)
        training = make_training(
            config,
            subject,
            streams,
            resources.teacher,
            inherited=inherited,
            total_steps=steps,
            span=(search_share(config), 1.0),
            env_index=1,
        )
        try:
            fine = FineTuning(plan, network, streams, steps)
            saved = checkpoints.current.stage_state
            if saved is not None:
                fine.restore(saved)
                go_on(training, saved, plan, log, "retrain", before)
                checkpoints.restore_streams()
            log.progress.stage("retrain", before + steps, before + training.step)
            interval_s = config.budget.checkpoint_interval_s
            train(training, log, checkpoints, stage="retrain", interval_s=interval_s, until=fine.begins_at, offset=before)
            if not training.finished:
                fine.begin(training.step, log.progress)
                state = lambda: {**training.state(), **fine.state()}  # noqa: E731
                train(training, log, checkpoints, stage="retrain", interval_s=interval_s, state=state, offset=before)
        finally:
            training.close()
        done, rounded = training.step, fine.end(training.step)
    return RetrainOutput(contiguous(as_deployed(network, config).state_dict()), before + done, rounded)
