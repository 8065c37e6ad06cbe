"""The files of the benchmark: round trip, damage, partial tables; the generator's folder: claims, kills, other settings."""

import hashlib
import json
from dataclasses import replace

import pytest

from cosearch.bench import generate, settings
from cosearch.bench.benchmark import Benchmark
from cosearch.bench.table import DATA, FORMAT, SeedResult, pack, read_table, table_path, write_table
from cosearch.bench.together import Trained
from cosearch.rl.teacher import TEACHERS
from latency_tables.errors import ConfigError, NonFiniteError, RequestError, UnknownNameError
from tests.support.bench_table import TASK, made_table

CURVE = [0.1, None, 0.3, 0.4, 0.5, 0.6]


def lines_of(number, score=1.0):
    return [
        json.dumps({"network": number, "seed": seed, "curve": CURVE, "score": score + seed, "std": 0.5, "episodes": 128})
        for seed in settings.SEEDS
    ]


def quick(monkeypatch, trained):
    monkeypatch.setattr(generate, "train_network", lambda task, number: trained.append(number) or lines_of(number))


def test_a_table_reads_back_equal(tmp_path):
    table = made_table(lambda number, seed: None if (number, seed) == (3, 1) else number + 0.25 * seed, range(0, 540, 3))
    write_table(table, table_path(TASK, tmp_path))
    assert read_table(table_path(TASK, tmp_path)) == table
    assert table.partial == "partial: 180 of 540 networks"


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda text: text[:-9], "cut or changed"),
        (lambda text: text.replace("[0,[0.0,", "[0,[9.0,"), "cut or changed"),
        (lambda text: text.replace(FORMAT, "cosearch-bench-9"), "expected a table of the benchmark"),
        (lambda text: "", "not JSON"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path, damage, message):
    path = table_path(TASK, tmp_path)
    write_table(made_table(lambda number, seed: float(number), range(5)), path)
    text = path.read_text()
    assert damage(text) != text
    path.write_text(damage(text))
    with pytest.raises(ConfigError, match=message):
        read_table(path)


@pytest.mark.parametrize(
    "number, seed, points, refused",
    [(0, 0, 5, True), (0, 0, 7, True), (0, 0, 0, True), (1, 1, 5, True), (1, 1, 0, False), (1, 1, 6, False)],
)
def test_a_curve_has_a_point_for_each_look_or_of_a_failed_training_none(number, seed, points, refused, tmp_path):
    table = made_table(lambda number, seed: None if (number, seed) == (1, 1) else 1.0, range(3))
    own = list(table.results[number])
    own[seed] = replace(own[seed], curve=(None,) * points)
    write_table(replace(table, results={**table.results, number: tuple(own)}), table_path(TASK, tmp_path))
    if not refused:
        assert (
            Benchmark(TASK, tmp_path).query(settings.architectures(settings.space_for((10, 10, 4), 3))[number], seed, 24576)
            is None
        )
        return
    said = rf"breakout\.jsonl, line {number + 2}: expected a curve of 6 points.*got {points}"
    with pytest.raises(ConfigError, match=said):
        read_table(table_path(TASK, tmp_path))


def test_results_with_a_curve_that_is_too_short_are_not_packed(tmp_path, monkeypatch):
    quick(monkeypatch, [])
    generate.begin(tmp_path)
    lines = [lines_of(3)[0], lines_of(3)[1].replace("0.5, 0.6]", "0.5]"), lines_of(3)[2]]
    generate.results_path(tmp_path, TASK).write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(ConfigError, match=r"breakout\.jsonl, line 2: expected a curve of 6 points.*got 5"):
        pack(tmp_path, TASK)


def test_a_table_of_another_task_than_its_name_says_is_refused(tmp_path):
    write_table(replace(made_table(lambda number, seed: 1.0), task="minatar:asterix"), table_path(TASK, tmp_path))
    with pytest.raises(ConfigError, match=r"breakout\.jsonl is the table of minatar:asterix, not of minatar:breakout"):
        Benchmark(TASK, tmp_path)


