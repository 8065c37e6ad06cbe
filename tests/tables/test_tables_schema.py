"""Table files: what is written is read back, and nothing broken or hostile ever becomes a number."""

import io
import json
import random

import pytest
from rich.console import Console
from small_table import CONV, TAIL, make_file

from latency_tables.checks import check_table
from latency_tables.errors import CosearchError, TableError
from latency_tables.schema import Row, TableFile, content_id, dump_table, parse_table, read_table, write_table
from latency_tables.showing.draw import caption, terminal_table
from latency_tables.showing.output import certificate_markdown, certificate_rows, summary
from latency_tables.table import Table, load_table


def sealed(records):
    records[0]["table_id"] = content_id(records)
    return "".join(json.dumps(record) + "\n" for record in records)


def records_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_text_round_trip_is_exact_and_stable():
    text = dump_table(make_file())
    again = parse_table(text, where="x")
    assert again.rows[CONV.key].latency_s == 4e-5 and again.certificate["networks"] == 3
    assert dump_table(again) == text
    assert [json.loads(line)["record"] for line in text.splitlines()] == ["header", "row", "row", "certificate"]


def test_table_id_is_the_hash_of_everything_else():
    records = records_of(dump_table(make_file()))
    assert records[0]["table_id"] == content_id(records)
    records[1]["latency_s"] *= 2
    assert records[0]["table_id"] != content_id(records)


def test_write_is_whole_and_refuses_what_it_could_not_read(tmp_path):
    path = tmp_path / "deep" / "t.jsonl"
    write_table(path, make_file())
    assert read_table(path).rows.keys() == {CONV.key, TAIL.key}
    broken = make_file()
    broken.rows[CONV.key] = Row(CONV.key, 0.0)
    with pytest.raises(TableError, match="above 0"):
        write_table(path, broken)
    assert load_table(path).latency_s(CONV) == 4e-5 and [p.name for p in path.parent.iterdir()] == ["t.jsonl"]


@pytest.mark.parametrize(
    "line, field, value",
    [
        (0, "schema", 2),
        (0, "schema", True),
        (0, "provenance", "guessed"),
        (0, "device", None),
        (0, "calibration", None),
        (0, "record", "row"),
        (1, "latency_s", 0),
        (1, "latency_s", -1e-5),
        (1, "latency_s", "1e-5"),
        (1, "latency_s", True),
        (1, "latency_s", None),
        (1, "latency_s", 1e300),
        (1, "latency_s", 10**400),
        (1, "energy_j", 0),
        (1, "energy_j", -1),
        (1, "key", "conv"),
        (1, "key", ""),
        (1, "key", CONV.key.replace("-k3", "-k03")),
        (1, "key", CONV.key.replace("float32", "int8")),
        (1, "status", "fine"),
        (1, "status", "failed"),
        (1, "details", []),
        (3, "mape", -0.1),
        (3, "networks", 0),
        (3, "within_5", 1.5),
        (3, "kendall_tau", 2),
        (3, "bias", None),
    ],
)
def test_each_wrong_field_is_an_error_even_with_a_fitting_hash(line, field, value):
    records = records_of(dump_table(make_file()))
    records[line][field] = value
    with pytest.raises(TableError):
        parse_table(sealed(records), where="x")


@pytest.mark.parametrize(
    "name, value",
    [
        ("overhead_s", -1),
        ("scale", 0),
        ("scale", "1"),
        ("interval_factors", [1.2, 0.9]),
        ("interval_factors", [0.9]),
        ("overhead_j", -1),
    ],
)
def test_wrong_calibration_is_an_error(name, value):
    records = records_of(dump_table(make_file()))
    records[0]["calibration"][name] = value
    with pytest.raises(TableError):
        parse_table(sealed(records), where="x")


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "empty"),
        ("[]\n", "one JSON object"),
        ('{"record": "header", "schema": NaN}\n', "NaN"),
        ("{\n", "not JSON"),
        ('{"record": "header", "record": "header"}\n', "twice"),
        ("[" * 100000 + "\n", "deeper than"),
        ('{"a": 1e999}\n', "too large"),
        ('{"a": "\\ud800"}\n', "surrogate"),
    ],
)
def test_hostile_text_is_an_error(text, words):
    with pytest.raises(TableError, match=words):
        parse_table(text, where="x")


