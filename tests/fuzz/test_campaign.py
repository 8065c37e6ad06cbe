"""Ten minutes of the coverage-guided fuzzer over all readers, and that it finds what is there to find."""

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).with_name("campaign.py")
SECONDS = 600.0


def campaign(*words):
    return subprocess.run([sys.executable, str(CAMPAIGN), *map(str, words)], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_ten_minutes_find_no_fault(tmp_path):
    pytest.importorskip("atheris", reason="the extra fuzz is not installed")
    done = campaign("--folder", tmp_path, "--seconds", SECONDS)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    executions = [line.split("|")[2] for line in done.stdout.splitlines() if line.startswith("| `")]
    assert len(executions) > 40 and all(int(count.replace(",", "")) > 0 for count in executions), done.stdout


@pytest.mark.slow
def test_a_fault_is_found_and_kept(tmp_path):
    """A reader that lets one error of Python through: the campaign ends with 1 and keeps the content."""
    pytest.importorskip("atheris", reason="the extra fuzz is not installed")
    support = Path(__file__).parents[1] / "support"
    copy = tmp_path / "copy"
    (copy / "tests").mkdir(parents=True)
    (copy / "tests" / "support").symlink_to(support)
    (copy / "tests" / "fuzz").mkdir()
    for name in ("cosearch", "latency_tables", "accel_models"):
        (copy / name).symlink_to(Path(__file__).parents[2] / name)
    text = CAMPAIGN.read_text(encoding="utf-8")
    broken = text.replace(
        "            outcome(reader, content)\n        except", "            {}[outcome(reader, content)]\n        except"
    )
    assert broken != text
    program = copy / "tests" / "fuzz" / "campaign.py"
    program.write_text(broken, encoding="utf-8")
    words = ("--folder", str(tmp_path / "work"), "--seconds", "5", "--reader", "tvm-target.json")
    done = subprocess.run([sys.executable, str(program), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    kept = [path.name for path in (tmp_path / "work" / "tvm-target.json" / "faults").iterdir()]
    assert any(name.startswith("KeyError") for name in kept) and any(name.endswith(".txt") for name in kept)
