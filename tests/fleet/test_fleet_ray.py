"""The engine on Ray: conformance, and what listens. Starting Ray takes a while: slow, and only where Ray is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import sys
from pathlib import Path
from cosearch.fleet.ray_engine import RayEngine
from cosearch.testing.engine_conformance import check_engine

check_engine(lambda: RayEngine("local", most=2), Path(sys.argv[1]))
print("conforms")
"""


def test_ray_is_an_engine(tmp_path):
    words = [sys.executable, "-c", CHILD, str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.stdout.strip() == "conforms", done.stdout + done.stderr


LISTENS = """
from contextlib import closing
from cosearch.benchmarks.workers.cluster_runs import descendants, processes
from cosearch.fleet.ray_engine import RayEngine
from cosearch.fleet.work import Needs, Work
from cosearch.testing.engine_conformance import obey
from latency_tables.errors import RequestError
from pathlib import Path

with closing(RayEngine("local", most=1)) as engine:
    engine.submit(Work("one", obey, ("send", 1)))
    while engine.next(60.0) is not None:
        pass
    try:
        engine.submit(Work("two", obey, ("send", 1), Needs(board="none")))
    except RequestError as error:
        print(error)
    sockets = set()
    for pid in descendants(processes()):
        for file in Path(f"/proc/{pid}/fd").glob("*"):
            target = str(file.readlink()) if file.is_symlink() else ""
            if target.startswith("socket:"):
                sockets.add(target[8:-1])
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                print("listens", fields[1].split(":")[0])
"""


def test_a_cluster_of_this_machine_listens_on_loopback_alone_and_a_board_that_nobody_has_is_refused():
    words = [sys.executable, "-c", LISTENS]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    said = done.stdout.splitlines()
    assert "no node of the cluster has the board none" in said[0] and '"board:none": 1' in said[0], done.stdout + done.stderr
    addresses = {line.removeprefix("listens ") for line in said[1:]}
    assert addresses and addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}, addresses


def test_where_nobody_answers_it_says_so_at_once():
    code = "from cosearch.fleet.ray_engine import RayEngine\nRayEngine('127.0.0.1:1')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert "RequestError: --cluster 127.0.0.1:1: no Ray cluster can be used there" in done.stderr and "refused" in done.stderr
