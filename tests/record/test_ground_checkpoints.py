"""Checkpoints: whole or absent, damaged ones passed over, nothing saved that could not be loaded."""

import dataclasses
import enum
import logging
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch

from cosearch.record.checkpoints import Checkpoints
from latency_tables.errors import RunFolderError


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints")


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Record:
    x: int = 1


def test_every_plain_type_comes_back_equal(checkpoints):
    parameter = torch.nn.Parameter(torch.arange(3.0))
    state = {
        "numbers": (1, -2.5, True, None, 2**200, float("inf")),
        "text": "ü",
        "bytes": b"\x00\xff",
        7: [[], {}, ()],
        "ordered": OrderedDict(a=1),
        "shape": torch.Size([1, 2]),
        "dtype": torch.uint8,
        "device": torch.device("cpu"),
        "tensors": [torch.zeros(0), torch.tensor(3), torch.ones(2, 3, dtype=torch.bfloat16), torch.rand(4, 4).t()],
        "parameter": parameter,
    }
    checkpoints.save(state, 1)
    found = checkpoints.load()
    tensors, parameters = found.pop("tensors"), found.pop("parameter")
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(tensors, state.pop("tensors"), strict=True))
    assert torch.equal(parameters, state.pop("parameter"))
    assert found == state


def test_a_training_state_goes_on_as_if_nothing_had_happened(checkpoints):
    def make():
        torch.manual_seed(0)
        network = torch.nn.Linear(4, 2)
        return network, torch.optim.Adam(network.parameters(), lr=0.1)

    def train(network, optimiser, steps):
        for step in range(steps):
            optimiser.zero_grad()
            network(torch.full((1, 4), 1.0 + step)).square().sum().backward()
            optimiser.step()
        return network.weight.detach().clone()

    network, optimiser = make()
    train(network, optimiser, 3)
    checkpoints.save({"network": network.state_dict(), "optimiser": optimiser.state_dict()}, 3)
    expected = train(network, optimiser, 3)
    network, optimiser = make()
    state = checkpoints.load()
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    assert torch.equal(train(network, optimiser, 3), expected)


@pytest.mark.parametrize(
    "value, name",
    [
        (np.zeros(2), "ndarray"),
        (np.float64(1), "float64"),
        (Record(), "Record"),
        (Level.LOW, "Level"),
        ({1}, "set"),
        (defaultdict(int), "defaultdict"),
        (len, "builtin_function_or_method"),
        (torch.Generator(), "Generator"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(checkpoints, value, name):
    with pytest.raises(TypeError, match=rf"state\['env'\]\[1\] is a {name}; a checkpoint holds tensors"):
        checkpoints.save({"env": [1, value]}, 1)
    assert checkpoints.paths() == []


def test_an_odd_key_is_not_saved(checkpoints):
    with pytest.raises(TypeError, match="a key of state is a Level"):
        checkpoints.save({Level.LOW: 1}, 1)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_few_are_kept_in_order_of_saving(tmp_path, keep):
    checkpoints = Checkpoints(tmp_path, keep)
    for step in (30, 20, 10, 5):  # the tag does not give the order
        checkpoints.save({"step": step}, f"search_{step}")
    assert [path.name.rsplit("-", 1)[0] for path in checkpoints.paths()] == [
        "000004-search_5",
        "000003-search_10",
        "000002-search_20",
    ][:keep]
    assert len(list(tmp_path.iterdir())) == keep
    assert checkpoints.load() == {"step": 5}


def test_another_process_goes_on_with_the_numbers(checkpoints):
    checkpoints.save({"step": 1}, 1)
    later = Checkpoints(checkpoints.folder)
    later.save({"step": 2}, 2)
    assert [path.name[:6] for path in later.paths()] == ["000002", "000001"]


def test_there_is_none_before_the_first(checkpoints):
    assert checkpoints.load() is None and checkpoints.paths() == []


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def damage_empty(path):
    path.write_bytes(b"")


def damage_one_bit(path):
    data = bytearray(path.read_bytes())
    data[data.index(b"\x00\x00\x80?" * 4)] ^= 1  # inside the weights: only the digest can tell
    path.write_bytes(data)


def damage_content(path):
    path.write_bytes(b"not a checkpoint at all")


@pytest.mark.parametrize("damage", [damage_truncate, damage_empty, damage_one_bit, damage_content])
def test_a_damaged_one_is_passed_over_and_named(checkpoints, damage, caplog):
    checkpoints.save({"weights": torch.ones(100), "step": 1}, 1)
    newest = checkpoints.save({"weights": torch.ones(100), "step": 2}, 2)
    assert checkpoints.load()["step"] == 2
    damage(newest)
    with caplog.at_level(logging.WARNING):
        assert checkpoints.load()["step"] == 1
    assert str(newest) in caplog.text and "is damaged" in caplog.text


def test_a_damaged_one_does_not_push_out_a_good_one(checkpoints):
    for step in (1, 2):
        newest = checkpoints.save({"step": step}, step)
    damage_truncate(newest)
    assert checkpoints.load() == {"step": 1}
    damage_truncate(checkpoints.save({"step": 2}, 2))
    assert not newest.exists()
    assert checkpoints.load() == {"step": 1}


def test_only_damaged_ones_are_an_error_and_not_a_fresh_start(checkpoints):
    damage_truncate(checkpoints.save({"step": 1}, 1))
    with pytest.raises(RunFolderError, match=r"all 1 checkpoints in .* are damaged"):
        checkpoints.load()


def test_a_file_with_code_inside_is_not_run(checkpoints, tmp_path, caplog):
    """A pickle that would make a file when loaded, under a name with the right digest."""
    import hashlib

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    checkpoints.save({"step": 1}, 1)
    torch.save({"step": Evil()}, tmp_path / "evil")
    data = (tmp_path / "evil").read_bytes()
    (checkpoints.folder / f"000009-x-{hashlib.sha256(data).hexdigest()[:16]}.pt").write_bytes(data)
    assert checkpoints.load() == {"step": 1}
    assert "000009-x" in caplog.text and not (tmp_path / "owned").exists()


def test_what_a_killed_writer_left_is_cleared_and_strangers_are_left_alone(checkpoints):
    checkpoints.save({"step": 1}, 1)
    (checkpoints.folder / ".000002-2-0123456789abcdef.pt.77.partial").write_bytes(b"half")
    (checkpoints.folder / "notes.txt").write_text("mine")
    checkpoints.save({"step": 2}, 2)
    assert sorted(path.name[:6] for path in checkpoints.folder.iterdir()) == ["000001", "000002", "notes."]


@pytest.mark.parametrize("tag", ["", "a-b", "a/b", "../x", "a b"])
def test_a_tag_is_part_of_a_file_name(checkpoints, tag):
    with pytest.raises(ValueError, match="the tag of a checkpoint"):
        checkpoints.save({}, tag)
