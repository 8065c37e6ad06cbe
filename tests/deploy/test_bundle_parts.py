"""Agents with several inputs or vectors of whole numbers: the file takes what the environment gives, and acts as said."""

import dataclasses

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from cosearch.deploy.bundle.contract import InputPart
from cosearch.deploy.bundle.graph import BELOW_1, load, noise_size, with_actions, with_given_inputs
from cosearch.deploy.export import to_onnx
from cosearch.deploy.player import ActingRule, Agent, batch_of_one
from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import EnvOptions, make_env
from cosearch.rl.policy import how_to_act, policy_of
from cosearch.space.ends import POLICIES
from cosearch.space.network import AgentNetwork, mlp
from cosearch.space.parts import MASK, Part, frame_shape_of, pack
from cosearch.space.space import SPACES
from cosearch.testing.conformance import example_frames, seeded
from latency_tables.board.runners import OnnxRunner
from latency_tables.errors import ShapeError

load_builtins()
TASKS = {"categorical": "masked", "multi_categorical": "factors", "gaussian": "asymmetric"}  # one for each registered policy


def loud(network):
    """The network with outputs that differ visibly between observations."""
    with torch.no_grad():
        network.blocks[-1].outputs.weight.mul_(100)
    return network


def agent_of(model, rule):
    agent = object.__new__(Agent)
    agent.rule, agent._session, agent._kept = rule, OnnxRunner(model).session, None
    agent._names = [output.name for output in agent._session.get_outputs()]
    agent._input = agent._session.get_inputs()[0].name
    agent.observation_shape = tuple(agent._session.get_inputs()[0].shape[1:])
    agent.observation_dtype = np.dtype(np.float32)
    agent.reset(0)
    return agent


def contract_of(env):
    """What acting needs of a contract."""
    from fuzz_bundles import _contract

    box = env.action_box
    bounds = {} if box is None else {"action_low": box.low, "action_high": box.high}
    scaled = {} if box is None else dict(zip(("action_scale", "action_shift"), zip(*box.scaling)))
    return dataclasses.replace(
        _contract(), policy=policy_of(env).name, rule="sample", action_sizes=env.action_sizes, **bounds, **scaled
    )


@pytest.mark.parametrize("name", POLICIES)
def test_each_policy_acts_alike_inside_the_graph_in_the_player_and_in_training(name):
    env = make_env(f"own_tasks:{TASKS[name]}", EnvOptions(64, 0))
    policy = policy_of(env)
    assert policy.name == name == how_to_act(env)["policy"]
    features = env.frame_shape[0] if not env.parts else env.parts[0].shape[0]
    network = loud(AgentNetwork(mlp((features,), env.num_actions, (8,)), seeded(0), policy=name, parts=env.parts)).eval()
    frames = torch.from_numpy(env.observe())
    model = to_onnx(network, env.frame_shape)
    contract = contract_of(env)
    with torch.no_grad():
        parameters = policy.read(network(frames)[0])
    greedy = policy.greedy(parameters).numpy()
    wanted = greedy if env.action_box is None else env.action_box.from_policy(greedy)
    values = {part.name: value for part, value in zip(env.parts, _apart(env))} or {"observations": frames.numpy()}
    inside = OnnxRunner(with_actions(load(model, "it"), "greedy", contract).SerializeToString()).session
    np.testing.assert_allclose(inside.run(["action"], values)[0], wanted, rtol=1e-4, atol=1e-4)
    bounds = {} if env.action_box is None else {"low": np.array(env.action_box.low), "high": np.array(env.action_box.high)}
    scale = {} if env.action_box is None else dict(zip(("scale", "shift"), np.array(env.action_box.scaling).T))
    rule = ActingRule("sample", name, action_sizes=env.action_sizes, parts=env.parts, **bounds, **scale)
    played = agent_of(model, rule).act(values if env.parts else frames.numpy(), greedy=True)
    np.testing.assert_allclose(played, wanted, rtol=1e-4, atol=1e-4)
    if name == "multi_categorical":  # truth values are numbers, to the player as to the environment
        assert np.array_equal(agent_of(model, rule).act(frames.numpy() > 0, greedy=True), played)
    env.send(policy.sample(parameters, seeded(0)).numpy())  # a forbidden one, or one outside of the space, raises there
    env.receive()
    assert noise_size(contract) == (1 if name == "categorical" else 2)


def _apart(env):
    from cosearch.space.parts import unpack

    return unpack(env.parts, env.observe()).values()


