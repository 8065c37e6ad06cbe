"""Small inputs of the kind that users of this field report: what passed goes on passing, and which test stands for which case."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import old_files
import pytest
from gymnasium import spaces
from own_envs import Picture

from accel_models.layers import load_layers
from cosearch.config.run import resolve
from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import ENVIRONMENTS, EnvOptions, make_env
from cosearch.testing.conformance import check_environment
from latency_tables.devices import find_table
from latency_tables.errors import CosearchError
from latency_tables.table import load_table

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT.parent / "shared" / "cases"  # inputs that lie beside the repository on some machines, and are read in place
PAGE = (ROOT / "docs" / "evidence" / "faults.md").read_text(encoding="utf-8")


def rows():
    """Each case of the page, and the tests that it names."""
    table = PAGE.split("## Cases")[1].split("\n## ")[0]
    return {match[1]: match[2] for match in re.finditer(r"^\| `([a-z0-9-]+)` \| (.*) \|$", table, re.MULTILINE)}


def test_every_case_has_a_test_that_is_there():
    assert len(rows()) == 22
    for case, text in rows().items():
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
        assert named, case
        for path, function in named:
            assert re.search(rf"^def {function}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), (
                f"{path}::{function}"
            )


def test_every_test_of_a_kind_is_there():
    kinds = re.findall(r"^### (\d+)\. ", PAGE, re.MULTILINE)
    assert kinds == [str(i) for i in range(1, 16)]
    for path, function in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE):
        source = (ROOT / path).read_text(encoding="utf-8")
        assert not function or re.search(rf"^def {function}\(", source, re.MULTILINE), f"{path}::{function}"


def test_no_case_beside_the_repository_is_left_out():
    if not CASES.is_dir():
        pytest.skip(f"{CASES} is not there")
    assert {path.name for path in CASES.iterdir() if path.is_dir() and not path.name.startswith("_")} == set(rows())


@pytest.mark.parametrize("folder, name", [("layer-fields-ignored", "*.json"), ("layer-files-that-trace", "*")])
def test_layer_files_beside_the_repository_are_refused(folder, name):
    if not CASES.is_dir():
        pytest.skip(f"{CASES} is not there; tests/accel/test_accel_layer_files.py has files of the same kinds")
    files = [path for path in (CASES / folder).glob(name) if path.name not in ("README", "ref.json")]
    assert len(files) > 5
    for path in files:
        with pytest.raises(CosearchError):
            load_layers(path)


def test_whole_numbers_as_observations_and_a_single_action():
    class Whole(Picture):
        def __init__(self):
            super().__init__()
            self.observation_space, self.action_space = spaces.Box(-(2**40), 2**40, (3,), np.int64), spaces.Discrete(1)

        def seen(self):
            return self.np_random.integers(-(2**40), 2**40, 3)

    load_builtins()
    gymnasium.register("Whole-v0", entry_point=Whole, disable_env_checker=True)
    try:
        check_environment(ENVIRONMENTS.get("gym"), "Whole-v0", steps=20)
        assert make_env("gym:Whole-v0", EnvOptions(2, 0)).observe().dtype == np.float32
    finally:
        gymnasium.registry.pop("Whole-v0")


@pytest.mark.parametrize("game", ["Hopper-v5", "InvertedPendulum-v5"])
def test_mujoco_replays_where_it_is_installed(game):
    pytest.importorskip("mujoco", reason="mujoco is not installed (pip install mujoco)")
    load_builtins()
    check_environment(ENVIRONMENTS.get("gym"), game, steps=60)


@pytest.mark.parametrize("name", ["t.txt", "t.JSONL", "my table"])
@pytest.mark.parametrize("change", ["as it is", "CRLF", "without a last line end"])
def test_tables_of_any_name_and_line_end(name, change, tmp_path):
    shipped = find_table("jetson")
    data = shipped.path.read_bytes()
    (tmp_path / name).write_bytes({"as it is": data, "CRLF": data.replace(b"\n", b"\r\n")}.get(change, data.rstrip(b"\n")))
    assert load_table(tmp_path / name).table_id == shipped.table_id


def test_a_configuration_of_a_windows_editor_is_read(tmp_path):
    (tmp_path / "c.toml").write_bytes(b"threads = 3\r\n\r\n[rl]\r\nlr = 0.25\r\n")
    config = resolve(file=tmp_path / "c.toml")
    assert (config.threads, config.rl.lr) == (3, 0.25)


@pytest.mark.slow
@pytest.mark.parametrize("left_out", [(), ("HOME", "TERM", "USER", "LOGNAME", "LANG")])
def test_a_run_folder_of_any_name_in_a_narrow_terminal(left_out, tmp_path):
    """Renamed, moved, spaces and umlauts in its path, 20 columns, no home."""
    old_files.unpacked(old_files.FOLDERS[-1], tmp_path / "there")
    folder = tmp_path / "ein Ordner für Läufe" / "mein Lauf"
    folder.parent.mkdir()
    shutil.move(tmp_path / "there" / "runs" / "finished", folder)
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    environment |= {"COLUMNS": "20", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "cosearch", "report", str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr and (folder / "report.html").stat().st_size > 10_000, (
        done.stderr
    )
