"""The commands of the documents are run as they are written; their links and their claims about files hold."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md") if path.is_file()]
DOCUMENTS += sorted(ROOT.glob("cosearch/*/README.md"))


def guide_commands() -> list[str]:
    """The commands of the README's guide, without comments."""
    block = re.search(r"## Guide\n+```bash\n(.*?)```", README, re.DOTALL).group(1)
    return [line.split("#")[0].strip() for line in block.splitlines() if line.strip()]


@pytest.mark.timeout(900)
def test_the_guide_runs_as_written(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = guide_commands()
    assert len(commands) >= 8
    for command in commands:
        words = shlex.split(command)
        assert words[:2] == ["python", "-m"], command
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    run = tmp_path / "runs" / "first"
    for name in ("run.json", "metrics.jsonl", "architecture.json", "agent.onnx", "agent.json", "summary.json", "report.html"):
        assert (run / name).stat().st_size > 0, name
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    contract = {
        "score_mean",
        "score_ci95",
        "episodes",
        "teacher_score_mean",
        "latency_predicted_s",
        "latency_measured_s",
        "latency_target_s",
        "target_met",
        "table_provenance",
        "params",
        "macs",
        "env_steps",
        "wall_s",
    }
    assert contract <= set(summary)
    assert summary["target_met"] is True and summary["table_provenance"] == "estimated"


def test_the_install_commands_are_the_ones_that_are_tested():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "pip install torch==2.13.0" in README and "torch==2.13.0" in script
    assert "'.[test]'" in README and "'.[test]'" in script
    assert '-m "not slow"' in README and '-m "not slow"' in script


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
