"""Blocks that keep numbers between observations, against torch's own cells: steps, segments, ends of episodes, gradients."""

import pytest
import torch
from torch import nn

from cosearch.planning.builtins import load_builtins
from cosearch.space.blocks.memory import Remembering
from cosearch.space.derivation.derive import derive
from cosearch.space.kinds.mlp import MlpConfig, mlp_space
from cosearch.space.network import AgentNetwork
from cosearch.space.operations import OPERATIONS, build_block
from cosearch.space.space import SPACES
from cosearch.space.supernet import Path, SuperNet
from cosearch.testing.conformance import check_block, check_operation, check_space, seeded
from latency_tables.errors import ConfigError, ShapeError
from latency_tables.opspec import OpSpec

load_builtins()
NAMES = ("gru_w16", "lstm_w16", "stack_k4")
GRU, LSTM, STACK = (OPERATIONS.get(name).make_spec(5, 1, 1, 5, 1) for name in NAMES)


@pytest.mark.parametrize("name", [*NAMES, "gru_w128", "lstm_w32", "stack_k2"])
def test_its_operations_conform(name):
    check_operation(OPERATIONS.get(name))


@pytest.mark.parametrize("spec", [GRU, LSTM])
def test_one_step_is_that_of_torch(spec):
    block = build_block(spec, seeded(0))
    cell = nn.GRUCell(5, 16) if spec is GRU else nn.LSTMCell(5, 16)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in block.cell.state_dict().items()})
    x, memory = torch.randn(7, 5, generator=seeded(1)), torch.randn(7, spec.memory, generator=seeded(2))
    found, after = block(x, memory)
    if spec is GRU:
        state = wanted = cell(x, memory)
    else:
        state, inner = cell(x, (memory[:, :16], memory[:, 16:]))
        wanted = torch.cat([state, inner], 1)
    torch.testing.assert_close(after, wanted)
    torch.testing.assert_close(found, x + state @ block.outputs.weight.T + block.outputs.bias)


def test_a_stack_reads_the_last_steps_and_zeros_before_an_episode():
    block, x = build_block(STACK, seeded(0)), torch.randn(6, 5, generator=seeded(1))
    begins = torch.tensor([[False], [False], [True], [False], [False], [False]])
    found, after = block(x, torch.zeros(1, 15), begins)
    for step in range(6):
        first = 2 if step >= 2 else 0
        past = [x[i] if i >= first else torch.zeros(5) for i in range(step, step - 4, -1)]
        wanted = x[step] + torch.tanh(torch.cat(past) @ block.outputs.weight.T + block.outputs.bias)
        torch.testing.assert_close(found[step], wanted)
    torch.testing.assert_close(after[0], torch.cat([x[5], x[4], x[3]]))


def segment(spec, steps=9, envs=4):
    x, memory = torch.randn(steps, envs, 5, generator=seeded(3)), torch.randn(envs, spec.memory, generator=seeded(4))
    begins = torch.rand(steps, envs, generator=seeded(5)) < 0.25
    assert begins[1:].any() and not begins[1:].all(1).any()
    return x, memory, begins


@pytest.mark.parametrize("spec", [GRU, LSTM, STACK])
def test_a_segment_is_its_steps_one_by_one(spec):
    block = build_block(spec, seeded(0))
    x, memory, begins = segment(spec)
    found, after = block(x.flatten(0, 1), memory, begins)
    for step in range(len(x)):
        memory = memory * ~begins[step][:, None]
        one, memory = block(x[step], memory)
        torch.testing.assert_close(found.view(x.shape)[step], one)
    torch.testing.assert_close(after, memory)


@pytest.mark.parametrize("spec", [GRU, LSTM, STACK])
def test_neither_value_nor_gradient_goes_through_the_end_of_an_episode(spec):
    block = build_block(spec, seeded(0))
    x, memory, _ = segment(spec)
    begins = torch.zeros(len(x), 4, dtype=torch.bool)
    begins[5, 1] = True
    x.requires_grad_(), memory.requires_grad_()
    found, _ = block(x.flatten(0, 1), memory, begins)
    found.view(x.shape)[5:, 1].sum().backward()
    assert not x.grad[:5].any() and not memory.grad.any() and x.grad[5:, 1].any(1).all()
    with torch.no_grad():
        memory[1] = float("nan")  # what an ended episode left cannot reach the next one, whatever it is
    assert block(x.flatten(0, 1), memory, begins)[0].view(x.shape)[5:, 1].isfinite().all()


def agent(*kinds):
    layers = [OpSpec(kind, 6, 1, 1, 6, **fields) for kind, fields in kinds]
    first, last = OpSpec("linear", 3, 1, 1, 6, activation="tanh"), OpSpec("head", 6, 1, 1, 4, activation="none")
    return AgentNetwork([first, *layers, last], seeded(0))


def test_a_network_carries_the_memories_of_all_its_blocks_in_one_vector():
    network = agent(("gru", {"hidden": 4, "activation": "none"}), ("lstm", {"hidden": 3, "activation": "none"}))
    assert network.memory_size == 4 + 6
    frames, memory = torch.randn(2, 3, generator=seeded(1)), torch.randn(2, 10, generator=seeded(2))
    outputs, value, after = network.unroll(frames, memory)
    x = torch.tanh(network.blocks[0].linear(frames))
    x, first = network.blocks[1](x, memory[:, :4])
    x, second = network.blocks[2](x, memory[:, 4:])
    head = network.blocks[3](x)
    assert torch.equal(outputs, head[:, :-1]) and torch.equal(value, head[:, -1])
    assert torch.equal(after, torch.cat([first, second], 1))


