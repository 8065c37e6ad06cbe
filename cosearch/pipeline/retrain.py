"""The retraining stage: the derived network alone, with the teacher's labels, from the searched weights or from scratch."""

from __future__ import annotations

from cosearch.pipeline.session import Session
from cosearch.rl.subject import NetworkSubject
from cosearch.space.derive import derive
from cosearch.training.algorithms import as_deployed, as_trained, learning_rate, make_training


def run_retrain(session: Session) -> None:
    """Retrain to the end of the budget, or go on where the checkpoint stands; hands on the final weights."""
    plan, config, streams = session.plan, session.plan.config, session.streams
    architecture = plan.space.architecture(session.handed_on["choices"])
    network = as_trained(derive(architecture, streams.torch("weights")), config, streams)
    inherited = config.budget.retrain_init == "inherit"
    if inherited:
        network.load_state_dict(session.handed_on["searched_weights"])
    steps = config.budget.retrain_steps
    done = 0
    if steps:
        subject = NetworkSubject(network, lr=learning_rate(config), bf16=config.rl.bf16, device=session.device)
        training = make_training(
            config,
            subject,
            streams,
            session.teacher,
            inherited=inherited,
            total_steps=steps,
            distill_to=config.distill.end_fraction,
            env_index=1,
        )
        try:
            saved = session.checkpoint["stage_state"]
            if saved is not None:
                training.restore(saved)
                session.streams.load_state_dict(session.checkpoint["streams"])
            session.progress.stage("retrain", steps, training.step)
            session.train(training, stage="retrain")
        finally:
            training.close()
        done = training.step
    weights = {key: value.contiguous() for key, value in as_deployed(network, config).state_dict().items()}
    session.finish_stage("finish", weights=weights, retrain_steps=done)
