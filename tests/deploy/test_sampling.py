"""Random architectures as files, predictions by operation, and the work lists that tables are made from."""

import itertools
import json
import math

import numpy as np
import onnxruntime
import pytest
import torch

from cosearch.config.run import resolve
from cosearch.deploy import sampling
from cosearch.deploy.sampling import (
    predict_architecture,
    reference_models,
    spread_networks,
    write_references,
    write_samples,
    write_worklist,
)
from cosearch.planning.builtins import load_builtins
from cosearch.planning.space import make_space
from cosearch.space.derivation.derive import derive
from cosearch.space.files import load_architecture
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.network import impala_cnn, nature_cnn
from cosearch.space.parts import unpack
from cosearch.space.space import SPACES
from latency_tables.errors import ConfigError, MissingOpError, ParityError, RequestError
from latency_tables.opspec import OpSpec
from latency_tables.schema import Row, TableFile
from latency_tables.table import Table
from latency_tables.worklists import load_worklist

SHAPE, ACTIONS = (16, 16, 3), 5
CONFIG = ChainConfig(stem_channels=8, stage_channels=(8, 12), stage_repeats=(2, 1), stage_strides=(1, 2), hidden=16)
SPACE = chain_space(CONFIG, SHAPE, ACTIONS)


def tiny_space(*candidates):
    config = ChainConfig(8, stage_channels=(8,), stage_repeats=(1,), stage_strides=(1,), candidates=candidates)
    return chain_space(config, SHAPE, 2)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_samples_are_an_architecture_and_its_model(tmp_path):
    out = tmp_path / "deep" / "out"
    files = write_samples(SPACE, 2, 5, out)
    assert files == [out / f"{i:04d}.json" for i in range(2)]
    assert list(contents(out)) == [f"{i:04d}.{end}" for i in range(2) for end in ("json", "onnx")]
    frames = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
    for path in files:
        architecture = load_architecture(path)
        assert architecture.space == SPACE and json.loads(path.read_text())["format"] == "cosearch-architecture-1"
        session = onnxruntime.InferenceSession(str(path.with_suffix(".onnx")), providers=["CPUExecutionProvider"])
        logits, value = session.run(None, {"frames": frames})
        assert logits.shape == (3, ACTIONS) and value.shape == (3,) and np.ptp(value) > 0
        # the weights in the file are as many as the operations say: the model is of this architecture
        network = derive(architecture, torch.Generator())
        assert abs(path.with_suffix(".onnx").stat().st_size - 4 * sum(p.numel() for p in network.parameters())) < 6000
    assert len({load_architecture(path).choices for path in files}) == 2


def test_a_seed_gives_the_same_files_and_more_samples_keep_the_first(tmp_path):
    for name, n, seed in (("a", 2, 1), ("b", 1, 1), ("c", 1, 2)):
        write_samples(SPACE, n, seed, tmp_path / name)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert {name: a[name] for name in b} == b and not set(b.values()) & set(c.values())


def test_weights_follow_the_seed_even_for_the_same_architecture(tmp_path):
    write_samples(tiny_space("conv_k3"), 2, 0, tmp_path)
    found = contents(tmp_path)
    assert found["0000.json"] == found["0001.json"] and found["0000.onnx"] != found["0001.onnx"]


@pytest.mark.parametrize("existing", ["0001.json", "0002.onnx"])
def test_nothing_is_overwritten_and_nothing_is_written_beside(tmp_path, existing):
    (tmp_path / existing).write_text("mine")
    with pytest.raises(RequestError, match=f"{existing} exists already and is not replaced; give another --out"):
        write_samples(SPACE, 3, 0, tmp_path)
    assert contents(tmp_path) == {existing: b"mine"}


def test_the_same_request_goes_on_where_it_was_interrupted(tmp_path):
    write_samples(SPACE, 3, 0, tmp_path)
    whole = contents(tmp_path)
    (tmp_path / "0001.json").unlink()  # killed between the two files of a sample
    (tmp_path / "0002.json").unlink()
    (tmp_path / "0002.onnx").unlink()
    write_samples(SPACE, 3, 0, tmp_path)
    assert contents(tmp_path) == whole
    with pytest.raises(RequestError, match=r"0000\.json and 5 more of the files to write exists already and is not replaced"):
        write_samples(SPACE, 3, 1, tmp_path)
    assert contents(tmp_path) == whole


