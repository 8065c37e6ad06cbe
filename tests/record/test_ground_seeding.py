"""Random streams: known digests, independence, resume, and the untouched global generators."""

import hashlib
import io
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cosearch.seeding import STREAMS, Streams, derived_seed
from latency_tables.errors import ConfigError, UnknownNameError

ROOT = Path(__file__).resolve().parents[2]


def test_derived_seeds_are_the_leading_bits_of_sha256():
    digest = hashlib.sha256(b"7:torch:arch").hexdigest()  # hex digits: 4 bits each, so no shared arithmetic
    assert derived_seed(7, "torch:arch", 64) == int(digest[:16], 16)
    assert derived_seed(7, "torch:arch", 256) == int(digest, 16)
    assert Streams(7).torch("arch").initial_seed() == int(digest[:16], 16) // 2


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_streams_differ_by_name_and_by_seed(kind):
    def draw(seed, name):
        stream = getattr(Streams(seed), kind)(name)
        return tuple((torch.rand(4, generator=stream) if kind == "torch" else stream.random(4)).tolist())

    draws = {draw(seed, name) for seed in (0, 1, 2) for name in STREAMS}
    assert len(draws) == 3 * len(STREAMS)
    assert draw(1, "env") == draw(1, "env")


def test_a_stream_goes_on_and_leaves_the_others_alone():
    one, two = Streams(3), Streams(3)
    first = torch.rand(4, generator=one.torch("arch"))
    assert not torch.equal(first, torch.rand(4, generator=one.torch("arch")))
    assert torch.equal(torch.rand(4, generator=one.torch("actions")), torch.rand(4, generator=two.torch("actions")))
    assert np.array_equal(one.numpy("arch").random(4), two.numpy("arch").random(4))


def test_a_later_stream_does_not_move_the_old_ones():
    few, many = Streams(3, ("env",)), Streams(3, ("first", "env", "last"))
    assert torch.equal(torch.rand(4, generator=few.torch("env")), torch.rand(4, generator=many.torch("env")))


def test_plain_seeds_fit_31_bits_and_do_not_repeat():
    streams = Streams(5)
    seeds = [streams.derive(name, index) for name in STREAMS for index in range(100)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds) and max(seeds) >= 2**30
    assert streams.derive("env") == streams.derive("env", 0) != Streams(6).derive("env")


def test_the_same_in_another_process():
    code = (
        "import torch; from cosearch.seeding import Streams; s = Streams(11); "
        "print(s.derive('env'), torch.rand(3, generator=s.torch('arch')).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    streams = Streams(11)
    assert done.stdout.strip() == f"{streams.derive('env')} {torch.rand(3, generator=streams.torch('arch')).tolist()}"


def test_a_saved_state_goes_on_as_if_nothing_had_happened():
    streams = Streams(2)
    for name in STREAMS:
        torch.randn(3, generator=streams.torch(name))
        streams.numpy(name).integers(0, 9, 3, dtype=np.int32)  # leaves half a word in the generator
    file = io.BytesIO()
    torch.save(streams.state_dict(), file)
    expected = [
        (torch.randn(3, generator=streams.torch(n)).tolist(), streams.numpy(n).integers(0, 99, 3, dtype=np.int32).tolist())
        for n in STREAMS
    ]
    file.seek(0)
    resumed = Streams(2)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    found = [
        (torch.randn(3, generator=resumed.torch(n)).tolist(), resumed.numpy(n).integers(0, 99, 3, dtype=np.int32).tolist())
        for n in STREAMS
    ]
    assert found == expected
    fresh = Streams(2)
    assert torch.randn(3, generator=fresh.torch("env")).tolist() != expected[0][0]  # so the load was not idle


@pytest.mark.parametrize(
    "other, message", [(Streams(3), "belong to seed 3, this run has seed 2"), (Streams(2, ("env",)), "streams are env;")]
)
def test_a_foreign_state_is_refused_and_changes_nothing(other, message):
    streams, twin = Streams(2), Streams(2)
    with pytest.raises(ConfigError, match=message):
        streams.load_state_dict(other.state_dict())
    assert torch.equal(streams.torch("env").get_state(), twin.torch("env").get_state())


def test_the_global_generators_are_untouched():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002  the subject here
    streams = Streams(1)
    torch.rand(3, generator=streams.torch("env"))
    streams.numpy("env").random(3)
    with streams.as_global("weights"):
        torch.rand(3)
    with pytest.raises(ZeroDivisionError), streams.as_global("weights"):
        torch.rand(3 // 0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002


def test_a_lent_stream_makes_the_same_layers_and_moves_on():
    streams, twin = Streams(1), Streams(1)
    with streams.as_global("weights"):
        one = torch.nn.Linear(3, 3).weight
    torch.rand(5)  # elsewhere, on the global generator
    with twin.as_global("weights"):
        same = torch.nn.Linear(3, 3).weight
    with twin.as_global("weights"):
        next_one = torch.nn.Linear(3, 3).weight
    assert torch.equal(one, same) and not torch.equal(one, next_one)


@pytest.mark.parametrize("use", [lambda s: s.torch("wieghts"), lambda s: s.numpy("wieghts"), lambda s: s.derive("wieghts")])
def test_an_unknown_stream_is_refused(use):
    with pytest.raises(UnknownNameError, match=r"unknown random stream 'wieghts'\. Did you mean 'weights'\?"):
        use(Streams(0))


@pytest.mark.parametrize("seed", [-1, 1.5, "3", True, None])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ConfigError, match="whole number of at least 0"):
        Streams(seed)
