"""What is written is read back the same, for each format: values drawn from the types of the records."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path

import pytest
import small_table
import torch
from board_answers import ANSWERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accel_models.design import DESIGNS, load_design
from cosearch.bench import settings as bench
from cosearch.bench.table import SeedResult, Table, read_table, write_table
from cosearch.config.run import config_from_dict, config_to_dict, resolve
from cosearch.deploy.bundle.contract import Contract
from cosearch.deploy.bundle.stored import read_array
from cosearch.planning.builtins import load_builtins
from cosearch.record.checkpoints import Checkpoints
from cosearch.record.failures import FailuresRecord
from cosearch.record.json_record import Absent, to_json
from cosearch.record.metrics import append_metrics, checked_metrics, read_metrics
from cosearch.record.order import OrderRecord
from cosearch.record.results.agent import AgentRecord
from cosearch.record.results.architecture import ArchitectureRecord
from cosearch.record.results.deployment import Deployments
from cosearch.record.results.evaluation import EpisodesRecord
from cosearch.record.results.family import Family
from cosearch.record.results.summary import Summary
from cosearch.record.results.target_rounds import TargetRounds
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from cosearch.record.workers import WorkersRecord
from cosearch.seeding import Streams
from cosearch.space.files import load_architecture
from cosearch.space.kinds.chain import ChainConfig, chain_space
from latency_tables.board.timing import Paced, Visit
from latency_tables.errors import TableError
from latency_tables.measuring.answers import read_answer
from latency_tables.measuring.journal import Journal
from latency_tables.opspec import OpSpec
from latency_tables.schema import Row, TableFile, dump_table, parse_table
from latency_tables.text.reading import parse_json
from latency_tables.worklists import load_worklist, make_worklist

quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=64)
WHOLE = st.integers(-(10**30), 10**30)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)
LATENCY = st.floats(1e-7, 10.0).map(lambda value: float(f"{value:.6g}"))


NO_POINTS = {name: st.just(()) for name in ("choices", "choice_names", "candidate_names")}  # of equal length


def drawn_episodes():
    """Episodes with lists of equal length, or those of a version that recorded the returns alone."""
    each = st.lists(st.tuples(NUMBER, WHOLE, st.none() | st.booleans()), max_size=3)
    names = ("returns", "lengths", "successes")

    def record(levels, actions, episodes, kept):
        columns = dict(zip(names[:kept], zip(*episodes))) if episodes else {"returns": ()}
        return EpisodesRecord(levels=levels, actions=actions, **columns)

    return st.builds(record, TEXT, TEXT, each, st.integers(1, 3))


def drawn(kind):
    """Values of a field's type, as ``json_record`` knows them."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        kinds = [each for each in inner if each not in (types.NoneType, Absent)]
        return st.none() | drawn(kinds[0]) if types.NoneType in inner else drawn(kinds[0])
    if origin is tuple:
        return st.lists(drawn(inner[0]), max_size=3).map(tuple) if inner[-1] is ... else st.tuples(*map(drawn, inner))
    if origin is Mapping:
        return st.dictionaries(TEXT, drawn(inner[1]), max_size=3)
    if kind is EpisodesRecord:
        return drawn_episodes()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints, fields = typing.get_type_hints(kind), dataclasses.fields(kind)
        values = {f.name: drawn(hints[f.name]) for f in fields if not f.metadata.get("further")}
        return st.builds(kind, **values | (NO_POINTS if kind is ArchitectureRecord else {}))
    return {float: NUMBER, int: WHOLE, str: TEXT, bool: st.booleans(), object: JSON}[kind]


RECORDS = (
    *(Family, TargetRounds, RunRecord, Summary, AgentRecord, ArchitectureRecord, Deployments, Contract),
    *(EpisodesRecord, FailuresRecord, OrderRecord, WorkersRecord),
)


@pytest.mark.parametrize("record", RECORDS)
@given(st.data())
@quick
def test_records_of_a_run(tmp_path_factory, record, data):
    content = data.draw(drawn(record))
    path = tmp_path_factory.getbasetemp()
    run = RunDir(path, {})
    run.write(content)
    assert to_json(run.read(record)) == json.loads(json.dumps(to_json(content)))
    again = run.read(record)
    run.write(again)
    assert run.read(record) == again


@given(st.data())
@quick
def test_a_contract_in_the_metadata_of_a_file(data):
    content = data.draw(drawn(Contract))
    assert Contract.from_metadata(content.to_metadata() | {"other": "x"}, "it").to_json() == json.loads(
        json.dumps(content.to_json())
    )


@given(JSON)
@settings(max_examples=100, deadline=None)
def test_json(value):
    assert parse_json(json.dumps(value), "it", TableError) == value