def test_impossible_requests_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"file cannot be written"):
        write_samples(SPACE, 1, 0, tmp_path / "file")
    for n in (0, -1, 2.0, True):
        with pytest.raises(RequestError, match="whole number of at least 1"):
            write_samples(SPACE, n, 0, tmp_path / "out")
    with pytest.raises(ConfigError, match="seed"):
        write_samples(SPACE, 1, -1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sample_that_differs_from_its_network_is_not_written(tmp_path, monkeypatch):
    wrong = sampling.to_onnx(derive(SPACE.architecture([0, 0, 0]), torch.Generator().manual_seed(9)), SHAPE)
    monkeypatch.setattr(sampling, "to_onnx", lambda *args: wrong)
    with pytest.raises(ParityError):
        write_samples(SPACE, 1, 0, tmp_path)
    assert contents(tmp_path) == {}


def table(ops, *, energy=True, dtype="float32", overhead=1e-4, scale=1.5, overhead_j=2e-3):
    """A table whose row ``i`` takes ``(i + 1)`` ms and ``(i + 1)`` mJ."""
    rows = {op.key: Row(op.key, (i + 1) * 1e-3, energy_j=(i + 1) * 1e-3 if energy else None) for i, op in enumerate(ops)}
    header = {
        "device": {"name": "board", "description": "d", "runtime": "onnxruntime", "dtype": dtype, "threads": 2},
        "provenance": "measured",
        "table_id": "abc",
        "calibration": {
            "overhead_s": overhead,
            "scale": scale,
            "overhead_j": overhead_j if energy else None,
            "interval_factors": [0.9, 1.2],
        },
    }
    return Table(TableFile(header, rows, None))


def saved(tmp_path, choices):
    path = tmp_path / "arch.json"
    path.write_text(json.dumps(SPACE.architecture(choices).to_dict()))
    return path


def test_a_prediction_is_the_sum_of_its_operations(tmp_path):
    ops = SPACE.architecture([0, 8, 8]).ops()  # the second cell is an identity, the third a strided 1x1 convolution
    found = predict_architecture(saved(tmp_path, [0, 8, 8]), table(ops))
    assert [row["key"] for row in found["operations"]] == [op.key for op in ops] and len(ops) == 4
    assert [row["name"] for row in found["operations"]] == ["stem", "stage1.cell1 conv_k3", "stage2.cell1 skip", "head"]
    assert [row["latency_s"] for row in found["operations"]] == pytest.approx([1.5e-3, 3e-3, 4.5e-3, 6e-3])
    assert found["latency_s"] == pytest.approx(1e-4 + 1.5e-2) and found["overhead_s"] == 1e-4
    assert found["interval"] == pytest.approx([0.9 * 1.51e-2, 1.2 * 1.51e-2])
    assert found["energy_j"] == pytest.approx(2e-3 + 1.5e-2) and found["power_times_time_j"] is None
    assert [row["energy_j"] for row in found["operations"]] == pytest.approx([1.5e-3, 3e-3, 4.5e-3, 6e-3])
    network = derive(SPACE.architecture([0, 8, 8]), torch.Generator())
    assert found["params"] == sum(p.numel() for p in network.parameters()) == sum(row["params"] for row in found["operations"])
    by_hand = [8 * 3 * 64 * 16, 8 * 8 * 9 * 16, 12 * 8 * 4, 12 * 4 * 16 + 16 * 6]  # stem 4x4 out, then 4x4, then 2x2
    assert [row["macs"] for row in found["operations"]] == by_hand and found["macs"] == sum(by_hand)
    assert [found[k] for k in ("provenance", "device", "runtime", "dtype", "threads", "table_id")] == [
        "measured",
        "board",
        "onnxruntime",
        "float32",
        2,
        "abc",
    ]
    assert found["architecture"] == ["conv_k3", "skip", "skip"] and json.loads(json.dumps(found)) == found


def test_unknown_energy_is_null_and_never_zero(tmp_path):
    found = predict_architecture(saved(tmp_path, [0, 0, 0]), table(SPACE.all_ops(), energy=False))
    assert found["energy_j"] is None and {row["energy_j"] for row in found["operations"]} == {None}


def test_a_network_is_predicted_in_the_dtype_of_the_table(tmp_path):
    ops = [OpSpec.from_dict({**op.to_dict(), "dtype": "int8"}) for op in SPACE.all_ops()]
    found = predict_architecture(saved(tmp_path, [1, 2, 3]), table(ops, dtype="int8"))
    assert found["dtype"] == "int8" and all("-int8-" in row["key"] for row in found["operations"])


def test_a_missing_row_and_a_damaged_file_are_clear_errors(tmp_path):
    with pytest.raises(MissingOpError, match="latency_tables measure --device board"):
        predict_architecture(saved(tmp_path, [1, 1, 1]), table(SPACE.architecture([0, 8, 8]).ops()))
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"bad\.json"):
        predict_architecture(tmp_path / "bad.json", table(SPACE.all_ops()))


