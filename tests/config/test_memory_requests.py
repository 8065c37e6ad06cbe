"""What a space with a memory is refused with: one message each, before anything is made."""

import pytest

from cosearch.config.run import resolve
from cosearch.planning.request import resolve_request
from latency_tables.errors import ConfigError

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


def test_what_has_one_is_not_and_a_space_without_a_memory_never_is():
    for algorithm in ("ppo", "a2c"):
        assert resolve_request(resolve(overrides=[*TASK, MEMORY, f"rl.algorithm={algorithm}"])).space.remembers
    for words in (["rl.algorithm=dqn"], ["device=x86-server/tvm-float32-1t"]):
        assert not resolve_request(resolve(overrides=[*TASK, *words])).space.remembers
