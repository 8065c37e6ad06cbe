"""The retraining stage: the derived network alone, with the teacher's labels, from the searched weights or from scratch."""

from __future__ import annotations

from cosearch.pipeline.checkpoint import RetrainOutput, SearchOutput
from cosearch.pipeline.derivation import contiguous
from cosearch.pipeline.session import Checkpointing, Resources, RunLog
from cosearch.pipeline.train import go_on, train
from cosearch.planning.budget import search_share
from cosearch.planning.plan import Plan
from cosearch.rl.subject import NetworkSubject
from cosearch.space.derive import derive
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
    inherited = config.budget.retrain_init == "inherit"
    if inherited:
        network.load_state_dict(searched.weights)
    steps = config.budget.retrain_steps
    done = 0
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
            saved = checkpoints.current.stage_state
            if saved is not None:
                go_on(training, saved, plan, log, "retrain")
                checkpoints.restore_streams()
            log.progress.stage("retrain", steps, training.step)
            train(training, log, checkpoints, stage="retrain", interval_s=config.budget.checkpoint_interval_s)
        finally:
            training.close()
        done = training.step
    return RetrainOutput(contiguous(as_deployed(network, config).state_dict()), done)