def test_sampling_inside_the_graph_draws_each_factor_by_its_own_number():
    env = make_env("own_tasks:factors", EnvOptions(1, 0))
    network = loud(AgentNetwork(mlp((5,), 5, (8,)), seeded(0), policy="multi_categorical")).eval()
    session = OnnxRunner(
        with_actions(load(to_onnx(network, (5,)), "it"), "sampled", contract_of(env)).SerializeToString()
    ).session
    frames, noise = env.observe(), np.random.default_rng(0).random((2000, 2)).astype(np.float32)
    found, logits = session.run(["action", "logits"], {"observations": np.repeat(frames, 2000, 0), "noise": noise})
    for factor, begin, end in ((0, 0, 3), (1, 3, 5)):
        reached = np.exp(logits[:, begin:end]).cumsum(1)
        wanted = (reached / reached[:, -1:] <= noise[:, factor : factor + 1]).sum(1)
        assert (found[:, factor] == wanted).mean() > 0.995 and found.dtype == np.int64


@pytest.mark.parametrize("drawn", [1.0, float(BELOW_1), 1 - 2.0**-26])
def test_the_largest_noise_gives_an_action_that_exists_and_is_allowed(drawn):
    forbidden = np.array([[0.3, -1.0, 2.0, -1e8], [5.0, -1e8, -1e8, -1e8]], np.float32)  # the last ones are forbidden
    random = np.random.default_rng(0).normal(0, 3, (500, 4)).astype(np.float32)
    logits = np.concatenate([forbidden, random])
    env = make_env("own_tasks:masked", EnvOptions(1, 0))
    taken, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("given", "logits"))
    graph = helper.make_graph([helper.make_node("Identity", ["given"], ["logits"])], "it", [taken], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=7)
    for sizes in ((), (2, 2)):
        contract = dataclasses.replace(
            contract_of(env), policy="multi_categorical" if sizes else "categorical", action_sizes=sizes
        )
        session = OnnxRunner(with_actions(model, "sampled", contract).SerializeToString()).session
        noise = np.full((len(logits), len(sizes) or 1), drawn, np.float32)
        (found,) = session.run(["action"], {"given": logits, "noise": noise})
        assert found.min() >= 0 and found.max() < (2 if sizes else 4)
        if not sizes:
            assert found[:2].tolist() == [2, 0] and (logits[np.arange(len(found)), found] > -1e7).all()


IMAGES = (
    Part("near", "image", (6, 5, 3), "channels_first", -1.0, 2.0),
    Part("far", "image", (4, 4, 1)),
    Part(MASK, "mask", (4,)),
)


def test_the_file_takes_images_of_floats_and_channels_first_as_the_environment_gives_them():
    chain = {
        "stem_channels": 4,
        "stem_kernel": 3,
        "stem_stride": 1,
        "stage_channels": [4],
        "stage_repeats": [1],
        "stage_strides": [1],
    }
    space = SPACES.get("joined").build({"image": chain, "hidden": 8}, frame_shape_of(IMAGES), 4, "categorical", IMAGES)
    architecture = space.sample(seeded(0))
    network = loud(AgentNetwork(architecture.ops(), seeded(1), architecture.wiring(), parts=IMAGES)).eval()
    stream = np.random.default_rng(3)
    given = {
        "near": stream.uniform(-1.3, 2.3, (9, 3, 6, 5)).astype(np.float32),  # some beyond their bounds
        "far": stream.integers(0, 256, (9, 4, 4, 1), np.uint8),
        MASK: np.ones((9, 4), np.uint8),
    }
    frames = torch.from_numpy(pack(IMAGES, {part.name: part.taken(given[part.name]) for part in IMAGES}))
    plain = to_onnx(network, space.frame_shape)
    inputs = [
        InputPart(name=p.name, kind=p.kind, dtype=p.given_dtype, shape=p.given_shape, layout=p.layout, low=p.low, high=p.high)
        for p in IMAGES
    ]
    native = with_given_inputs(load(plain, "it"), inputs).SerializeToString()
    session = OnnxRunner(native).session
    assert [tuple(entry.shape[1:]) for entry in session.get_inputs()] == [(3, 6, 5), (4, 4, 1), (4,)]
    with torch.no_grad():
        wanted = network(frames)[0].numpy()
    np.testing.assert_allclose(session.run(["logits"], given)[0], wanted, rtol=1e-3, atol=1e-3)
    agent = agent_of(plain, ActingRule("argmax", "categorical", parts=IMAGES))
    assert agent.act(given).tolist() == wanted.argmax(1).tolist()
    one = {name: values[0] for name, values in given.items()}
    assert agent(one) == wanted[0].argmax() and batch_of_one(one)["far"].shape == (1, 4, 4, 1)
    for wrong, text in (
        ({**given, "far": given["far"][:, :3]}, r"takes far as \[batch, 4, 4, 1\] in uint8, got \[9, 3, 4, 1\]"),
        ({name: given[name] for name in ("near", MASK)}, r"takes far as .* got nothing"),
        ({**given, "far": given["far"].astype(np.float32)}, r"takes far as .* in float32"),
    ):
        with pytest.raises(ShapeError, match=text):
            agent.act(wrong)
    assert example_frames(space, 2).shape == (2, *space.frame_shape)