def test_a_table_of_other_choices_is_refused(tmp_path, monkeypatch):
    write_table(made_table(lambda number, seed: float(number), range(5)), table_path(TASK, tmp_path))
    Benchmark(TASK, tmp_path)
    other = settings.MacroConfig(**{**settings.SPACE.__dict__, "hidden": (0, 32, 64)})
    monkeypatch.setattr(settings, "SPACE", other)
    with pytest.raises(ConfigError, match="other choices"):
        Benchmark(TASK, tmp_path)
    with pytest.raises(UnknownNameError, match="minatar:breakout"):
        Benchmark("minatar:breakot", tmp_path)


@pytest.mark.parametrize("change", [{"stage_strides": (1,)}, {"resolutions": (2,)}])
def test_tables_and_folders_of_other_blocks_behind_the_same_choices_are_refused(change, tmp_path, monkeypatch):
    """Also those of earlier versions, which do not say their blocks: the shipped tables are such."""
    quick(monkeypatch, [])
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "settings.json").write_text(json.dumps({"digest": settings.digest(), "training": settings.TRAINING}))
    for folder in (old, new):
        generate.extend(folder, [TASK], print, limit=1)
    assert set(json.loads((new / "settings.json").read_text())) == {"digest", "blocks", "training", "teachers"}
    write_table(pack(new, TASK), table_path(TASK, new / "tables"))
    tables = (DATA, new / "tables")
    assert ["blocks_sha256" in table_path(TASK, folder).read_text().partition("\n")[0] for folder in tables] == [False, True]
    choices = [Benchmark(TASK, folder).table.points for folder in tables]
    other = replace(settings.SPACE, **change)
    monkeypatch.setattr(settings, "SPACE", other)
    assert [(point.name, point.candidates) for point in settings.space_for((10, 10, 4), 3).points] == list(choices[0])
    for folder in tables:
        with pytest.raises(ConfigError, match="other blocks behind its choices"):
            Benchmark(TASK, folder)
    for folder in (old, new):
        with pytest.raises(ConfigError, match="other settings"):
            generate.extend(folder, [TASK], print, limit=1)


def test_the_generator_goes_on_where_it_was_killed_and_two_share_a_folder(tmp_path, monkeypatch):
    trained, said = [], []
    quick(monkeypatch, trained)
    order = generate.order(540)
    assert sorted(order) == list(range(540)) and order != list(range(540)) and order == generate.order(540)
    with generate.claimed(tmp_path / "claims" / f"{TASK.replace(':', '-')}-{order[0]:04d}") as mine:  # another process has it
        assert mine
        assert generate.extend(tmp_path, [TASK], said.append, limit=2) == 2
    assert trained == order[1:3]
    path = generate.results_path(tmp_path, TASK)
    with open(path, "a") as file:
        file.write('{"network": 77, "se')  # a kill in the middle of a line
    assert generate.extend(tmp_path, [TASK], said.append, limit=2) == 2
    assert trained == [*order[1:3], order[0], order[3]]
    assert len(generate.finished_lines(tmp_path, TASK)) == 4 * len(settings.SEEDS) and len(said) == 4
    packed = pack(tmp_path, TASK)
    assert sorted(packed.results) == sorted(order[:4]) and packed.steps[-1] == settings.TOTAL_STEPS
    assert packed.results[order[0]][1] == SeedResult(2.0, 0.5, tuple(CURVE))