OPS = st.builds(
    lambda channels, out, size, kernel, stride: OpSpec("conv", channels, size, size, out, kernel, stride, kernel // 2),
    *(st.integers(1, 512), st.integers(1, 512), st.integers(3, 64), st.sampled_from((1, 3)), st.integers(1, 2)),
)


@given(OPS)
@quick
def test_operations_and_work_lists(tmp_path_factory, op):
    assert OpSpec.from_key(op.key) == op and OpSpec.from_dict(json.loads(json.dumps(op.to_dict()))) == op
    work = make_worklist("x", [op], [[small_table.CONV, small_table.TAIL]])
    path = tmp_path_factory.getbasetemp() / "work.json"
    path.write_text(json.dumps(work.to_dict()))
    assert load_worklist(path) == work


@given(st.dictionaries(OPS, st.tuples(LATENCY, st.none() | LATENCY), min_size=1, max_size=4), TEXT.filter(bool))
@quick
def test_tables(rows, description):
    content = small_table.make_file()
    header = {**content.header, "device": {**content.header["device"], "description": description}}
    made = TableFile(header, {op.key: Row(op.key, *values) for op, values in rows.items()}, content.certificate)
    text = dump_table(made)
    read = parse_table(text, where="it")
    assert read.rows == made.rows and dump_table(read) == text


def visits(kind):
    """Records of times, as a measuring core makes them."""
    fields = dataclasses.fields(kind)
    return st.builds(kind, **{f.name: st.integers(0, 10**6) if str(f.type) == "int" else st.floats(0, 100) for f in fields})


@given(st.lists(visits(Visit), min_size=1, max_size=3), visits(Paced), st.dictionaries(TEXT, st.integers(0, 9), max_size=2))
@quick
def test_journals(tmp_path_factory, seen, paced, graph):
    path = tmp_path_factory.mktemp("j") / "j"
    first = Journal(path, {"plan": "p"})
    for record in ({"id": "m", "graph": graph}, *({"id": "m", "visit": each.to_dict()} for each in seen)):
        first.add(record)
    first.add({"id": "m", "kind": "paced", "paced": paced.to_dict()})
    first.close()
    again = Journal(path, {"plan": "p"})
    again.close()
    assert (again.visits, again.paced, again.graphs) == ({"m": seen}, {"m": paced}, {"m": graph})


@given(visits(Visit), st.sampled_from(sorted(ANSWERS)))
@quick
def test_answers_of_a_board(visit, verb):
    answer = ANSWERS[verb] | ({"visit": visit.to_dict()} if verb == "visit" else {})
    assert read_answer(json.dumps(answer), verb, "it") == answer


@given(st.sampled_from(sorted(DESIGNS.glob("*.json"))), st.floats(1e6, 1e10), TEXT.filter(str.strip))
@quick
def test_designs(tmp_path_factory, path, clock_hz, name):
    design = load_design(path)
    changed = dataclasses.replace(design, name=name, platform=dataclasses.replace(design.platform, clock_hz=clock_hz))
    copy = tmp_path_factory.getbasetemp() / "design.json"
    copy.write_text(json.dumps(changed.to_dict()))
    assert load_design(copy) == changed


@given(st.integers(0, 2**31), st.floats(1e-6, 1e-2), st.lists(st.integers(1, 3), min_size=3, max_size=3))
@quick
def test_configurations(seed, lr, repeats):
    config = resolve(options={"seed": seed, "rl.lr": lr, "space.values": {"stage_repeats": repeats}})
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == dataclasses.replace(config, said=frozenset())


@given(st.data())
@quick
def test_architectures(tmp_path_factory, data):
    load_builtins()
    space = chain_space(ChainConfig(stage_channels=(4,), stage_repeats=(2,), stage_strides=(1,), hidden=8), (64, 64, 3), 15)
    made = space.architecture([data.draw(st.integers(0, len(point.candidates) - 1)) for point in space.points])
    path = tmp_path_factory.getbasetemp() / "a.json"
    path.write_text(json.dumps(made.to_dict()))
    assert load_architecture(path).to_dict() == made.to_dict()


@given(st.lists(st.tuples(st.integers(0, 10**9), NUMBER, st.none() | NUMBER), max_size=4))
@quick
def test_logs(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    made = [{"stage": "search", "step": step, "wall_s": wall_s, "score_train": score} for step, wall_s, score in lines]
    for line in made:
        append_metrics(path, line)
    assert read_metrics(path) == [checked_metrics(line) for line in made]


CURVE = st.lists(st.none() | NUMBER, min_size=2, max_size=2).map(tuple)  # a point a step of the table
RESULT = st.builds(SeedResult, st.none() | NUMBER, NUMBER, CURVE) | st.builds(SeedResult, st.none(), NUMBER, st.just(()))


@given(st.dictionaries(st.integers(0, 9), st.tuples(RESULT, RESULT), max_size=3))
@quick
def test_tables_of_the_benchmark(tmp_path_factory, results):
    table = Table("minatar:breakout", (10, 10, 4), 3, (("a", ("x", "y")),), 10, (0, 1), (1, 2), 5, bench.digest(), results)
    path = tmp_path_factory.getbasetemp() / "bench.jsonl"
    write_table(table, path)
    assert read_table(path) == table


@given(
    st.dictionaries(TEXT, st.none() | st.booleans() | WHOLE | NUMBER | TEXT | st.binary(max_size=4), max_size=4),
    st.integers(0, 9),
)
@quick
def test_checkpoints_and_random_streams(tmp_path_factory, values, draws):
    folder, streams = tmp_path_factory.mktemp("c"), Streams(3)
    name = next(iter(streams.state_dict()["numpy"]))
    streams.numpy(name).random(draws)
    Checkpoints(folder).save({"values": values, "weights": torch.arange(3.0), "streams": streams.state_dict()}, 1)
    state, again = Checkpoints(folder).load(), Streams(3)
    again.load_state_dict(state["streams"])
    assert state["values"] == values and state["weights"].tolist() == [0.0, 1.0, 2.0]
    assert again.numpy(name).random() == streams.numpy(name).random()


@given(st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), max_size=3))
@quick
def test_stored_observations(tmp_path_factory, rows):
    import numpy as np

    path, values = tmp_path_factory.getbasetemp() / "o.npy", np.array(rows, np.float32).reshape(-1, 2)
    np.save(path, values)
    np.testing.assert_array_equal(read_array(path), values)


def test_every_format_of_the_documents_has_a_round_trip_here():
    """The records with a file of their own are among those above."""
    own = {record.FILE for record in RECORDS}
    files = {text.split('"')[1] for text in Path("cosearch").rglob("*.py") for text in _files(text)}
    assert files <= own


def _files(path):
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip().startswith("FILE: ClassVar[str] =")]
