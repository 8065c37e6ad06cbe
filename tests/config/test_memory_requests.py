"""What a space with a memory is refused with: one message each, before anything is made."""

import pytest
import torch

from cosearch.config.run import resolve
from cosearch.planning.request import resolve_request
from cosearch.rl.teacher import save_teacher
from cosearch.space.network import AgentNetwork
from latency_tables.errors import ConfigError
from latency_tables.opspec import OpSpec

TASK = ["env.name=gym:cosearch.testing.tmaze:TMaze-v0", "distill.teacher=none", "device=jetson", "env.num_envs=16"]
MEMORY = 'space.values={"memory":["none","gru_w16"]}'


@pytest.mark.parametrize(
    "words, reason",
    [
        (["rl.algorithm=dqn"], "rl.algorithm=dqn learns from single transitions, where a memory has no past"),
        (["device=x86-server/onnxruntime-int8-1t"], "the table of x86-server/onnxruntime-int8-1t is of onnxruntime-int8-1t"),
        (["device=x86-server/tvm-float32-1t"], "exported for ONNX Runtime in float32"),
        (["strategy.store=runs"], "strategy.store compares tasks by single states"),
        (["strategy.name=one-shot", 'strategy.values={"scores":"frames"}'], "scores=frames compares policies on single frames"),
    ],
)
def test_what_has_no_past_is_refused_by_name(words, reason):
    with pytest.raises(ConfigError, match=reason) as found:
        resolve_request(resolve(overrides=[*TASK, MEMORY, *words]))
    assert "\n" not in str(found.value) and "space.values names blocks with a memory" in str(found.value)


def test_a_teacher_with_a_memory_does_not_label_single_transitions(tmp_path):
    ops = [OpSpec("linear", 2, 1, 1, 8, activation="tanh"), OpSpec("gru", 8, 1, 1, 8, hidden=4, activation="none")]
    network = AgentNetwork([*ops, OpSpec("head", 8, 1, 1, 4, activation="none")], torch.Generator().manual_seed(0))
    made = {"description": "", "gamma": 0.9, "reward_std": 1.0, "provenance": {}}
    save_teacher(tmp_path / "gru.json", network, env=TASK[0].removeprefix("env.name="), **made)
    words = [TASK[0], *TASK[2:], f"distill.teacher={tmp_path / 'gru.json'}"]
    with pytest.raises(ConfigError, match=r"teacher 'gru' has a memory, and rl.algorithm=dqn learns from single transitions"):
        resolve_request(resolve(overrides=[*words, "rl.algorithm=dqn"]))
    assert resolve_request(resolve(overrides=words)).teacher.name == "gru"


def test_what_has_one_is_not_and_a_space_without_a_memory_never_is():
    for algorithm in ("ppo", "a2c"):
        assert resolve_request(resolve(overrides=[*TASK, MEMORY, f"rl.algorithm={algorithm}"])).space.remembers
    for words in (["rl.algorithm=dqn"], ["device=x86-server/tvm-float32-1t"]):
        assert not resolve_request(resolve(overrides=[*TASK, *words])).space.remembers
