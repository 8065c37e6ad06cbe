"""Names from files in a bundle: data in its contract, never code in its programs, and plain text where it prints them."""

import json
import subprocess
import sys

from bundle_run import make_run
from report_fake_run import change

from cosearch.deploy.bundle.folder import FILES, BundleOptions, rewrite_bundle
from cosearch.deploy.bundle.stored import read_bundle
from cosearch.record.rundir import RunDir

HOSTILE = (
    '"; system("touch /tmp/x"); //',
    "');import os\nos.abort()#",
    "$(reboot) `reboot` ${HOME}",
    "\x1b]0;title\x07",
    "{{ 7 * 7 }} %s \\",
)


def test_a_hostile_name_is_data_and_no_program_has_it(tmp_path):
    path, name = tmp_path / "run", "\n".join(HOSTILE)
    make_run(path)
    change(path, "run.json", name=name, device__name=name, device__description=name)
    change(path, "agent.json", acting={"rule": "sample", "policy": "categorical", "first_action": 0, "action_names": [name] * 4})
    bundle = rewrite_bundle(RunDir.open(path), BundleOptions())
    for file in FILES.iterdir():
        if file.is_file():
            assert (bundle / file.name).read_bytes() == file.read_bytes()
    contract, _ = read_bundle(bundle)
    assert (contract.run, contract.device, contract.action_names) == (name, name, (name,) * 4)
    done = subprocess.run([sys.executable, str(bundle / "run_agent.py")], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["run"] == name and all(line.isprintable() for line in done.stdout.splitlines())