def test_a_network_without_all_of_its_seeds_is_not_packed_and_is_trained_again(tmp_path, monkeypatch):
    trained = []
    quick(monkeypatch, trained)
    generate.begin(tmp_path)
    with pytest.raises(RequestError, match="no finished network"):
        pack(tmp_path, TASK)
    first, second = generate.order(540)[:2]
    path = generate.results_path(tmp_path, TASK)
    path.write_text("".join(f"{line}\n" for line in lines_of(first)[:2] + lines_of(second)))
    assert list(pack(tmp_path, TASK).results) == [second]
    generate.extend(tmp_path, [TASK], print, limit=1)
    assert trained == [first] and sorted(pack(tmp_path, TASK).results) == sorted([first, second])
    lines = [(line["network"], line["seed"]) for line in generate.finished_lines(tmp_path, TASK)]
    assert len(lines) == len(set(lines)) == 2 * len(settings.SEEDS)


def test_results_of_other_settings_are_not_mixed(tmp_path, monkeypatch):
    quick(monkeypatch, [])
    generate.extend(tmp_path, [TASK], print, limit=1)
    monkeypatch.setattr(settings, "TOTAL_STEPS", 99)
    with pytest.raises(ConfigError, match="other settings"):
        generate.extend(tmp_path, [TASK], print, limit=1)


def other_teacher(monkeypatch, task):
    """Another teacher is shipped for a task."""
    own = settings.find_teacher
    other = own("auto", settings.TASKS[1])
    monkeypatch.setattr(settings, "find_teacher", lambda name, env: other if env == task else own(name, env))


def test_results_of_another_teacher_are_not_mixed(tmp_path, monkeypatch):
    trained, said = [], []
    quick(monkeypatch, trained)
    generate.extend(tmp_path, [TASK], said.append, limit=1)
    sha256 = hashlib.sha256((TEACHERS / "minatar-breakout.safetensors").read_bytes()).hexdigest()
    packed = pack(tmp_path, TASK)
    assert packed.teacher_sha256 == sha256
    write_table(packed, tmp_path / "packed.jsonl")
    assert read_table(tmp_path / "packed.jsonl") == packed
    other_teacher(monkeypatch, TASK)
    for going_on in (lambda: generate.extend(tmp_path, [TASK], said.append), lambda: pack(tmp_path, TASK)):
        with pytest.raises(ConfigError, match=f"results of {TASK} from a teacher.*{sha256[:12]}.*give another folder with --out"):
            going_on()
    assert generate.extend(tmp_path, [settings.TASKS[2]], said.append, limit=1) == 1  # its teacher is the same
    assert len(trained) == 2


def test_a_folder_that_names_no_teacher_is_taken_as_it_is(tmp_path, monkeypatch):
    quick(monkeypatch, [])
    (tmp_path / "settings.json").write_text(json.dumps({"digest": settings.digest(), "training": settings.TRAINING}))
    other_teacher(monkeypatch, TASK)
    assert generate.extend(tmp_path, [TASK], print, limit=1) == 1
    assert pack(tmp_path, TASK).teacher_sha256 is None


def test_teachers_that_are_no_object_are_refused(tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"digest": settings.digest(), "teachers": ["a"]}))
    with pytest.raises(ConfigError, match="expected teachers as an object of tasks"):
        generate.begin(tmp_path)


def test_a_game_that_is_no_task_is_refused_before_any_work(tmp_path, monkeypatch):
    trained = []
    quick(monkeypatch, trained)
    with pytest.raises(UnknownNameError, match="minatar:freeway"):
        generate.extend(tmp_path / "new", [TASK, "minatar:freeway"], print, limit=1)
    assert not trained and not (tmp_path / "new").exists()


def test_a_seed_whose_training_fails_alone_has_no_score(monkeypatch):
    def train(config, ops, seeds, teacher, *, total_steps, episodes):
        if 1 in seeds:
            raise NonFiniteError("a loss is not finite")
        return [Trained((0.5,) * 6, (1.0, 2.0)) for _ in seeds]

    monkeypatch.setattr(generate, "train_together", train)
    lines = [json.loads(line) for line in generate.train_network(TASK, 5)]
    assert [line.get("score") for line in lines] == [1.5, None, 1.5] and "not finite" in lines[1]["failure"]
