"""Playing an exported agent: held-out or training levels, sampled or greedy actions."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from cosearch.pipeline.builtins import load_builtins
from cosearch.pipeline.onnx_agent import OnnxAgent
from cosearch.pipeline.run import config_of
from cosearch.rl.envs import EnvOptions, make_env
from cosearch.rl.evaluate import evaluate
from cosearch.rundir import RunDir
from cosearch.seeding import Streams
from latency_tables.errors import ConfigError, RunFolderError


def evaluate_run(path: Path, *, episodes: int, levels: str, greedy: bool, seed: int) -> dict[str, Any]:
    """Score of a run's exported agent.

    Args:
        path: run folder with ``agent.onnx``.
        episodes: at least this many.
        levels: ``test`` (held out) or ``train``.
        greedy: most likely action instead of sampling.
        seed: of levels and actions.

    Raises:
        RunFolderError: the run has exported no agent yet.
        ConfigError: ``levels`` is neither word.
    """
    if levels not in ("test", "train"):
        raise ConfigError(f"levels must be test or train, got {levels!r}")
    run = RunDir.open(path)
    agent = run.path / "agent.onnx"
    if not agent.is_file():
        raise RunFolderError(f"{path} has no agent.onnx yet: `cosearch resume {path}` goes on to the export")
    load_builtins()
    config, streams = config_of(run), Streams(seed)
    env = make_env(config.env.name, EnvOptions(min(64, episodes), streams.derive("eval"), train_levels=config.env.train_levels,
                                               test=levels == "test"))
    try:
        score = evaluate(OnnxAgent(agent), env, episodes, streams.torch("eval"), greedy=greedy)
    finally:
        env.close()
    return {"score_mean": score.mean, "score_ci95": list(score.ci95), "episodes": len(score.returns), "levels": levels,
            "greedy": greedy, "seed": seed}
