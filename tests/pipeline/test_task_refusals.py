"""What a kind of task does not go together with is refused by name before a run, in one message."""

import dataclasses
import json

import pytest
import torch

from cosearch.planning.device.artifact import ArtifactPlan, check_parts
from cosearch.planning.request import resolve_request
from cosearch.planning.task import resolve_task
from cosearch.planning.teacher import check_fits
from cosearch.rl.teacher import TeacherRecord
from latency_tables.errors import ConfigError, RequestError, ShapeError

WORDS = ("threads=1", "distill.teacher=none")


def request_of(name, *words):
    return resolve_request(resolve_task(overrides=(f"env.name=own_tasks:{name}", *WORDS, *words)))


@pytest.mark.parametrize(
    "name, words, text",
    [
        ("factors", ("rl.algorithm=dqn",), "dqn chooses one of some discrete actions, own_tasks:factors has action vectors"),
        ("dictionary", ("space.name=chain",), "space 'chain' takes frames, the task gives parts .* choose joined"),
        (
            "dictionary",
            (f"space.values={json.dumps({'vector': {'candidates': ['gru_w16', 'skip_layer']}})}",),
            "such agents read one image or vector, own_tasks:dictionary has observations of several parts",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(name, words, text):
    with pytest.raises(ConfigError, match=text):
        request_of(name, *words)


def test_the_space_of_a_task_is_chosen_by_its_observations():
    found = {name: request_of(name).space for name in ("dictionary", "masked", "factors", "grey")}
    assert [space.name for space in found.values()] == ["joined", "mlp", "mlp", "chain"]
    assert found["factors"].action_sizes == (3, 2) and found["masked"].parts[-1].name == "action_mask"
    record = json.loads(json.dumps(found["dictionary"].sample(torch.Generator()).to_dict()))
    assert [part["name"] for part in record["parts"]] == ["noise", "pixels", "sign"]


def test_other_forms_and_teachers_of_such_agents_are_refused(tmp_path):
    space = request_of("dictionary").space
    check_parts(ArtifactPlan(), space)
    for form in (ArtifactPlan("onnxruntime", "int8"), ArtifactPlan("tvm")):
        with pytest.raises(RequestError, match=r"parts \(noise, pixels, sign\) are exported for ONNX Runtime in float32 only"):
            check_parts(form, space)
    said = (space.frame_shape, space.num_actions, space.policy, space.parts)
    onnx = TeacherRecord("one", "", "", (), None, None, {}, tmp_path / "one.onnx")
    with pytest.raises(ConfigError, match=r"an ONNX file teaches tasks of one image or vector, this one has .* noise"):
        check_fits(onnx, *said)
    own = dataclasses.replace(onnx, path=tmp_path / "one.json", ops=(space.stem, space.head))
    with pytest.raises(ShapeError, match="takes observations of the parts one image or vector, the run's environment has noise"):
        check_fits(own, *said)
