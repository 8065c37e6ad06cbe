"""Policies as files in the layouts that the peers document, made with onnx alone: small, with a closed form in numpy."""

import io
import json
import zipfile

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

FEATURES, ACTIONS = 4, 3
ELEMENTS = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


class Linear:
    """``x @ w + b``, drawn once from a seed."""

    def __init__(self, features, outputs, seed):
        random = np.random.default_rng(seed)
        self.w = random.normal(0, 1, (features, outputs)).astype(np.float32)
        self.b = random.normal(0, 1, outputs).astype(np.float32)

    def __call__(self, x):
        return x @ self.w + self.b


def policy_model(
    outputs,
    *,
    shape=(1, FEATURES),
    name="obs",
    dtype="float32",
    further_nodes=(),
    inputs=(),
    divide=None,
    producer="pytorch",
    domain=None,
):
    """An ONNX policy of linear heads.

    Args:
        outputs: by name: (its :class:`Linear` layer or an array that depends on nothing, what follows it: ``None``, ``Tanh``,
            ``Softmax``, ``ArgMax`` or ``Chunk``).
        shape, name, dtype: of the input that takes the observations.
        further_nodes, inputs: beside these.
        divide: by this first.
        producer: as the file says.
        domain: of a custom operator that is put first.

    Returns:
        The model.
    """
    nodes, constants, declared = [], [], []
    nodes.append(helper.make_node("Cast", [name], ["real"], to=TensorProto.FLOAT))
    last = "real"
    if divide is not None:
        constants.append(numpy_helper.from_array(np.array(divide, np.float32), "divisor"))
        nodes.append(helper.make_node("Div", [last, "divisor"], ["divided"]))
        last = "divided"
    if domain is not None:
        nodes.append(helper.make_node("Own", [last], ["own"], domain=domain))
        last = "own"
    rows = shape[0] if len(shape) > 1 else None
    if len(shape) > 2:
        nodes.append(helper.make_node("Flatten", [last], ["flat"]))
        last = "flat"
    for key, (layer, after) in outputs.items():
        if isinstance(layer, np.ndarray):
            constants.append(numpy_helper.from_array(layer, f"{key}_value"))
            nodes.append(helper.make_node("Identity", [f"{key}_value"], [key]))
            declared.append(helper.make_tensor_value_info(key, TensorProto.FLOAT, layer.shape))
            continue
        constants += [numpy_helper.from_array(layer.w, f"{key}_w"), numpy_helper.from_array(layer.b, f"{key}_b")]
        nodes.append(helper.make_node("MatMul", [last, f"{key}_w"], [f"{key}_product"]))
        made = key if after is None else f"{key}_sum"
        nodes.append(helper.make_node("Add", [f"{key}_product", f"{key}_b"], [made]))
        element, size = TensorProto.FLOAT, [*([] if rows is None else [rows]), len(layer.b)]
        if after in ("Tanh", "Softmax"):
            nodes.append(helper.make_node(after, [made], [key]))
        elif after == "ArgMax":
            nodes.append(helper.make_node(after, [made], [key], axis=-1, keepdims=0))
            element, size = TensorProto.INT64, size[:-1]
        elif after == "Chunk":
            steps, width = 2, len(layer.b) // 2
            constants.append(numpy_helper.from_array(np.array([-1, steps, width], np.int64), f"{key}_shape"))
            nodes.append(helper.make_node("Reshape", [made, f"{key}_shape"], [key]))
            size = [rows, steps, width]
        declared.append(helper.make_tensor_value_info(key, element, size))
    taken = [helper.make_tensor_value_info(name, ELEMENTS[dtype], shape), *inputs]
    graph = helper.make_graph([*nodes, *further_nodes], "policy", taken, declared, constants)
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=producer)


def saved(path, model):
    """The model as a file; returns its path."""
    onnx.save(model, path)
    return path


def sb3_zip(path, weights, *, module="stable_baselines3.common.policies", actions=("n", ACTIONS), shape=(FEATURES,), kwargs=None):
    """A zip in the layout of stable-baselines3 2.9: readable ``data``, weights in ``policy.pth``.

    Args:
        path: of the zip.
        weights: by name, arrays.
        module: of the policy's class.
        actions: ``("n", count)`` or ``("size", length)``.
        shape: of the observations; None: a Dict.
        kwargs: the readable part of ``policy_kwargs``.

    Returns:
        The path.
    """
    kind, count = actions
    data = {
        "policy_class": {":type:": "<class 'abc.ABCMeta'>", ":serialized:": "gAWV", "__module__": module},
        "policy_kwargs": kwargs or {},
        "observation_space": {":serialized:": "gAWV", **({} if shape is None else {"_shape": list(shape)})},
        "action_space": {":serialized:": "gAWV", **({"n": str(count), "_shape": []} if kind == "n" else {"_shape": [count]})},
        "gamma": 0.99,
    }
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(np.asarray(weight)) for name, weight in weights.items()}, buffer)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps(data))
        archive.writestr("policy.pth", buffer.getvalue())
        archive.writestr("_stable_baselines3_version", "2.9.2")
    return path


def actor_critic_weights(features=FEATURES, actions=ACTIONS, hidden=5, seed=0, log_std=None):
    """Weights of a PPO policy with one hidden layer, by their names in stable-baselines3."""
    random = np.random.default_rng(seed)

    def layer(name, inputs, outputs):
        return {
            f"{name}.weight": random.normal(0, 1, (outputs, inputs)).astype(np.float32),
            f"{name}.bias": random.normal(0, 1, outputs).astype(np.float32),
        }

    return {
        **({} if log_std is None else {"log_std": np.asarray(log_std, np.float32)}),
        **layer("mlp_extractor.policy_net.0", features, hidden),
        **layer("mlp_extractor.value_net.0", features, hidden),
        **layer("action_net", hidden, actions),
        **layer("value_net", hidden, 1),
    }