def test_a_work_list_holds_the_space_and_different_networks(tmp_path):
    path = tmp_path / "chain.json"
    write_worklist(SPACE, path, networks=40, seed=3)
    read = load_worklist(path)
    assert read.space == "chain" and set(read.ops) == set(SPACE.all_ops())
    assert len(read.networks) == 40
    written = json.loads(path.read_text())
    assert [OpSpec.from_dict(op) for op in written["ops"]] == SPACE.all_ops()
    ends = {(network[0], network[-1]) for network in read.networks}
    assert ends == {(SPACE.stem, SPACE.head)} and all(set(network) <= set(read.ops) for network in read.networks)
    first = path.read_bytes()
    write_worklist(SPACE, path, networks=40, seed=3)
    assert path.read_bytes() == first
    write_worklist(SPACE, path, networks=40, seed=4)
    assert path.read_bytes() != first
    assert max(map(len, first.splitlines())) < 300  # one operation a line


def test_networks_of_a_work_list_come_from_the_whole_range_of_work(tmp_path):
    """The cheapest and the dearest by brute force over all architectures bound the range that the sample must nearly fill."""
    work = sorted(sum(op.macs for op in SPACE.architecture(c).ops()) for c in itertools.product(range(9), repeat=3))
    steps = [i / 7 for i in range(8)]
    found = spread_networks(SPACE, 8, torch.Generator().manual_seed(1))
    reached = [math.log(sum(op.macs for op in a.ops()) / work[0]) / math.log(work[-1] / work[0]) for a in found]
    assert len({a.choices for a in found}) == 8 and reached == pytest.approx(steps, abs=0.13)
    uniform = [SPACE.sample(g) for g in [torch.Generator().manual_seed(1)] for _ in range(8)]
    middle = [math.log(sum(op.macs for op in a.ops()) / work[0]) / math.log(work[-1] / work[0]) for a in uniform]
    assert max(reached) - min(reached) > max(middle) - min(middle)
    assert [a.choices for a in spread_networks(SPACE, 8, torch.Generator().manual_seed(1))] == [a.choices for a in found]
    with pytest.raises(RequestError, match="729 architectures, 730 different ones"):
        spread_networks(SPACE, 730, torch.Generator())


def test_uniform_networks_stand_apart_and_are_none_of_the_others(tmp_path):
    write_worklist(SPACE, tmp_path / "w.json", networks=20, uniform=10)
    read = load_worklist(tmp_path / "w.json")
    assert (len(read.networks), len(read.uniform)) == (20, 10) and not set(read.networks) & set(read.uniform)
    write_worklist(SPACE, tmp_path / "none.json", networks=20)
    assert load_worklist(tmp_path / "none.json").uniform == ()


