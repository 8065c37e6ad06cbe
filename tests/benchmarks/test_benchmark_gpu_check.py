"""The prepared check of a GPU: without one it says so; what would be wrong on one is found."""

import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from cosearch.benchmarks.speed import gpu_check
from cosearch.benchmarks.speed.gpu_check import Outcome, compared, gradient_of, speed
from cosearch.planning.builtins import load_builtins

APP = typer.Typer()
APP.command()(gpu_check.main)
REFERENCE = Outcome({"loss": 2.0, "small": 0.001}, torch.tensor([3.0, 4.0], dtype=torch.float64))


@pytest.fixture
def quick(monkeypatch):
    """No timing: each workload has a made-up speed."""
    made_up = lambda name, compute, seconds: gpu_check.Speed(name, compute, 1000.0, 2**20)  # noqa: E731
    monkeypatch.setattr(gpu_check, "speed", made_up)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_cpus_part_is_run_and_it_says_so(quick):
    done = CliRunner().invoke(APP, ["--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["gpu"] is None and "no GPU" in found["note"] and found["passed"] is True
    assert [(row["part"], row["compute"], row["dtype"]) for row in found["checks"]] == [
        (part, "cpu", "bfloat16") for part in ("supernet", "ppo", "dqn")
    ]
    assert all(0.0 < row["gradient_difference"] < 0.15 and row["loss_difference"] > 0.0 for row in found["checks"])
    assert [row["workload"] for row in found["speeds"]] == ["impala-procgen", "nature-procgen", "small-minatar"]
    text = CliRunner().invoke(APP, ["--only", "small-minatar"]).stdout
    assert text.startswith("torch sees no GPU") and "small-minatar   cpu   1,000 environment steps/s, peak memory 1 MiB" in text


@pytest.mark.parametrize("wrong", ["loss", "gradient", None])
def test_a_wrong_gpu_is_found_and_ends_with_1(wrong, quick, monkeypatch):
    """A GPU made up: one part gives another loss, or another gradient, there."""

    def part(device, bf16):
        off = 1.0 + (0.002 if device.type == "cuda" and not bf16 else 0.0)
        loss, gradient = off if wrong == "loss" else 1.0, off if wrong == "gradient" else 1.0
        return Outcome({"loss": 2.0 * loss}, REFERENCE.gradient * gradient)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_check, "PARTS", {"part": part})
    card = type("Card", (), {"name": "made up", "total_memory": 2**34})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    done = CliRunner().invoke(APP, ["--json"])
    found = json.loads(done.stdout)
    assert found["gpu"] == {"name": "made up", "memory_bytes": 2**34} and found["note"] == ""
    assert [(row["compute"], row["dtype"]) for row in found["checks"]] == [
        ("cpu", "bfloat16"),
        ("cuda", "float32"),
        ("cuda", "bfloat16"),
    ]
    assert [row["passed"] for row in found["checks"]] == [True, wrong is None, True]
    assert [row["compute"] for row in found["speeds"]] == ["cuda"] * 3 + ["cpu"] * 3
    assert found["passed"] is (wrong is None) and done.exit_code == (0 if wrong is None else 1)


def test_differences_are_relative_and_small_losses_are_not_blown_up():
    found = Outcome({"loss": 2.2, "small": 0.002}, torch.tensor([3.0, 4.5], dtype=torch.float64))
    check = compared("ppo", "cuda", "float32", found, REFERENCE)
    assert check.loss_difference == pytest.approx(0.1) and check.gradient_difference == pytest.approx(0.1) and not check.passed
    same = compared("ppo", "cuda", "float32", REFERENCE, REFERENCE)
    assert same.passed and same.loss_difference == same.gradient_difference == 0.0


def test_the_supernets_part_reaches_every_active_weight_and_gate():
    load_builtins()
    found = gpu_check.supernet_part(torch.device("cpu"), False)
    points = 7  # of the default space on Procgen's frames, with two gates each
    gates = found.gradient[-2 * points :]
    assert (gates != 0).all() and set(found.losses) == {"policy", "value"}
    assert found.losses["policy"] == pytest.approx(np.log(15), rel=0.1)  # an untrained policy is nearly uniform


def test_a_gradient_is_flat_with_zeros_for_unused_weights():
    layer = torch.nn.Linear(2, 1)
    layer.weight.grad = torch.tensor([[1.0, 2.0]])
    assert gradient_of(layer).tolist() == [1.0, 2.0, 0.0]


def test_a_missing_extra_has_no_speed_but_a_reason(monkeypatch):
    def missing(*args, **kwargs):
        raise gpu_check.MissingExtraError("pip install 'cosearch[minatar]'")

    monkeypatch.setattr(gpu_check, "OwnPpo", missing)
    found = speed("small-minatar", "cpu", 0.0)
    assert found.steps_per_s is None and "minatar" in found.note
    made = gpu_check.Report(None, "none", "", "", True, {}, [], [found], 0.0)
    assert "small-minatar   cpu   pip install" in "\n".join(gpu_check.lines_of(made))


def test_a_speed_counts_the_steps_of_whole_updates(monkeypatch):
    calls = []

    class Contestant:
        def __init__(self, workload, seed, threads, compute):
            calls.append((workload.rollout_steps, workload.minibatch, compute))

        def advance(self):
            calls.append("advance")

        def close(self):
            calls.append("close")

    ticks = iter([0.0, 0.5, 1.0, 2.0])
    monkeypatch.setattr(gpu_check, "OwnPpo", Contestant)
    monkeypatch.setattr(gpu_check.time, "perf_counter", lambda: next(ticks))
    found = speed("impala-procgen", "cpu", 1.0)  # begins at 0, asked at 0.5 and at 1, ended at 2
    assert calls == [(32, 2048, "cpu"), "advance", "advance", "advance", "close"]
    assert found.steps_per_s == pytest.approx(2 * 64 * 32 / 2.0) and found.peak_memory_bytes > 2**20


def test_an_unknown_workload_is_refused():
    assert "expected workloads of impala-procgen" in CliRunner().invoke(APP, ["--only", "atari"]).output.replace("\n", " ")
