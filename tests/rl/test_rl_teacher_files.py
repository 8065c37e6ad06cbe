"""A teacher's two files belong together, and what the record says is in range."""

import json
import random
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from cosearch.rl.teacher import TEACHERS, find_teacher, list_teachers, load_network, read_record, save_teacher
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.network import AgentNetwork
from latency_tables.errors import ConfigError

ABOUT = {"env": "procgen:starpilot", "description": "toy", "gamma": 0.99, "reward_std": 2.0, "provenance": {}}
MILLION_MILLIONS = 10**12


def make(path, seed):
    blocks = chain_space(ChainConfig(stage_channels=(4,), stage_repeats=(1,), stage_strides=(1,), hidden=8), (64, 64, 3), 15)
    network = AgentNetwork(blocks.architecture([0]).ops(), torch.Generator().manual_seed(seed))
    return save_teacher(path, network, **ABOUT)


def edit(path, **values):
    record = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in (record | values).items() if value is not ...}))
    return path


@pytest.mark.parametrize("changed", [".json", ".safetensors"])
def test_a_record_beside_the_weights_of_another_writing_is_refused(tmp_path, changed):
    first, second = (make(tmp_path / f"{seed}.json", seed) for seed in (1, 2))
    shutil.copy(second.path.with_suffix(changed), first.path.with_suffix(changed))
    with pytest.raises(ConfigError, match=r"1\.safetensors.*SHA-256 is .*the record was written for .*Get both again"):
        load_network(read_record(first.path))


def test_a_changed_byte_of_the_weights_is_refused(tmp_path):
    record = make(tmp_path / "t.json", 1)
    whole, draw = record.weights_path.read_bytes(), random.Random(0)
    for place in [0, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(60))]:
        record.weights_path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        with pytest.raises(ConfigError, match=r"t\.safetensors: cannot be read as the weights of teacher 't'"):
            load_network(record)


def test_a_record_without_a_digest_is_read_as_before(tmp_path):
    first = make(tmp_path / "t.json", 1)
    old = read_record(edit(first.path, weights_sha256=...))
    assert old.made_for_sha256 is None
    for key, value in load_network(first).state_dict().items():
        assert torch.equal(value, load_network(old).state_dict()[key])


def test_weights_that_are_not_finite_are_refused(tmp_path):
    record = read_record(edit(make(tmp_path / "t.json", 1).path, weights_sha256=...))
    weights = load_file(str(record.weights_path))
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, str(record.weights_path))
    with pytest.raises(ConfigError, match="a weight is NaN or infinite"):
        load_network(record)


@pytest.mark.parametrize(
    "name, value",
    [
        *(("gamma", value) for value in (1.001, -0.1, MILLION_MILLIONS, "0.9", True, None, [0.9])),
        *(("reward_std", value) for value in (0, -1.0, MILLION_MILLIONS, 10**39, 1e-300, "1", False, None)),
        *(("policy", value) for value in ("softmax", 3, ["categorical"])),
        *(("weights_sha256", value) for value in (3, None, {})),
        ("env", 3),
        ("provenance", []),
        ("operations", {}),
        ("operations", [[]]),
        ("operations", [{"kind": ["conv"]}]),
    ],
)
def test_what_a_record_says_is_in_range(tmp_path, name, value):
    path = edit(make(tmp_path / "t.json", 1).path, **{name: value})
    with pytest.raises(ConfigError, match=r"t\.json: ") as caught:
        read_record(path)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "1" * 5000])
def test_a_number_that_is_none_is_refused(tmp_path, value):
    path = make(tmp_path / "t.json", 1).path
    path.write_text(path.read_text().replace('"gamma": 0.99', f'"gamma": {value}'))
    with pytest.raises(ConfigError, match=r"t\.json: cannot be read as a teacher: "):
        find_teacher(str(path), ABOUT["env"])


def test_shipped_records_name_their_weights():
    done = subprocess.run(["sha256sum", *TEACHERS.glob("*.safetensors")], capture_output=True, text=True, check=True)
    digests = {line.split("/")[-1].split(".")[0]: line[:64] for line in done.stdout.splitlines()}
    assert {record.name: record.made_for_sha256 for record in list_teachers()} == digests and len(digests) > 4
