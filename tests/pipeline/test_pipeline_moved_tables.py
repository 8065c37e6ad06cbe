"""A run that makes agents for several devices, opened again after tables of its own were moved."""

import json
from types import SimpleNamespace

import old_run
import pytest

from cosearch.cli.app import main
from cosearch.config.run import config_to_dict
from cosearch.pipeline.opening import Places
from cosearch.pipeline.opening import _placed as placed
from cosearch.pipeline.run import export_again
from cosearch.planning.builtins import load_builtins
from cosearch.planning.recorded import config_of
from cosearch.planning.task import resolve_task
from cosearch.record.rundir import RunDir
from latency_tables.devices import find_table
from latency_tables.errors import ConfigError, RequestError, RunFolderError, TableError

TARGETS = (0.001, 0.002)  # two agents a device


def device_file(path, name):
    """A shipped table as a file of one's own."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(find_table(name).path.read_bytes())
    return path


@pytest.fixture
def family(tmp_path):
    """Makes the folder of a family that began with some devices: a name, or FILE=NAME for a table of one's own."""
    load_builtins()

    def make(*devices, targets=TARGETS):
        files = tuple(device.partition("=")[0] for device in devices)
        files = tuple(str(tmp_path / file) if file.endswith(".jsonl") else file for file in files)
        config = resolve_task(options={"family.devices": files, "family.latency_targets_s": targets})
        names = [device.rpartition("=")[2] for device in devices]
        members = [
            {"name": f"{name}-{target}", "device": name, "table_id": find_table(name).table_id, "latency_target_s": target}
            for name in names
            for target in targets
        ]
        return RunDir.create(tmp_path / "runs", "one", old_run.content("run.json", config=config_to_dict(config), agents=members))

    return make


def devices(run, *tables):
    return placed(run, config_of(run), Places(tables), "resume").family.devices


@pytest.mark.parametrize("named", [("jetson", "pixel-3"), ("jetson", "raspberry-pi-4")])
def test_a_table_is_refused_where_no_device_of_a_run_is_a_file(named, family, tmp_path):
    """The tables of devices that are named come with the package: none of them can have been moved."""
    table = device_file(tmp_path / "my.jsonl", "raspberry-pi-4")
    with pytest.raises(ConfigError, match=rf"--table has no effect: .*one are named \(jetson, {named[1]}\), .*leave it out"):
        devices(family(*named), table)


@pytest.mark.parametrize("beside", ["jetson", "b.jsonl=jetson"])
def test_a_table_that_was_moved_takes_its_own_place_alone(beside, family, tmp_path):
    """Whatever its place in the list is."""
    if "=" in beside:
        device_file(tmp_path / "b.jsonl", "jetson")
    other = str(tmp_path / "b.jsonl") if "=" in beside else beside
    moved = device_file(tmp_path / "moved.jsonl", "raspberry-pi-4")
    assert devices(family("a.jsonl=raspberry-pi-4", beside), moved) == (str(moved), other)


def test_all_that_were_moved_are_named_together_and_may_be_given_in_any_order(family, tmp_path):
    run = family("a.jsonl=raspberry-pi-4", "jetson", "b.jsonl=pixel-3")
    pi, pixel = device_file(tmp_path / "x.jsonl", "raspberry-pi-4"), device_file(tmp_path / "y.jsonl", "pixel-3")
    with pytest.raises(
        RunFolderError, match=r"a\.jsonl and \S*b\.jsonl, which are not .* resume \S+one --table FILE --table FILE`"
    ):
        devices(run)
    with pytest.raises(RunFolderError, match=rf"the table \S*b\.jsonl, which is not .* --table {pi} --table FILE`"):
        devices(run, pi)
    assert devices(run, pixel, pi) == (str(pi), "jetson", str(pixel))


def test_a_table_that_is_none_of_the_run_is_refused(family, tmp_path):
    """Also one of a device that is named, whose table comes with the package."""
    run = family("a.jsonl=raspberry-pi-4", "jetson")
    device_file(tmp_path / "a.jsonl", "raspberry-pi-4")
    for name in ("jetson", "pixel-3"):
        with pytest.raises(TableError, match=f"is the table {find_table(name).table_id[:12]} of .*name the file of that"):
            devices(run, device_file(tmp_path / "x.jsonl", name))


def test_two_tables_of_one_name_are_told_apart_beside_a_run_that_was_moved(family, tmp_path):
    run = family("a/t.jsonl=raspberry-pi-4", "b/t.jsonl=jetson")
    beside, pi = device_file(tmp_path / "t.jsonl", "jetson"), device_file(tmp_path / "x.jsonl", "raspberry-pi-4")
    with pytest.raises(RunFolderError, match=r"the table \S*a/t\.jsonl, which is not there now"):
        devices(run)
    assert devices(run, pi) == (str(pi), str(beside))


def test_agents_of_one_device_have_one_table(family, tmp_path):
    run = family(targets=TARGETS)
    tables = [device_file(tmp_path / f"{name}.jsonl", name) for name in ("jetson", "pixel-3")]
    with pytest.raises(RequestError, match=r"has one table, got 2"):
        devices(run, *tables)


def test_the_export_of_a_family_gives_each_agent_its_own_table(family, tmp_path, monkeypatch):
    run = family("a.jsonl=raspberry-pi-4", "jetson", targets=(0.001,))
    for agent in ("raspberry-pi-4-0.001", "jetson-0.001"):
        (run.path / "agents" / agent).mkdir(parents=True)
        record = json.loads((run.path / "run.json").read_text())
        (run.path / "agents" / agent / "run.json").write_text(json.dumps({k: v for k, v in record.items() if k != "agents"}))
    moved, given = device_file(tmp_path / "moved.jsonl", "raspberry-pi-4"), {}
    monkeypatch.setattr("cosearch.pipeline.run.check_options", lambda *_: None)
    trained = SimpleNamespace(outputs=SimpleNamespace(retrain=1))
    monkeypatch.setattr("cosearch.pipeline.run.Checkpoint.from_dict", lambda _: trained)
    monkeypatch.setattr("cosearch.pipeline.run.RunDir.load_checkpoint", lambda _: {})
    monkeypatch.setattr("cosearch.pipeline.run.opened", lambda run, places, *_: given.__setitem__(run.path.name, places.tables))
    monkeypatch.setattr("cosearch.pipeline.run._work", lambda *_, **__: None)
    monkeypatch.setattr("cosearch.pipeline.run.compare_again", lambda _: None)
    export_again(run.path, None, Places((moved,)))
    assert given == {"raspberry-pi-4-0.001": (moved,), "jetson-0.001": ()}


@pytest.mark.parametrize("verb", ["resume", "export"])
def test_the_option_may_be_given_several_times(verb, monkeypatch):
    seen = []
    stop = RequestError("enough")

    def noted(run, progress, places, *_, **__):
        seen.append(places.tables)
        raise stop

    monkeypatch.setattr("cosearch.pipeline.run." + {"resume": "resume_run", "export": "export_again"}[verb], noted)
    assert main([verb, "runs/a", "--table", "a.jsonl", "--table", "b.jsonl"]) == 2
    assert [str(path) for path in seen[0]] == ["a.jsonl", "b.jsonl"]