def test_blocks_that_cannot_be_are_refused():
    for fields in ({"out_channels": 6}, {"hidden": 0}, {"groups": 2}, {"activation": "tanh"}, {"kernel": 3, "padding": 1}):
        with pytest.raises(ShapeError, match="gru"):
            OpSpec(
                **{"kind": "gru", "in_channels": 5, "in_height": 1, "in_width": 1, "out_channels": 5, "hidden": 4}
                | {"activation": "none", **fields}
            )
    with pytest.raises(ShapeError, match="at least 2 steps"):
        OpSpec("stack", 5, 1, 1, 5, groups=1, activation="tanh")
    check_block(OpSpec("stack", 5, 1, 1, 5, groups=3, activation="none"))
    assert isinstance(build_block(STACK, seeded(0)), Remembering) and STACK.memory == 15 and LSTM.memory == 32


@pytest.mark.parametrize("memory", [["none", "gru_w16", "lstm_w16", "stack_k2"], ["gru_w16"]])
def test_the_mlp_space_with_a_memory_conforms(memory):
    space = check_space(
        SPACES.get("mlp"), {"stem_width": 8, "stage_widths": [8], "stage_repeats": [1], "memory": memory}, (5,), 3
    )
    assert space.size == 9 * len(memory) and sum(op.memory > 0 for op in space.all_ops()) == sum(n != "none" for n in memory)


def test_a_space_without_a_memory_describes_itself_as_before():
    assert "memory" not in mlp_space(MlpConfig(), (5,), 3).config
    assert mlp_space(MlpConfig(), (5,), 3) == mlp_space(MlpConfig(memory=("none",)), (5,), 3)
    for names, reason in (
        (("mlp_w32_relu",), "remembers nothing, expected none or one of gru_w128, gru_w16"),
        ((), "at least one"),
    ):
        with pytest.raises(ConfigError, match=reason):
            mlp_space(MlpConfig(memory=names), (5,), 3)


def test_candidates_that_a_path_does_not_take_remember_what_they_would_have_read():
    space = mlp_space(
        MlpConfig(stem_width=8, stage_widths=(8,), stage_repeats=(1,), memory=("gru_w16", "none", "lstm_w16")), (5,), 3
    )
    supernet, none, gru, lstm = SuperNet(space, seeded(0)), *(Path(((0,), (m,))) for m in (1, 0, 2))
    frames, begins = torch.randn(2, 4, 5, generator=seeded(1)), torch.zeros(1, 4, dtype=torch.bool)
    with torch.no_grad():
        memory = supernet.unroll(frames[0], torch.zeros(4, 16 + 32), begins, none)[2]
        after_gru, after_lstm = (supernet.unroll(frames[0], torch.zeros(4, 48), begins, path)[2] for path in (gru, lstm))
        assert (
            memory[:, :16].any() and memory[:, 16:].any() and torch.equal(memory, after_gru) and torch.equal(memory, after_lstm)
        )
        network = derive(space.architecture([0, 2]), seeded(9), supernet)
        wanted = network.unroll(frames[1], network.unroll(frames[0], torch.zeros(4, 32))[2])
        found = supernet.unroll(frames[1], memory, begins, lstm)
        assert torch.equal(found[0], wanted[0]) and torch.equal(found[2][:, 16:], wanted[2])
    with pytest.raises(ShapeError, match="unroll"):
        network(frames[0])


@pytest.mark.parametrize("spec", [GRU, LSTM])
def test_a_new_cell_keeps_its_state(spec):
    cell, gates = build_block(spec, seeded(0)).cell, 3 if spec is GRU else 4
    assert cell.bias_hh_l0.view(gates, 16).tolist() == [[float(gate == 1)] * 16 for gate in range(gates)]
    assert not cell.bias_ih_l0.any()
    for weight in (cell.weight_hh_l0, cell.weight_ih_l0):
        for gate in weight.split(16):
            torch.testing.assert_close(gate.T @ gate, torch.eye(gate.shape[1]), atol=1e-5, rtol=0)  # orthogonal columns


def test_an_early_cue_is_learned_from_late_labels():
    """Walks of nine steps, the cue in the first and its label in the last: who forgets cannot be below log 2 / 9 nats a step.

    Gates of half the gain, or a damped output, stay there for 500 updates and more.
    """
    space = mlp_space(MlpConfig(stem_width=32, stage_widths=(32,), stage_repeats=(1,), memory=("lstm_w32",)), (2,), 3)
    network = derive(space.architecture([0]), seeded(0))
    cue = torch.tensor([-3.0, 3.0]).repeat(4)
    x, labels = torch.zeros(9, 8, 2), torch.zeros(9, 8, dtype=torch.int64)
    x[0, :, 0], x[8, :, 1], labels[8] = cue, 3.0, torch.where(cue > 0, 2, 1)
    optimiser, begins = torch.optim.Adam(network.parameters(), 2e-3), torch.zeros(9, 8, dtype=torch.bool)
    for _ in range(220):
        optimiser.zero_grad()
        outputs, _, _ = network.unroll(x.flatten(0, 1), torch.zeros(8, network.memory_size), begins)
        loss = nn.functional.cross_entropy(outputs, labels.flatten())
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.5 * 0.6931 / 9
