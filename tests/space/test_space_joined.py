"""Observations of several parts: packed and taken apart without loss, an encoder each, joined before the head; costs add up."""

import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosearch.cost.table_cost import TableCost
from cosearch.deploy.export import check_parity, export_agent, to_onnx
from cosearch.deploy.onnx_agent import OnnxAgent
from cosearch.planning.builtins import load_builtins
from cosearch.space.derivation.derive import derive
from cosearch.space.ends import split
from cosearch.space.network import AgentNetwork, reference_agents
from cosearch.space.parts import Part, encoded, frame_shape_of, pack, parts_from, unpack
from cosearch.space.space import SPACES
from cosearch.space.supernet import Path, SuperNet
from cosearch.testing.conformance import check_space, example_frames, seeded
from latency_tables.board.runners import OnnxRunner
from latency_tables.devices import find_table
from latency_tables.errors import ConfigError, ParityError, ShapeError
from latency_tables.measuring.plan import make_plan
from latency_tables.onnx_models.blocks import build_block_model, build_network_model
from latency_tables.opspec import OpSpec
from latency_tables.worklists import make_worklist

load_builtins()
PARTS = (
    Part("near", "image", (9, 8, 3)),
    Part("state", "vector", (5,)),
    Part("far", "image", (8, 8, 1)),
    Part("goal", "vector", (2,)),
    Part("action_mask", "mask", (4,)),
)
IMAGE = {
    "stem_channels": 4,
    "stem_kernel": 3,
    "stem_stride": 2,
    "stage_channels": [8],
    "stage_repeats": [2],
    "stage_strides": [2],
}
VALUES = {"image": IMAGE, "vector": {"stem_width": 8, "stage_widths": [8], "stage_repeats": [1]}, "hidden": 16}


def joined(values=VALUES, parts=PARTS):
    return SPACES.get("joined").build(values, frame_shape_of(parts), 4, "categorical", parts)


SPACE = joined()


# --- frames of parts


@given(st.integers(0, 4), st.permutations(PARTS), st.integers(1, 5))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_packing_loses_nothing_in_any_order(seed, parts, count):
    stream = np.random.default_rng(seed)
    values = {p.name: np.frombuffer(stream.bytes(count * p.bytes), p.dtype).reshape(count, *p.shape) for p in parts}
    frames = pack(parts, values)
    assert frames.shape == (count, *frame_shape_of(parts)) and frames.dtype == np.uint8
    for found in (unpack(parts, frames), {name: t.numpy() for name, t in split(parts, torch.from_numpy(frames)).items()}):
        assert all(found[p.name].tobytes() == values[p.name].tobytes() and found[p.name].dtype == p.dtype for p in parts)
    alone = split(parts, torch.from_numpy(frames)[count - 1 : count])  # a row that begins at an odd byte
    assert all(alone[p.name].numpy().tobytes() == values[p.name][-1:].tobytes() for p in parts)


def test_parts_survive_json_and_wrong_ones_do_not():
    parts = (*PARTS[:4], Part("floats", "image", (4, 5, 3), "channels_first", -1.0, 2.0))
    assert parts_from(json.loads(json.dumps([part.to_dict() for part in parts]))) == parts
    for wrong in (
        "x",
        {"name": "a"},
        {"name": "a", "kind": "image", "shape": [2]},
        {"name": "a", "kind": "vector", "shape": [0]},
    ):
        with pytest.raises(ShapeError):
            parts_from([wrong])
    with pytest.raises(ShapeError, match=r"part 'state' of an observation has the shape \(5,\), got nothing"):
        pack(PARTS, {"near": np.zeros((9, 8, 3), np.uint8)})


def test_an_image_of_floats_becomes_bytes_and_back():
    part = Part("floats", "image", (4, 5, 3), "channels_first", -1.0, 2.0)
    steps = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3)).astype(np.uint8)
    given_values = part.given(steps)
    assert (
        given_values.shape == (6, 3, 4, 5)
        and given_values.dtype == np.float32
        and np.array_equal(part.taken(given_values), steps)
    )
    assert part.taken(np.full((3, 4, 5), 0.5, np.float32)).max() == 128 and part.taken(np.full((3, 4, 5), 9.0)).min() == 255


# --- the space


@pytest.mark.parametrize("policy", ["categorical", "gaussian"])
def test_the_space_keeps_the_contract_of_spaces(policy):
    check_space(
        SPACES.get("joined"), VALUES, frame_shape_of(PARTS), 4, 3, policy, PARTS if policy == "categorical" else PARTS[:4]
    )


def test_each_encoder_is_searched_and_the_vectors_share_one():
    assert [point.name for point in SPACE.points] == [
        "near.stage1.cell1",
        "near.stage1.cell2",
        "far.stage1.cell1",
        "far.stage1.cell2",
        "vectors.stage1.layer1",
    ]
    assert [[part.name for part in group] for group in encoded(PARTS)] == [["near"], ["far"], ["state", "goal"]]
    assert SPACE.size == 9**5


