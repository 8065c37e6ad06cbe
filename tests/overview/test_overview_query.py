"""SQL over run folders: typed tables with the files' own figures, broken runs named, and nothing but the tables within reach."""

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from report_fake_run import change, make_run

from cosearch.cli.app import main
from cosearch.overview.query import query
from cosearch.overview.tables import TABLES, columns
from latency_tables.errors import MissingExtraError, RequestError

duckdb = pytest.importorskip("duckdb")
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "many-runs.md"
UNITS = {"per_s": r"/ s\)", "_s": r"seconds|\(s\)", "_j": r"joules|\(J\)", "_bytes": "bytes"}
RETURNS = [1.0, 2.5, 0.0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs and one that has no results yet."""
    root = tmp_path_factory.mktemp("runs")
    first = make_run(root / "first")
    (first / "evaluation.json").write_text(json.dumps({"levels": "test", "actions": "sampled", "returns": RETURNS}))
    change(
        first,
        "architecture.json",
        derived_by={
            "method": "best",
            "candidates": [{"choices": [1, 2], "score": None, "latency_s": 1e-3, "env_steps": 5, "failure": "diverged"}],
        },
    )
    change(
        first,
        "summary.json",
        targets=[
            {
                "metric": "latency_s",
                "statistic": "p99",
                "at": "period",
                "target": 4e-3,
                "predicted": 3e-3,
                "measured": None,
                "met": True,
                "probability": 0.75,
            }
        ],
    )
    change(shutil.copytree(first, root / "second"), "summary.json", score_mean=3.0, strategy="random")
    half = shutil.copytree(first, root / "half")
    for name in ("summary.json", "agent.json", "architecture.json", "evaluation.json"):
        (half / name).unlink()
    return root


def content(path):
    return json.loads(path.read_text())


def test_each_table_has_what_the_files_hold(runs):
    first, summary = runs / "first", content(runs / "first" / "summary.json")
    (row,) = query(
        f"SELECT score_mean, score_ci95_low, macs, created_utc::VARCHAR, state, teacher FROM runs WHERE folder = '{first}'",
        [runs],
    ).rows
    assert row == (14.2, 13.1, summary["macs"], "2026-01-02 03:04:05", "finished", "starpilot-impala")
    lines = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    (row,) = query("SELECT count(*), max(step), sum(score_train), count(latency_expected_s) FROM curves", [first]).rows
    assert row[:2] == (len(lines), max(line["step"] for line in lines))
    assert row[2] == pytest.approx(sum(line["score_train"] for line in lines))
    assert row[3] == sum("latency_expected_s" in line for line in lines)
    operations = content(first / "architecture.json")["predicted"]["operations"]
    assert query("SELECT operation, latency_predicted_s FROM layers ORDER BY layer", [first]).rows == tuple(
        (one["key"], one["latency_s"]) for one in operations
    )
    assert query("SELECT episode_return FROM episodes ORDER BY episode", [first]).rows == tuple((value,) for value in RETURNS)
    assert query("SELECT choices, score, failure FROM candidates", [first]).rows == (([1, 2], None, "diverged"),)
    assert query("SELECT statistic, measured_at, target, probability FROM targets", [first]).rows == (
        ("p99", "period", 4e-3, 0.75),
    )
    names = content(first / "architecture.json")["choice_names"]
    assert query("SELECT name, candidates[choice + 1] FROM main.CHOICES ORDER BY point", [first]).rows == tuple(
        (n, n) for n in names
    )


def test_runs_are_joined_and_an_unfinished_one_has_nulls(runs):
    found = query(
        "SELECT regexp_extract(runs.folder, '[a-z]+$') AS name, score_mean, count(episode) FROM runs LEFT JOIN episodes "
        "USING (folder) GROUP BY ALL ORDER BY name",
        [runs],
    )
    assert found.columns == ("name", "score_mean", "count(episode)")
    assert found.rows == (("first", 14.2, 3), ("half", None, 0), ("second", 3.0, 3)) and found.passed == ()


def test_a_broken_run_is_named_and_left_out(runs, tmp_path, capsys):
    copy = shutil.copytree(runs, tmp_path / "runs")
    (copy / "second" / "evaluation.json").write_text('{"levels": "test", "actions": "greedy", "returns": 3}')
    assert main(["query", "SELECT count(*) AS runs FROM runs, (SELECT count(*) FROM episodes)", str(copy), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == [{"runs": 2}]
    assert f"passed over {copy / 'second'}: {copy / 'second' / 'evaluation.json'}: returns must be a list" in said.err


def change_a_line(run, number, **values):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[number - 1] = json.dumps(json.loads(lines[number - 1]) | values)
    (run / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


def a_layer(run, **values):
    found = content(run / "architecture.json")
    found["predicted"]["operations"][1] |= values
    (run / "architecture.json").write_text(json.dumps(found))


@pytest.mark.parametrize(
    "table, damage, said",
    [
        (
            "curves",
            lambda run: change_a_line(run, 3, score_train="abc"),
            "metrics.jsonl, line 3: score_train must be a number, got 'abc'",
        ),
        (
            "curves",
            lambda run: change_a_line(run, 2, score_train=True),
            "metrics.jsonl, line 2: score_train must be a number, got True",
        ),
        ("curves", lambda run: change_a_line(run, 2, agent=1.5), "metrics.jsonl, line 2: agent must be text, got 1.5"),
        (
            "curves",
            lambda run: change_a_line(run, 4, updates=2**63),
            "metrics.jsonl, line 4: updates must be a whole number of 64 bits",
        ),
        (
            "curves",
            lambda run: change_a_line(run, 4, updates=2.5),
            "metrics.jsonl, line 4: updates must be a whole number of 64 bits",
        ),
        ("layers", lambda run: a_layer(run, macs=2**63), "architecture.json: macs must be a whole number of 64 bits"),
        (
            "candidates",
            lambda run: change(
                run,
                "architecture.json",
                derived_by={
                    "method": "best",
                    "candidates": [{"choices": [1, 2**63], "score": None, "latency_s": 1e-3, "env_steps": 5}],
                },
            ),
            "architecture.json: choices must be a list, each a whole number of 64 bits",
        ),
        ("runs", lambda run: change(run, "run.json", seed=2**64), "second: seed must be a whole number from 0 to 2^64 - 1"),
    ],
)
def test_a_value_that_its_column_does_not_hold_is_named_and_its_run_left_out(runs, tmp_path, table, damage, said):
    copy = shutil.copytree(runs, tmp_path / "runs")
    damage(copy / "second")
    found = query(f"SELECT DISTINCT folder FROM {table} ORDER BY folder", [copy])
    named = [folder for (folder,) in query(f"SELECT DISTINCT folder FROM {table} ORDER BY folder", [runs]).rows]
    assert [Path(folder).name for (folder,) in found.rows] == [
        Path(folder).name for folder in named if not folder.endswith("second")
    ]
    ((path, reason),) = [(one.path, one.reason) for one in found.passed]
    assert path == copy / "second" and f"{copy / 'second'}" in reason and said in reason


def test_every_seed_and_moment_that_a_record_may_hold_is_answered(runs, tmp_path):
    copy = shutil.copytree(runs, tmp_path / "runs")
    for name, seed in (("first", 2**63), ("second", 2**64 - 1)):
        change(copy / name, "run.json", seed=seed, created_utc="0001-01-01T00:00:00+14:00")
    found = query("SELECT seed, created_utc FROM runs WHERE seed > 9 ORDER BY seed", [copy])
    assert found.rows == ((2**63, None), (2**64 - 1, None)) and not found.passed


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM runs, read_json('{run}/run.json')",
        "COPY runs TO '{out}'",
        "COPY (SELECT 1) TO '{out}'",
        "EXPORT DATABASE '{out}'",
        "ATTACH '{out}'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT 1; COPY runs TO '{out}'",
        "DROP TABLE runs",
        "CREATE TABLE more (a INTEGER)",
        "SELECT * FROM RETURNS",
        "",
    ],
)
def test_nothing_but_the_tables_is_within_reach(runs, tmp_path, sql):
    out = tmp_path / "out"
    with pytest.raises(RequestError, match=r"runs: folder, run|expected one SELECT, got"):
        query(sql.format(out=out, run=runs / "first"), [runs / "half"])
    assert not out.exists()


def test_the_settings_are_locked_while_a_statement_runs(runs, monkeypatch):
    """Without the check of the statement's kind the database itself refuses."""
    monkeypatch.setattr(duckdb, "StatementType", type("Any", (), {"SELECT": None}))
    for sql in ("COPY runs TO '/never'", "SET enable_external_access = true", "SET lock_configuration = false"):
        with duckdb.connect() as database:
            kind = database.extract_statements(sql)[0].type
        duckdb.StatementType.SELECT = kind
        with pytest.raises(RequestError, match=r"disabled by configuration|has been locked"):
            query(sql, [runs / "half"])


def test_wrong_sql_gives_one_message_with_the_columns(runs, capsys):
    assert main(["query", "SELECT score FROM runs", str(runs)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and '"score"' in said and "score_mean" in said and "curves: folder, stage, step" in said
    assert main(["query", "SELECT 1", str(runs), "--csv", "--json"]) == 2
    assert "--csv or --json, not both" in capsys.readouterr().err
    assert main(["query", "SELECT 1 AS a, 2 AS a", str(runs), "--json"]) == 2
    assert "two columns of the result are named a" in capsys.readouterr().err


def test_results_are_text_csv_or_json(runs, capsys):
    sql = "SELECT strategy, 'a,b' AS words, score_mean, created_utc, [1.5, NULL] AS list, 'nan'::DOUBLE AS none FROM runs"
    assert main(["query", sql, str(runs / "first"), "--csv"]) == 0
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [
        ["strategy", "words", "score_mean", "created_utc", "list", "none"],
        ["a3cs", "a,b", "14.2", "2026-01-02 03:04:05", "[1.5, None]", "nan"],
    ]
    assert main(["query", sql, str(runs / "first"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["score_mean"], row["list"], row["none"], row["created_utc"]) == (14.2, [1.5, None], "nan", "2026-01-02 03:04:05")
    assert main(["query", sql, str(runs / "first")]) == 0
    assert "a3cs" in capsys.readouterr().out


def test_the_tables_are_listed_and_the_guide_has_every_column(capsys):
    assert main(["query", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [table["name"] for table in listed] == list(TABLES)
    guide = GUIDE.read_text(encoding="utf-8")
    for table in listed:
        section = guide.split(f"### `{table['name']}`")[1].split("###")[0]
        for column in columns(table["name"]):
            assert f"| `{column.name}` | {column.type} | {column.meaning} |" in section
            unit = next((unit for end, unit in UNITS.items() if column.name.endswith(end)), "")
            assert re.search(unit, column.meaning), column


def test_the_statements_of_the_guide_are_answered(runs):
    statements = re.findall(r'cosearch query "(.+)" runs', GUIDE.read_text(encoding="utf-8"))
    assert len(statements) == 3
    assert all(query(sql, [runs]).rows for sql in statements)


def test_without_duckdb_the_command_is_named(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cosearch\[query\]'"):
        query("SELECT 1", [runs])
