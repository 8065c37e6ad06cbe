"""The tabular benchmark and a board's table, as pieces of work for a cluster; the engine here does them in this process."""

import json
import sys

import pytest
from here_cluster import HereCluster

from cosearch.bench import generate, settings
from cosearch.deploy import on_cluster
from latency_tables.errors import MeasurementError


def test_the_benchmark_is_extended_by_a_cluster_and_a_lost_network_is_tried_by_the_next_command(tmp_path, monkeypatch):
    (task, *_) = settings.TASKS

    def train(task, index):
        return [json.dumps({"network": index, "seed": seed, "score": 1.0}) for seed in settings.SEEDS]

    monkeypatch.setattr(generate, "train_network", train)
    told = []
    assert generate.extend_on_cluster(tmp_path / "bench", [task], told.append, HereCluster(loses=3), 4) == 3
    first = generate.order(len(settings.architectures(settings.make_space(task))))[:4]
    lines = generate.finished_lines(tmp_path / "bench", task)
    assert generate.finished_networks(lines) == {*first[:2], first[3]} and len(lines) == 3 * len(settings.SEEDS)
    assert any(f"network {first[2]} is left out: its process died" in line for line in told)
    cluster = HereCluster()
    assert generate.extend_on_cluster(tmp_path / "bench", [task], told.append, cluster, 1) == 1
    assert cluster.made.works[0].job == (task, first[2]) and cluster.made.works[-1] is None


def test_a_table_is_measured_where_the_board_is_and_written_here(tmp_path, monkeypatch):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nwords = sys.argv[sys.argv.index('measure') + 1:]\nprint('round 1')\n"
        "if '--fail' in words: sys.exit(1)\nopen(words[words.index('--out') + 1], 'w').write(' '.join(words[2:]))\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(on_cluster.sys, "executable", str(python))
    cluster, told = HereCluster(), []
    on_cluster.measure_on(cluster, "pixel-3", ["--device", "pixel-3"], tmp_path / "t.jsonl", told.append)
    assert (tmp_path / "t.jsonl").read_text() == "--device pixel-3" and told == ["round 1"]
    assert cluster.made.works[0].needs.board == "pixel-3"
    with pytest.raises(MeasurementError, match=r"latency_tables measure failed on .*round 1"):
        on_cluster.measure_on(HereCluster(), "pixel-3", ["--fail"], tmp_path / "u.jsonl", told.append)
    assert not (tmp_path / "u.jsonl").exists()