def test_second_row_second_certificate_and_late_row_are_errors():
    records = records_of(dump_table(make_file()))
    for wrong in ([*records[:3], records[1]], [*records, records[3]], [records[0], records[3], records[1]], records[:1]):
        with pytest.raises(TableError):
            parse_table(sealed([dict(r) for r in wrong]), where="x")


def test_unreadable_files_are_errors(tmp_path):
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00\x01")
    for path in (tmp_path / "absent.jsonl", tmp_path, tmp_path / "binary.jsonl", tmp_path / "nul\0.jsonl"):
        with pytest.raises(TableError):
            load_table(path)


def test_a_thousand_fuzzed_tables_give_an_error_or_the_same_numbers():
    """Bytes changed, dropped, doubled, lines swapped or cut: never another latency, never another exception."""
    text = dump_table(make_file())
    good = Table(parse_table(text, where="x")).predict([CONV, TAIL])
    rng = random.Random(7)
    errors = 0
    for _ in range(1000):
        data = bytearray(text.encode())
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            choice = rng.randrange(6)
            if choice == 0:
                data[at] = rng.randrange(256)
            elif choice == 1:
                del data[at : at + rng.randint(1, 40)]
            elif choice == 2:
                data[at:at] = data[at : at + rng.randint(1, 200)]
            elif choice == 3:
                data[at:at] = rng.choice([b"9", b"-", b"e9", b"null", b"{", b'"', b"\n", b"NaN", b"\x00", b"[[", b"0."])
            elif choice == 4:
                lines = bytes(data).split(b"\n")
                rng.shuffle(lines)
                data = bytearray(b"\n".join(lines))
            else:
                data = data[: at + 1]
            if not data:
                data = bytearray(b"\n")
        try:
            again = Table(parse_table(data.decode("utf-8", errors="strict"), where="fuzz")).predict([CONV, TAIL])
        except (CosearchError, UnicodeDecodeError):
            errors += 1
        else:
            assert again == good
    assert errors > 900


def full_file():
    """A table with everything that a reader shows: intervals, energies, and a certificate with all its parts."""
    content = make_file(overhead_j=1e-5, power_w=5.0)
    figures = {"networks": 3, "mape": 0.02, "within_5": 1.0, "within_10": 1.0, "bias": 0.001, "kendall_tau": None}
    rows = {
        k: Row(k, r.latency_s, r.energy_j, details={"sure": True, "interval_s": [3e-5, 7e-5]}) for k, r in content.rows.items()
    }
    proof = {**content.certificate, "predicted_s": [1e-4, 2e-4, 3e-4], "measured_s": [1e-4, 2e-4, 3.1e-4],
             "energy": {"rows": figures, "power_times_time": figures, "power_w": 5.0},
             **dict.fromkeys(("flops", "single_operations", "repeat", "uncalibrated", "uniform"), figures)}  # fmt: skip
    return TableFile(content.header, rows, proof)


def places(value, path=()):
    """Every place in a JSON value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


HOSTILE = [None, True, 0, -1, 1e308, 10**30, "", "1", "x" * 3000, [], [1], {}, {"mape": "x"}, [[]], "\x1b[2J", 0.5]


def test_a_thousand_hostile_values_with_a_fitting_hash_are_an_error_or_show_without_a_traceback():
    """Fuzzed where the hash cannot help: the author of the file is the enemy. Whatever is read must also be shown."""
    records = records_of(dump_table(full_file()))
    everywhere = [path for path in places(records) if len(path) > 1]
    rng, errors = random.Random(11), 0
    for _ in range(1000):
        broken = json.loads(json.dumps(records))
        for path in rng.sample(everywhere, rng.randint(1, 2)):
            at = broken
            try:
                for step in path[:-1]:
                    at = at[step]
                at[path[-1]] = rng.choice(HOSTILE)
            except (TypeError, KeyError, IndexError):
                continue  # the first value removed the second one's place
        try:
            table = Table(parse_table(sealed(broken), where="fuzz"))
            prediction = table.predict([CONV, TAIL])
        except CosearchError:
            errors += 1
            continue
        assert 0 < prediction.latency_s < 1e6 and (prediction.energy_j is None or prediction.energy_j > 0)
        check_table(table)
        assert caption(table) and certificate_markdown(certificate_rows([table])) and json.dumps(summary(table))
        Console(file=io.StringIO()).print(terminal_table(table))
    assert 300 < errors < 1000