def test_a_work_list_holds_operations_and_networks_of_other_tasks_too(tmp_path):
    others = [tiny_space("conv_k3", "conv_k5", "skip"), tiny_space("conv_k3", "mbconv_k3_e1", "mbconv_k5_e1")]
    write_worklist(SPACE, tmp_path / "w.json", networks=5, seed=3, others=others)
    write_worklist(SPACE, tmp_path / "own.json", networks=5, seed=3)
    read, own = load_worklist(tmp_path / "w.json"), load_worklist(tmp_path / "own.json")
    assert set(read.ops) == {op for space in (SPACE, *others) for op in space.all_ops()}
    assert read.networks[:5] == own.networks and len(read.networks) == 10
    assert all(set(network) <= set(others[n > 2].all_ops()) for n, network in enumerate(read.networks[5:]))


def test_a_work_list_cannot_hold_more_different_networks_than_there_are(tmp_path):
    small = tiny_space("conv_k3", "conv_k5", "skip")
    write_worklist(small, tmp_path / "all.json", networks=3)
    assert len(set(load_worklist(tmp_path / "all.json").networks)) == 3
    with pytest.raises(RequestError, match="has 3 architectures, 4 different ones"):
        write_worklist(small, tmp_path / "more.json", networks=4)


def test_the_reference_agents_are_a_work_list_too(tmp_path):
    path = tmp_path / "references.json"
    write_references((64, 64, 3), 15, path)
    read = load_worklist(path)
    agents = {"impala-cnn": impala_cnn((64, 64, 3), 15), "nature-cnn": nature_cnn((64, 64, 3), 15)}
    assert list(json.loads(path.read_text())["networks"]) == list(agents)
    assert [list(network) for network in read.networks] == list(agents.values())
    assert set(read.ops) == {op for blocks in agents.values() for op in blocks}


def test_reference_models_run_and_follow_the_seed():
    models = reference_models((36, 36, 3), 4)
    assert list(models) == ["impala-cnn", "nature-cnn"] and list(reference_models(SHAPE, 4)) == ["impala-cnn"]
    other = reference_models(SHAPE, 4, seed=1)["impala-cnn"]
    assert reference_models(SHAPE, 4)["impala-cnn"] == reference_models(SHAPE, 4)["impala-cnn"] != other
    for model in models.values():
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        assert session.run(["logits"], {"frames": np.zeros((2, 36, 36, 3), np.uint8)})[0].shape == (2, 4)


def test_the_shipped_work_lists_are_those_of_the_default_space():
    space = chain_space(ChainConfig(), (64, 64, 3), 15)
    assert set(load_worklist("chain").ops) >= set(space.all_ops())
    load_builtins()
    macro = SPACES.get("macro")
    for frames, actions in (
        ((64, 64, 3), 15),
        ((10, 10, 4), 3),
        ((10, 10, 4), 5),
        ((10, 10, 7), 3),
        ((10, 10, 10), 6),
        ((10, 10, 6), 4),
    ):
        wanted = macro.build(macro.suited(frames), frames, actions, "categorical").all_ops()
        assert set(load_worklist("macro").ops) >= set(wanted)
    assert set(load_worklist("references").ops) >= {*impala_cnn((64, 64, 3), 15), *nature_cnn((64, 64, 3), 15)}


@pytest.mark.parametrize("task", ["masked", "dictionary", "factors"])
def test_a_task_with_parts_a_mask_or_several_actions_is_sampled(tmp_path, task):
    space = make_space(resolve(options={"env.name": f"own_tasks:{task}"}))
    assert space.parts or space.action_sizes
    (file,) = write_samples(space, 1, 0, tmp_path / "out")
    session = onnxruntime.InferenceSession(str(file.with_suffix(".onnx")), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ([part.name for part in space.parts] or ["observations"])
    frames = sampling._random_frames(space, 3)
    assert frames.shape == (4, *space.frame_shape) and np.array_equal(frames, sampling._random_frames(space, 3))
    for part in space.parts:
        if part.kind == "mask":
            assert (unpack(space.parts, frames)[part.name].max(axis=1) == 1).all()
