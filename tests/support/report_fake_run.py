"""A made-up run folder for the tests of the report: every file of the contract, with plausible figures.

Nothing here was ever trained; no figure may be quoted. ``make_run`` writes the whole folder, and a test takes away or
changes what it needs.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cosearch.record.json_record import from_json, to_json
from cosearch.record.results.agent import AgentRecord, LatencyRecord, MeasuredLatency, PacedLatency, ParityRecord, TensorRecord
from cosearch.record.results.architecture import ArchitectureRecord, CandidateRecord, OperationRecord, PredictedCosts
from cosearch.record.results.summary import ControlRecord, ReferenceAgent, Summary
from cosearch.record.run_record import (
    DeviceRecord,
    ReferenceRecord,
    RunRecord,
    SpaceRecord,
    TableRecord,
    TargetRecord,
    TeacherIdentity,
)
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.space import Architecture

CHAIN = ChainConfig(
    stem_channels=16,
    stem_kernel=3,
    stem_stride=2,
    stage_channels=(16, 32, 64),
    stage_repeats=(3, 3, 3),
    stage_strides=(1, 2, 2),
    hidden=256,
)
SPACE = chain_space(CHAIN, (64, 64, 3), 15)
CHOICES = [3, 8, 2, 4, 2, 8, 7, 3, 8]
ARCHITECTURE = SPACE.architecture(CHOICES)
POINTS = [point.name for point in SPACE.points]
CANDIDATES = SPACE.points[0].candidates
TARGET_S = 4.0e-3
SEARCH_STEPS, RETRAIN_STEPS, PER_LINE = 400_000, 600_000, 4096


def operations() -> tuple[OperationRecord, ...]:
    """Stem, the active cells and the head, with a latency of 0.08 ms + 1 s for 8 GMAC."""
    return tuple(
        OperationRecord(key=op.key, latency_s=8e-5 + op.macs / 8e9, energy_j=None, macs=op.macs, params=op.params)
        for op in ARCHITECTURE.ops()
    )


def architecture_record(
    architecture: Architecture, operations: Sequence[OperationRecord], overhead_s: float = 2.5e-4
) -> ArchitectureRecord:
    """``architecture.json`` of an architecture whose operations cost this."""
    predicted = PredictedCosts(
        latency_s=sum(operation.latency_s for operation in operations) + overhead_s,
        energy_j=None,
        overhead_s=overhead_s,
        interval_s=None,
        provenance="estimated",
        device="jetson",
        operations=tuple(operations),
    )
    content = {
        **architecture.to_dict(),
        "candidate_names": [list(point.candidates) for point in architecture.space.points],
        "predicted": to_json(predicted),
        "derived_by": {"method": "exact"},
    }
    return from_json(ArchitectureRecord, content, "made up")


def metric_lines(seed: int = 3) -> list[dict[str, Any]]:
    """Search and retraining, one line for every 4096 steps."""
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
    architecture = architecture_record(ARCHITECTURE, operations())
    predicted_s, blocks = architecture.predicted.latency_s, ARCHITECTURE.ops()
    references = {
        "IMPALA-CNN": ReferenceRecord(latency_predicted_s=9.6e-3, params=626_000, macs=42_000_000),
        "Nature-CNN": ReferenceRecord(latency_predicted_s=2.7e-3, params=1_690_000, macs=8_900_000),
    }
    summary = Summary(
        score_mean=14.2,
        score_ci95=(13.1, 15.3),
        episodes=400,
        teacher_score_mean=15.1,
        teacher_score_ci95=(14.3, 15.9),
        share_of_teacher=14.2 / 15.1,
        latency_predicted_s=predicted_s,
        latency_predicted_for="jetson",
        latency_measured_s=1.21e-3,
        latency_measured_on="this machine",
        latency_target_s=TARGET_S,
        target_met=True,
        target_checked_by="estimated table",
        table_provenance="estimated",
        params=sum(op.params for op in blocks),
        macs=sum(op.macs for op in blocks),
        env_steps=SEARCH_STEPS + RETRAIN_STEPS,
        wall_s=612.4,
        strategy="a3cs",
        seed=7,
        reference_agents=tuple(
            ReferenceAgent(
                name=name,
                latency_predicted_s=reference.latency_predicted_s,
                params=reference.params,
                macs=reference.macs,
                latency_measured_s=measured_s,
                predicted_ratio=predicted_s / reference.latency_predicted_s,
                measured_ratio=1.21e-3 / measured_s,
            )
            for (name, reference), measured_s in zip(references.items(), (3.9e-3, 0.9e-3))
        ),
        control=ControlRecord(
            score_mean=10.9,
            score_ci95=(9.8, 12.0),
            env_steps=SEARCH_STEPS,
            latency_predicted_s=3.1e-3,
            seed=7,
            candidates=tuple(
                CandidateRecord(choices=tuple(CHOICES), score=score, latency_s=latency_s, env_steps=SEARCH_STEPS // 4)
                for score, latency_s in ((7.1, 2.6e-3), (10.9, 3.1e-3), (8.8, 3.7e-3), (6.2, 2.9e-3))
            ),
        ),
    )
    record = RunRecord(
        name="starpilot-jetson",
        created_utc="2026-01-02T03:04:05Z",
        command="python -m cosearch --device jetson --target-ms 4",
        config={"env": {"name": "procgen:starpilot", "num_envs": 64}, "strategy": {"name": "a3cs"}},
        seed=7,
        versions={"cosearch": "0.1.0", "torch": "2.13.0", "onnxruntime": "1.31.1"},
        device=DeviceRecord(
            name="jetson", description="small board with a GPU", runtime="onnxruntime", dtype="float32", threads=1
        ),
        table=TableRecord(table_id="9f31c2", provenance="estimated", path="jetson/roofline-float32-1t.jsonl"),
        teacher=TeacherIdentity(
            name="starpilot-impala",
            network="IMPALA",
            score_mean=15.1,
            score_ci95=(14.3, 15.9),
            provenance={"steps": 25_000_000},
        ),
        targets=(TargetRecord(metric="latency_s", value=TARGET_S, margin=0.0),),
        references=references,
        space=SpaceRecord(name="chain", config={}, size=9**9, frame_shape=(64, 64, 3), num_actions=15),
    )
    for file in (record, architecture, agent_record(predicted_s), summary):
        write_json(path / file.FILE, to_json(file))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metric_lines()), encoding="utf-8")
    (path / "clip.gif").write_bytes(clip_bytes())
    return path


def agent_record(predicted_s: float) -> AgentRecord:
    """``agent.json`` of an agent that was timed on this machine."""
    measured = MeasuredLatency(
        p50_s=1.21e-3,
        p90_s=1.3e-3,
        p99_s=1.72e-3,
        min_s=1.1e-3,
        worst_p99_s=2.0e-3,
        samples=2000,
        clean_share=0.99,
        rounds=5,
        device="this machine",
        runtime="onnxruntime",
        runtime_version="1.31.1",
        threads=1,
        statistic="median over rounds",
    )
    paced = PacedLatency(max_s=3e-3, missed=0, p50_s=1.55e-3, p90_s=2e-3, p99_s=2.6e-3, period_s=0.02, samples=125)
    parity = ParityRecord(
        max_abs_difference=4.1e-7,
        greedy_agreement=1.0,
        rounding_ties=0,
        observations=512,
        tolerance=1e-4,
        batch_sizes=(1, 7),
        opset=17,
        bytes=745_643,
        sha256="e09c",
    )
    return AgentRecord(
        parity=parity,
        inputs=(TensorRecord(name="frames", dtype="uint8", shape=("batch", 64, 64, 3)),),
        outputs=(TensorRecord(name="logits", dtype="float32", shape=("batch", 15)),),
        preprocessing="inside the graph",
        latency=LatencyRecord(
            predicted_s=predicted_s,
            predicted_provenance="estimated",
            predicted_for="jetson",
            measured=measured,
            paced=paced,
            conditions={},
        ),
        architecture=tuple(ARCHITECTURE.choice_names),
    )


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write one JSON file."""
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def change(path: Path, name: str, /, **values: Any) -> None:
    """Replace keys of a JSON file of the run; ``a__b`` is the key ``b`` of the object ``a``."""
    content = json.loads((path / name).read_text(encoding="utf-8"))
    for key, value in values.items():
        *above, last = key.split("__")
        place = content
        for step in above:
            place = place[step]
        place[last] = value
    write_json(path / name, content)


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
