"""Every kind of observation and action from search to a bundle, whose plain runner plays the environment itself as well.

``python -m pytest -m slow tests/pipeline/test_pipeline_own_tasks.py``: two minutes. Each task has a best return of 8; the agent's
return by this package and the runner's, which has numpy and onnxruntime alone and the environment's own observations, must be the
same within their intervals. A forbidden action, and one outside of its space, is an error of these environments.
"""

import importlib.util
import json

import numpy as np
import own_tasks
import pytest

from cosearch.api import load_agent
from cosearch.cli.app import main
from cosearch.statistics import mean_interval

IMAGES = {
    "stem_channels": 8,
    "stem_kernel": 3,
    "stem_stride": 1,
    "stage_channels": [8],
    "stage_repeats": [1],
    "stage_strides": [2],
}
VECTORS = {"stem_width": 16, "stage_widths": [16], "stage_repeats": [1]}
JOINED = {"image": IMAGES, "vector": VECTORS, "hidden": 32}
ON_POLICY = ("rl.minibatch=64", "rl.micro_batch=64", "rl.epochs=4", "rl.lr=0.003", "rl.gamma=0.1")
WORDS = (
    "threads=1",
    "env.num_envs=8",
    "rl.rollout_steps=32",
    "strategy.paths_per_rollout=2",
    "strategy.warmup_fraction=0.1",
    "budget.search_steps=2048",
    "budget.retrain_steps=8192",
    "budget.eval_episodes=64",
    "budget.measure_s=0.05",
    "objective.latency_ratio=2",
    "distill.teacher=none",
)
OFF_POLICY = ("rl.algorithm=dqn", "dqn.gamma=0.1", "dqn.learning_starts=256", "dqn.minibatch=64", "dqn.micro_batch=64")
TASKS = {  # name, of a function and what else there is of it: values of the space, least mean return, further words
    "dictionary": (JOINED, 7.0, ()),
    "masked": (VECTORS, 7.0, ()),
    "factors": (VECTORS, 7.0, ()),
    "asymmetric": (VECTORS, 6.0, ()),
    "grey": ({**IMAGES, "hidden": 16}, 7.0, ()),
    "channels_first": ({**IMAGES, "hidden": 16}, 7.0, ("env.layout=channels_first",)),
    "dictionary off policy": (JOINED, 7.0, OFF_POLICY),
    "masked off policy": (VECTORS, 7.0, OFF_POLICY),
}


def runner_of(folder):
    spec = importlib.util.spec_from_file_location("run_agent", folder / "run_agent.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def returns_of(agent, env, episodes):
    """Returns of whole episodes that the runner plays on an environment's own observations."""
    returns = []
    for seed in range(episodes):
        observation, info = env.reset(seed=10_000 + seed)
        returns.append(0.0)
        ended = False
        while not ended:
            if "action_mask" in info:
                observation = {"observations": observation, "action_mask": info["action_mask"]}
            if isinstance(observation, dict) and "noise" in observation:  # one of three, as the contract takes it
                observation = {**observation, "noise": np.eye(3, dtype=np.float32)[observation["noise"]]}
            if np.ndim(observation) == 2:
                observation = observation[..., None]
            action = agent(observation)
            observation, reward, terminated, truncated, info = env.step(action)
            returns[-1] += reward
            ended = terminated or truncated
    return returns


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_from_search_to_a_bundle_whose_plain_runner_earns_the_same(name, tmp_path, capsys):
    (space, least, further), task = TASKS[name], name.partition(" ")[0]
    further = further if OFF_POLICY[0] in further else (*ON_POLICY, *further)
    words = ["search", "--env", f"own_tasks:{task}", "--runs", str(tmp_path), "--run", "one", f"space.values={json.dumps(space)}"]
    assert main([*words, *WORDS, *further, "--quiet"]) == 0, capsys.readouterr().err
    folder = tmp_path / "one"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["score_mean"] >= least and summary["target_met"]
    module = runner_of(folder / "agent")
    agent = module.Agent(str(folder / "agent"))
    assert module.self_test(agent).startswith("ok: 64 observations")
    env = getattr(own_tasks, task)()
    mine, theirs = summary["score_ci95"], mean_interval(returns_of(agent, env, 64))
    assert mine[0] <= theirs[1] and theirs[0] <= mine[1], (mine, theirs)
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--episodes", "16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["score_mean"] >= least - 0.5
    player = load_agent(folder)
    again = mean_interval(returns_of(player, getattr(own_tasks, task)(), 64))
    assert mine[0] <= again[1] and again[0] <= mine[1], (mine, again)
