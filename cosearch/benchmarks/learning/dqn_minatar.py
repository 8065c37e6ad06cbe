"""The DQN alone on MinAtar: the network of the MinAtar paper's DQN, a few hundred thousand steps, several seeds.

``python -m cosearch.benchmarks.learning.dqn_minatar --games breakout --seeds 0 1 2 --steps 300000``: each finished run is a row
of ``dqn_minatar.json`` beside this file: score of the deployed (folded) network with its interval over episodes, training score,
CPU seconds of the training. Further words are configuration values, e.g. ``dqn.n_step=1``. The network is one convolution of 16
3 x 3 filters and 128 hidden units (Young & Tian 2019, arXiv 1903.03176, whose DQN learned for 5,000,000 steps).
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cosearch.config.run import resolve
from cosearch.planning.builtins import load_builtins
from cosearch.planning.options.unused import check_options
from cosearch.planning.request import resolve_request
from cosearch.record.durable import write_bytes_atomic
from cosearch.rl.evaluate import evaluate
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.rl.task import make_task
from cosearch.seeding import Streams
from cosearch.space.network import AgentNetwork
from cosearch.statistics import mean_text
from cosearch.training.algorithms import as_deployed, as_policy, as_trained, learning_rate, make_training
from cosearch.training.off_policy import OffPolicy
from cosearch.training.threads import set_threads
from latency_tables.opspec import OpSpec

OUT = Path(__file__).with_suffix(".json")
EPISODES = 256
_log = logging.getLogger(__name__)


def network_of(frame_shape: tuple[int, int, int], num_actions: int) -> list[OpSpec]:
    """Blocks of the MinAtar paper's DQN, with a value beside the actions."""
    h, w, c = frame_shape
    head = OpSpec("head", 16, h - 2, w - 2, num_actions + 1, hidden=128, activation="none")
    return [OpSpec("stem", c, h, w, 16, kernel=3), head]


def one_run(game: str, seed: int, steps: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Train one agent and score it.

    Args:
        game: of MinAtar.
        seed: the one seed.
        steps: environment steps.
        overrides: configuration values.

    Returns:
        The row of the result.
    """
    config = resolve(
        overrides=[
            "rl.algorithm=dqn",
            f"env.name=minatar:{game}",
            f"seed={seed}",
            "distill.teacher=none",
            "threads=1",
            *overrides,
        ]
    )
    set_threads(config.threads)
    streams = Streams(config.seed)
    probe = make_task(config.env, 1, 0)
    check_options(resolve_request(config))
    height, width, channels = probe.frame_shape
    ops = network_of((height, width, channels), probe.num_actions)
    network = as_trained(AgentNetwork(ops, streams.torch("weights")), config, streams)
    subject = NetworkSubject(network, lr=learning_rate(config), bf16=config.rl.bf16, device=torch.device("cpu"))
    training = make_training(config, subject, streams, None, total_steps=steps)
    begun, curve = time.process_time(), []
    while not training.finished:
        line = training.advance()
        curve.append([line["step"], line["score_train"]])
    cpu_s = time.process_time() - begun
    rounds = training.rounds
    assert isinstance(rounds, OffPolicy)  # that is what DQN makes
    training.close()
    env = make_task(config.env, 64, streams.derive("eval"), test=True)
    policy = as_policy(as_deployed(network, config).eval(), config)
    score = evaluate(policy, env, EPISODES, torch.Generator().manual_seed(streams.derive("eval", 1)))
    env.close()
    return {
        "game": game,
        "seed": seed,
        "steps": training.step,
        "overrides": list(overrides),
        "score_mean": score.mean,
        "score_ci95": score.ci95,
        "episodes": len(score.returns),
        "score_train": training.score,
        "cpu_s": round(cpu_s, 1),
        "steps_per_cpu_s": round(training.step / cpu_s),
        "updates": rounds.learner.updates,
        "curve": curve[::8],
    }


def main() -> None:
    """Run what the command line asks for; rows of the same game, seed, steps and options are replaced."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", default=["breakout"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    load_builtins()
    for game in asked.games:
        for seed in asked.seeds:
            row = one_run(game, seed, asked.steps, asked.overrides)
            rows = json.loads(asked.out.read_text()) if asked.out.exists() else []
            key = [row[name] for name in ("game", "seed", "steps", "overrides")]
            rows = [old for old in rows if [old[name] for name in ("game", "seed", "steps", "overrides")] != key] + [row]
            write_bytes_atomic(asked.out, (json.dumps(rows, indent=1) + "\n").encode())
            said = mean_text(row["score_mean"], row["score_ci95"], row["episodes"])
            _log.info("%s seed %d: %s, %.0f CPU seconds", game, seed, said, row["cpu_s"])


if __name__ == "__main__":
    main()