def test_a_fixed_memory_of_the_vectors_is_in_every_network():
    fixed = joined({**VALUES, "vector": {**VALUES["vector"], "memory": ["gru_w16"]}})
    assert fixed.remembers and fixed.points == SPACE.points
    for seed in range(5):
        choices = SPACE.sample(seeded(seed)).choices
        without, remembering = SPACE.architecture(choices), fixed.architecture(choices)
        added = list(remembering.ops())
        for op in without.ops():
            added.remove(op)
        assert [(op.kind, op.in_channels, op.hidden) for op in added] == [("gru", 8, 16)]
        kinds = [op.kind for op in remembering.ops()]
        gru = kinds.index("gru")
        assert kinds[gru - 1 :] in (["linear", "gru", "join", "head"], ["mlp", "gru", "join", "head"])
        assert remembering.wiring()[gru] == (gru - 1,) and gru in remembering.wiring()[gru + 1]
    chosen = joined({**VALUES, "vector": {**VALUES["vector"], "memory": ["none", "gru_w16"]}})
    assert chosen.architecture((*choices, 1)).network() == fixed.architecture(choices).network()


@pytest.mark.parametrize("encoder", ["image", "vector"])
def test_an_encoder_has_no_head_whose_hidden_layer_could_be_set(encoder):
    with pytest.raises(ConfigError, match=rf"space\.values\.{encoder}\.hidden.*space\.values\.hidden"):
        joined({**VALUES, encoder: {**VALUES[encoder], "hidden": 16}})


def test_the_cost_is_the_sum_over_the_encoders_the_join_and_the_head():
    table = find_table("jetson")
    architecture = SPACE.sample(seeded(0))
    near, far, vectors = (
        SPACES.get(kind).build(values, shape, 4, "categorical")
        for kind, values, shape in (
            ("chain", IMAGE, (9, 8, 3)),
            ("chain", IMAGE, (8, 8, 1)),
            ("mlp", VALUES["vector"], (7,)),
        )
    )
    alone = [
        near.architecture(architecture.choices[:2]),
        far.architecture(architecture.choices[2:4]),
        vectors.architecture(architecture.choices[4:]),
    ]
    blocks = [op for each in alone for op in each.ops()[:-1]]
    (join, head) = architecture.ops()[-2:]
    assert architecture.ops() == [*blocks, join, head] and join.kind == "join" and join.in_channels == 2 * 8 * 2 * 2 + 8 + 8 * 2
    wanted = table.overhead_s + table.scale * sum(table.latency_s(op) for op in (*blocks, join, head))
    cost = TableCost(SPACE, table)
    assert cost.exact(architecture) == pytest.approx(wanted, rel=1e-12)
    assert float(cost.expected(architecture.one_hot())) == pytest.approx(wanted, rel=1e-12)


