"""A made-up run folder for the tests of the report: every file of the contract, with plausible figures.

Nothing here was ever trained; no figure may be quoted. ``make_run`` writes the whole folder, and a test takes away or
changes what it needs.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from latency_tables.opspec import OpSpec

CANDIDATES = [
    "conv_k3",
    "conv_k5",
    "mbconv_k3_e1",
    "mbconv_k3_e3",
    "mbconv_k3_e5",
    "mbconv_k5_e1",
    "mbconv_k5_e3",
    "mbconv_k5_e5",
    "skip",
]
POINTS = [f"stage{stage}.{cell}" for stage in (1, 2, 3) for cell in (1, 2, 3)]
CHOICES = [3, 8, 2, 4, 2, 8, 7, 3, 8]
TARGET_S = 4.0e-3
SEARCH_STEPS, RETRAIN_STEPS, PER_LINE = 400_000, 600_000, 4096


def operations() -> list[dict[str, Any]]:
    """Stem, the active cells and the head, with a latency of 0.08 ms + 1 s for 8 GMAC."""
    specs: list[tuple[int | None, OpSpec]] = [(None, OpSpec("stem", 3, 64, 64, 16, 3, 2, 1))]
    channels, size = 16, 32
    for index, choice in enumerate(CHOICES):
        first, width = index % 3 == 0, (16, 32, 64)[index // 3]
        stride = 2 if first and index else 1
        name = CANDIDATES[choice]
        if name != "skip":
            kernel, expansion = int(name.split("_")[1][1]), int(name[-1]) if name.startswith("mbconv") else 1
            kind = "mbconv" if name.startswith("mbconv") else "conv"
            spec = OpSpec(kind, channels, size, size, width, kernel, stride, kernel // 2, expansion=expansion)
            specs.append((index, spec))
            channels, size = width, spec.out_height
    specs.append((None, OpSpec("head", channels, size, size, 16, hidden=256)))
    return [
        {
            "key": spec.key,
            "latency_s": 8e-5 + spec.macs / 8e9,
            "energy_j": None,
            "macs": spec.macs,
            "params": spec.params,
            "choice": index,
        }
        for index, spec in specs
    ]


def metric_lines(seed: int = 3) -> list[dict[str, Any]]:
    """Search, three control candidates and retraining, one line for every 4096 steps."""
    random, lines, wall = np.random.default_rng(seed), [], 0.0
    logits = np.zeros((len(POINTS), len(CANDIDATES)))
    for step in range(PER_LINE, SEARCH_STEPS + 1, PER_LINE):
        done = step / SEARCH_STEPS
        wall += 2.4
        for row, choice in enumerate(CHOICES):
            logits[row] += random.normal(0, 0.04, len(CANDIDATES))
            logits[row, choice] += 0.055
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        lines.append(
            _line("search", step, wall, done, random, score=2 + 9 * (1 - math.exp(-2.6 * done)))
            | {
                "temperature": 5.0 * 0.15**done,
                "arch_entropy": float(-(p * np.log(p)).sum(1).mean()),
                "latency_expected_s": 3.4e-3 + 3.9e-3 * math.exp(-4 * done) + random.normal(0, 5e-5),
                "latency_argmax_s": 3.3e-3 + 3e-3 * math.exp(-5 * done) * random.uniform(0.6, 1.3),
                "energy_expected_j": None,
                "cost_multiplier": 0.2 + done,
                "arch_probabilities": p.round(4).tolist(),
            }
        )
    for candidate in range(3):
        for step in range(PER_LINE, 120_000, PER_LINE * 2):
            wall += 1.1
            lines.append(
                _line("control", step, wall, step / 1.2e5, random, score=2 + (3 + candidate) * step / 1.2e5)
                | {"candidate": f"c{candidate}", "latency_argmax_s": (2.6e-3, 3.7e-3, 3.1e-3)[candidate]}
            )
    for step in range(PER_LINE, RETRAIN_STEPS + 1, PER_LINE):
        done = step / RETRAIN_STEPS
        wall += 1.3
        line = _line("retrain", step, wall, done, random, score=2 + 13 * (1 - math.exp(-3.5 * done)))
        if (step // PER_LINE) % 24 == 0:
            line |= {
                "score_eval": line["score_train"] - 0.4,
                "score_eval_ci95_low": line["score_train"] - 1.5,
                "score_eval_ci95_high": line["score_train"] + 0.7,
            }
        lines.append(line)
    return lines


def _line(stage: str, step: int, wall: float, done: float, random: np.random.Generator, score: float) -> dict[str, Any]:
    return {
        "stage": stage,
        "step": step,
        "wall_s": wall,
        "score_train": float(score + random.normal(0, 0.35)),
        "episodes": int(step / 300),
        "loss_policy": float(random.normal(-0.01, 0.004)),
        "loss_value": float(0.4 * (1 - 0.6 * done) + random.normal(0, 0.02)),
        "entropy": 2.7 - 1.4 * done,
        "kl_policy": float(abs(random.normal(0.01, 0.003))),
        "clip_fraction": 0.1 + 0.05 * done,
        "explained_variance": 0.9 * (1 - math.exp(-5 * done)),
        "grad_norm": float(abs(random.normal(0.6, 0.1))),
        "lr": 5e-4 * (1 - done),
        "distill_actor": float(1.4 * math.exp(-3 * done) + abs(random.normal(0.05, 0.01))),
        "distill_critic": float(0.5 * math.exp(-2.5 * done) + abs(random.normal(0.02, 0.005))),
        "distill_weight": 1 - 0.9 * done,
        "teacher_agreement": 0.15 + 0.6 * (1 - math.exp(-3 * done)),
        "steps_per_s": float(random.normal(1650, 60)),
    }


def make_run(path: Path) -> Path:
    """Write a finished run folder at ``path`` (created) and return it."""
    path.mkdir(parents=True)
    ops = operations()
    predicted = sum(op["latency_s"] for op in ops) + 2.5e-4
    summary = {
        "score_mean": 14.2,
        "score_ci95": [13.1, 15.3],
        "episodes": 400,
        "teacher_score_mean": 15.1,
        "latency_predicted_s": predicted,
        "latency_measured_s": 1.21e-3,
        "latency_target_s": TARGET_S,
        "target_met": True,
        "table_provenance": "estimated",
        "params": sum(op["params"] for op in ops),
        "macs": sum(op["macs"] for op in ops),
        "env_steps": SEARCH_STEPS + RETRAIN_STEPS,
        "wall_s": 612.4,
        "reference_agents": [
            {
                "name": "IMPALA-CNN",
                "latency_predicted_s": 9.6e-3,
                "latency_measured_s": 3.9e-3,
                "params": 626_000,
                "macs": 42_000_000,
            },
            {
                "name": "Nature-CNN",
                "latency_predicted_s": 2.7e-3,
                "latency_measured_s": 0.9e-3,
                "params": 1_690_000,
                "macs": 8_900_000,
            },
        ],
        "control": {
            "score_mean": 10.9,
            "score_ci95": [9.8, 12.0],
            "env_steps": SEARCH_STEPS,
            "latency_predicted_s": 3.1e-3,
            "candidates": [
                {"score_mean": s, "latency_predicted_s": t}
                for s, t in ((7.1, 2.6e-3), (10.9, 3.1e-3), (8.8, 3.7e-3), (6.2, 2.9e-3))
            ],
        },
    }
    agent = {
        "parity": {"max_abs_difference": 4.1e-7, "greedy_agreement": 1.0, "observations": 512, "tolerance": 1e-4},
        "inputs": [{"name": "frames", "dtype": "uint8", "shape": ["batch", 64, 64, 3]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 15]}],
        "latency": {
            "predicted_s": predicted,
            "predicted_provenance": "estimated",
            "measured": {
                "p50_s": 1.21e-3,
                "p90_s": 1.3e-3,
                "p99_s": 1.72e-3,
                "device": "this machine",
                "runtime": "onnxruntime",
                "threads": 1,
            },
            "paced": {"period_s": 0.02, "p50_s": 1.55e-3, "p99_s": 2.6e-3, "missed": 0},
        },
    }
    write_json(
        path / "run.json",
        {
            "name": "starpilot-jetson",
            "command": "python -m cosearch --device jetson --target-ms 4",
            "created_utc": "2026-01-02T03:04:05Z",
            "config": {
                "env": {"name": "procgen:starpilot", "levels": 0},
                "search": {"strategy": "a3cs", "env_steps": SEARCH_STEPS},
            },
            "seed": 7,
            "versions": {"cosearch": "0.1.0", "torch": "2.13.0", "onnxruntime": "1.31.1"},
            "device": {
                "name": "jetson",
                "description": "small board with a GPU",
                "runtime": "onnxruntime",
                "dtype": "float32",
                "threads": 1,
            },
            "table": {"table_id": "9f31c2", "provenance": "estimated", "path": "latency_tables/jetson/roofline-float32-1t.jsonl"},
            "teacher": {
                "name": "starpilot-impala",
                "score_mean": 15.1,
                "score_ci95": [14.3, 15.9],
                "steps": 25_000_000,
                "network": "IMPALA",
            },
        },
    )
    write_json(
        path / "architecture.json",
        {
            "space": "chain",
            "choices": CHOICES,
            "point_names": POINTS,
            "choice_names": [CANDIDATES[choice] for choice in CHOICES],
            "candidate_names": [CANDIDATES] * len(POINTS),
            "operations": ops,
            "predicted": {"latency_s": predicted, "energy_j": None, "provenance": "estimated"},
            "derived_by": {"method": "exact", "latency_bound_s": TARGET_S},
        },
    )
    write_json(path / "agent.json", agent)
    write_json(path / "summary.json", summary)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metric_lines()), encoding="utf-8")
    (path / "clip.gif").write_bytes(clip_bytes())
    return path


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write one JSON file."""
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def change(path: Path, name: str, /, **values: Any) -> None:
    """Replace top-level keys of a JSON file of the run."""
    content = json.loads((path / name).read_text(encoding="utf-8"))
    write_json(path / name, content | values)


def clip_bytes() -> bytes:
    """Eight frames of a square that moves."""
    frames = []
    for frame in range(8):
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[28:36, 6 * frame : 6 * frame + 8] = (90, 200, 210)
        frames.append(Image.fromarray(pixels))
    buffer = io.BytesIO()
    frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:], duration=90, loop=0)
    return buffer.getvalue()