def test_the_network_is_its_encoders_joined_by_hand():
    supernet, frames = SuperNet(SPACE, seeded(0)), example_frames(SPACE, 7)
    supernet.ends.see(frames)
    architecture = SPACE.sample(seeded(2))
    network = derive(architecture, seeded(1), supernet)
    values = split(PARTS, frames)
    vectors = torch.cat([values["state"], values["goal"]], 1)
    normal = (vectors - vectors.mean(0)) / vectors.std(0, unbiased=False)
    features, blocks, wiring = [], list(network.blocks), network.wiring
    begins = [i for i, inputs in enumerate(wiring) if not inputs]
    with torch.no_grad():
        for begin, end, read in zip(begins, [*begins[1:], len(blocks) - 2], (values["near"], values["far"], normal)):
            x = read
            for block in blocks[begin:end]:
                x = block(x)
            features.append(x.flatten(1))
        outputs = blocks[-1](torch.cat(features, 1))
        mine, value = network(frames)
        theirs, _ = supernet(frames, Path(tuple((c,) for c in architecture.choices)))
    allowed = values["action_mask"] > 0
    torch.testing.assert_close(mine[allowed], outputs[:, :-1][allowed], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(value, outputs[:, -1], rtol=1e-4, atol=1e-5)
    assert torch.equal(mine, theirs) and (mine[~allowed] == -1e8).all()


def test_the_file_has_an_input_for_each_part_and_gives_the_same(tmp_path):
    network, frames = derive(SPACE.sample(seeded(3)), seeded(1)), example_frames(SPACE, 40)
    network.ends.see(frames)
    exported = export_agent(network, tmp_path, frames.numpy())
    assert [(entry.name, entry.dtype, entry.shape[1:]) for entry in exported.inputs] == [
        (p.name, p.dtype, p.shape) for p in PARTS
    ]
    agent = OnnxAgent(tmp_path / "agent.onnx", threads=1)
    for batch in (1, 3, 40):
        mine, value = agent(frames[:batch])
        with torch.no_grad():
            wanted, wanted_value = network(frames[:batch])
        torch.testing.assert_close(mine, wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(value, wanted_value, atol=1e-4, rtol=1e-4)
    other = derive(SPACE.sample(seeded(3)), seeded(1))
    other.ends.see(frames)
    with torch.no_grad():
        other.blocks[-1].outputs.bias[1] += 1e-3
    with pytest.raises(ParityError, match=r"differs from the network by 0\.001"):
        check_parity(network, to_onnx(other, frame_shape_of(PARTS)), frames.numpy())


def test_a_file_that_forbids_other_actions_does_not_pass():
    parts, reordered = PARTS, (*PARTS[:4], Part("action_mask", "mask", (4,)))
    network, frames = derive(SPACE.sample(seeded(3)), seeded(1)), example_frames(SPACE, 8)
    free = AgentNetwork(network.ops, seeded(1), network.wiring, parts=reordered)
    free.load_state_dict(network.state_dict())
    free.ends.leave = lambda outputs, values=None: (outputs[:, :-1] + 0 * values["action_mask"], outputs[:, -1])
    assert parts == reordered
    with pytest.raises(ParityError, match="forbids other actions"):
        check_parity(network, to_onnx(free, frame_shape_of(PARTS)), frames.numpy())


# --- tables


def test_a_table_times_the_blocks_and_whole_networks_of_such_a_space():
    architecture = SPACE.sample(seeded(0))
    network = architecture.network()
    model = OnnxRunner(build_network_model(network, wiring=network.wiring))
    assert [entry.name for entry in model.session.get_inputs()] == ["frames", "frames1", "frames2"]
    model()
    join = next(op for op in network if op.kind == "join")
    alone = OnnxRunner(build_block_model(join))
    assert alone.session.get_outputs()[0].shape == [1, join.in_channels] and join.macs == join.params == 0
    plan = make_plan(make_worklist("joined", SPACE.all_ops(), [network, SPACE.sample(seeded(1)).network()]))
    assert {row.method for row in plan.rows if row.op.kind == "join"} == {"stem"} and len(plan.networks) == 2
    for wrong in ({"groups": 1}, {"out_channels": 3}, {"activation": "relu"}, {"kernel": 3}):
        with pytest.raises(ShapeError):
            OpSpec(**{"kind": "join", "in_channels": 7, "in_height": 1, "in_width": 1, "out_channels": 7, "groups": 2,
                      "activation": "none", **wrong})  # fmt: skip


def test_the_fixed_agent_of_parts_is_a_network_of_them():
    ((name, ops),) = reference_agents(SPACE.frame_shape, 4, PARTS).items()
    network = AgentNetwork(ops, seeded(0), parts=PARTS)
    assert name == "cnn-and-mlp" and network(example_frames(SPACE, 3))[0].shape == (3, 4)
    assert list(reference_agents((1, 9 * 8 * 3 + 4), 4, (PARTS[0], PARTS[4]))) == ["impala-cnn"]


@pytest.mark.parametrize(
    "kind, frame_shape, parts, text",
    [
        ("joined", (8, 8, 3), (), "space 'joined' takes parts, the task gives frames"),
        ("chain", frame_shape_of(PARTS), PARTS, "space 'chain' takes frames, the task gives parts.*choose joined"),
        ("mlp", frame_shape_of((PARTS[0], PARTS[4])), (PARTS[0], PARTS[4]), "space 'mlp' takes vectors, the task gives frames"),
    ],
)
def test_a_space_of_other_observations_is_refused_by_name(kind, frame_shape, parts, text):
    with pytest.raises(ConfigError, match=text):
        SPACES.get(kind).build({}, frame_shape, 4, "categorical", parts)


@pytest.mark.parametrize(
    "values, text",
    [
        ({"image": {"stem_chanels": 3}}, r"space\.values\.image\.stem_chanels: unknown key; did you mean 'stem_channels'"),
        ({"image": {"hidden": 1}}, r"space\.values\.image\.hidden: .* the common one has space\.values\.hidden"),
        ({"image": {"stage_strides": [1, 2, 3]}}, r"space\.values\.image\.stage_channels"),
        ({"image": {"candidates": ["mlp_w32_relu"]}}, r"space\.values\.image\.candidates"),
        ({"image": {"stem_kernel": "wide"}}, r"space\.values\.image\.stem_kernel"),
        ({"vector": {"stage_repeats": [2000]}}, r"space\.values\.vector\.stage_repeats must be at most 1000"),
        ({"vector": {"stage_repeats": []}}, r"space\.values\.vector\.stage_widths and stage_repeats"),
        ({"vector": {"memory": []}}, r"space\.values\.vector\.memory"),
        ({"vektor": {}}, r"space\.values\.vektor: unknown key; did you mean 'vector'"),
    ],
)
def test_wrong_values_of_an_encoder_name_the_key(values, text):
    with pytest.raises(ConfigError, match=text):
        joined(values)
