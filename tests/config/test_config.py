"""Configuration: layers in order, every fault at once with the nearest key, and a round trip to an equal object."""

import dataclasses
import functools
import json
import typing
from pathlib import Path

import pytest

from cosearch.config.presets import PRESETS
from cosearch.config.run import Config, config_defaults, config_from_dict, config_to_dict, resolve, with_seed
from cosearch.rl.learning.learner import LearnerOptions
from latency_tables.errors import ConfigError


def leaves(values, prefix=""):
    """Dotted key and value of everything that is no section."""
    for key, value in values.items():
        if isinstance(value, dict) and key != "values":
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


DEFAULTS = dict(leaves(config_to_dict(Config())))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_survives_json(preset):
    config = resolve(preset=preset)
    again = config_from_dict(json.loads(json.dumps(config_to_dict(config))))
    assert again == config and config_to_dict(again) == config_to_dict(config)


def test_presets_differ_and_quick_is_the_plain_default():
    assert resolve() == Config() == resolve(preset="quick")
    assert len({json.dumps(config_to_dict(resolve(preset=name))) for name in PRESETS}) == len(PRESETS)
    steps = [resolve(preset=name).budget.search_steps for name in ("smoke", "quick", "standard", "paper")]
    assert steps == sorted(steps) and len(set(steps)) == 4


def test_the_judged_preset_is_the_search_that_the_documents_measured():
    words = [
        "strategy.name=predictor",
        "space.name=macro",
        "strategy.judge_by=divergence",
        "strategy.frames=shared",
        "strategy.candidates=9",
        "strategy.reduction_factor=3",
        "strategy.values.initial=9",
        "strategy.values.largest_of=64",
        "strategy.values.rules=true",
    ]
    page = Path(__file__).resolve().parents[2].joinpath("docs/evidence/whole-searches.md").read_text(encoding="utf-8")
    assert config_to_dict(resolve(preset="judged")) == config_to_dict(resolve(overrides=words))
    assert all(word.replace("strategy.name=", "--strategy ") in page for word in words)
    assert resolve(preset="judged", overrides=["strategy.name=random"]).strategy.judge_by == "score"


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("[grey_scale]", ("grey_scale",)),
        ("[grey_scale, resize:48x48 ,frame_stack:4]", ("grey_scale", "resize:48x48", "frame_stack:4")),
        ('[grey_scale, "keep:image,direction"]', ("grey_scale", "keep:image,direction")),
        ('["minigrid.wrappers:ImgObsWrapper", flatten]', ("minigrid.wrappers:ImgObsWrapper", "flatten")),
        ('["flatten"]', ("flatten",)),
        ("[]", ()),
    ],
)
def test_a_list_of_names_needs_no_quotes(text, wanted):
    assert resolve(overrides=[f"env.wrappers={text}"]).env.wrappers == wanted


@pytest.mark.parametrize("text", ["[flatten", "flatten]", "[flatten,]", "[a, [b]]", "[{a: 1}]", '[a "b"]', '["a]', "[a\nb]"])
def test_what_is_no_list_of_names_is_refused_as_typed(text):
    with pytest.raises(ConfigError, match="Input should be a valid tuple, got '"):
        resolve(overrides=[f"env.wrappers={text}"])


@pytest.mark.parametrize("text", ["[1, NaN]", "[0.5, 1e999]", "[-Infinity]", "[0.5, two]"])
def test_a_list_of_numbers_is_never_one_of_names(text):
    with pytest.raises(ConfigError, match="Input should be a valid tuple, got '"):
        resolve(overrides=[f"family.latency_targets_s={text}"])


def other(key, value):
    """A valid value that differs from the default: the first of some that the configuration takes."""
    section = functools.reduce(getattr, key.split(".")[:-1], Config())
    hints = typing.get_args(typing.get_type_hints(type(section))[key.split(".")[-1]])
    words = [*(word for hint in hints for word in (hint, *typing.get_args(hint))), "other"]
    words = [word for word in words if isinstance(word, str)]  # the choices where there are choices
    numbers = (
        [value + 1, value * 2, value * 0.5, 0.5]
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else [0.25, 65536]
    )
    for found in (
        [not value] if isinstance(value, bool) else [*numbers, *words, {"hidden": 9}, ["jetson", "pixel-3"], [0.25, 0.5], [1, 2]]
    ):
        try:
            if dict(leaves(config_to_dict(resolve(options={key: found}))))[key] == found != value:
                return found
        except ConfigError:
            continue
    raise AssertionError(f"no other value of {key} than {value!r} is accepted")


@pytest.mark.parametrize("key", DEFAULTS)
def test_every_key_can_be_overridden_by_a_word_and_is_written_back(key):
    value = other(key, DEFAULTS[key])
    config = resolve(overrides=[f"{key}={json.dumps(value)}"])
    found = dict(leaves(config_to_dict(config)))
    assert found == {**DEFAULTS, key: value}
    assert config_from_dict(config_to_dict(config)) == config != Config()


def test_layers_come_in_order(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("seed = 3\n[budget]\nsearch_steps = 5\neval_episodes = 6\n[rl]\nlr = 0.5\n[space.values]\nhidden = 7\n")
    smoke = PRESETS["smoke"].values["budget"]
    config = resolve(
        preset="smoke",
        file=file,
        overrides=["rl.lr=0.25", "budget.eval_episodes=8", "space.values.stem_channels=4"],
        options={"rl.lr": 0.125, "seed": None, "env.name": "minatar:breakout"},
    )
    assert config.budget.retrain_steps == smoke["retrain_steps"] != Config().budget.retrain_steps  # preset over default
    assert config.budget.search_steps == 5 != smoke["search_steps"]  # file over preset
    assert config.budget.eval_episodes == 8  # word over file
    assert config.rl.lr == 0.125  # option over word
    assert config.seed == 3  # an option that is not given changes nothing
    assert config.space.values == {"hidden": 7, "stem_channels": 4} and config.env.name == "minatar:breakout"
    assert PRESETS["smoke"].values["budget"] == smoke and resolve(preset="smoke").budget.search_steps == smoke["search_steps"]


@pytest.mark.parametrize(
    "word, key, value",
    [
        ("env.name=procgen:maze", "env.name", "procgen:maze"),
        ("table=a=b.jsonl", "table", "a=b.jsonl"),
        ("rl.bf16=false", "rl.bf16", False),
        ("rl.lr=3e-4", "rl.lr", 3e-4),
        ("objective.latency_target_s=null", "objective.latency_target_s", None),
        ('space.values={"stage_channels": [4, 5]}', "space.values", {"stage_channels": [4, 5]}),
        ("control=", "control", ""),
    ],
)
def test_words_are_json_or_else_text(word, key, value):
    assert dict(leaves(config_to_dict(resolve(overrides=[word]))))[key] == value


def test_all_faults_come_at_once_with_the_nearest_keys():
    with pytest.raises(ConfigError) as caught:
        resolve(
            overrides=[
                "rl.learning_rate=1",
                "rl.lrr=1",
                "rl.gamma=1.5",
                "env.num_envs=0",
                "strategi=a2d",
                "rl.algorithm=ppp",
                "seed=x",
                "objective.latency_target_s=-1",
                "rl.clip=NaN",
                "objective.margin=1",
            ]
        )
    text = str(caught.value)
    assert "10 faults" in text and "--dry-run" in text
    for part in (
        "rl.lrr: unknown key; did you mean 'rl.lr'?",
        "rl.gamma: ",
        "got 1.5",
        "env.num_envs: ",
        "strategi: unknown key; did you mean",
        "rl.algorithm: ",
        "'ppp'",
        "seed: ",
        "objective.latency_target_s",
        "rl.clip",
        "objective.margin",
        "rl.learning_rate: unknown",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    "key, value",
    [
        ("env.num_envs", 0),
        ("env.train_levels", 0),
        ("strategy.active_paths", -1),
        ("strategy.temperature_end", 0),
        ("strategy.lr", "fast"),
        ("strategy.warmup_fraction", 1.1),
        ("rl.lam", -0.1),
        ("rl.max_grad_norm", 0),
        ("rl.entropy_weight", -1),
        ("rl.value_weight", "Infinity"),
        ("distill.end_fraction", 2),
        ("distill.temperature", 0.009),
        ("distill.temperature", 101),
        ("objective.margin", 1.0),
        ("budget.search_steps", 0),
        ("budget.retrain_init", "old"),
        ("threads", -1),
        ("compute", "gpu"),
        ("seed", -1),
        ("seed", 1.5),
        ("rl", 5),
        ("env.name", [1]),
    ],
)
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        resolve(options={key: value})


@pytest.mark.parametrize("text", ["inf", "-inf", "nan"])
def test_no_number_of_the_configuration_is_infinite_or_none(text):
    """JSON has no such numbers: a run that recorded one could not be read again."""
    tried = 0
    for key in config_defaults():
        for word in (text, f'["{text}"]'):
            try:
                config = resolve(overrides=[f"{key}={word}"])
            except ConfigError:
                tried += 1
                continue
            section, _, name = key.rpartition(".")
            value = getattr(getattr(config, section) if section else config, name)
            assert not any(isinstance(one, float) for one in (value if isinstance(value, tuple) else (value,))), f"{key}={word}"
    assert tried > 100


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_another_seed_is_within_its_range(seed):
    assert with_seed(resolve(options={"seed": 3}), 2**64 - 1) == resolve(options={"seed": 2**64 - 1})
    with pytest.raises(ConfigError, match=rf"seed must be 0 to 18446744073709551615, got {seed}"):
        with_seed(resolve(), seed)


@pytest.mark.parametrize("word", ["rl.lr", "=3", "", "rl.lr.x=1"])
def test_words_that_are_no_override_are_refused(word):
    with pytest.raises(ConfigError):
        resolve(overrides=["rl.lr=0.1", word])


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'smoke'"):
        resolve(preset="smok")
    with pytest.raises(ConfigError, match="quick"):
        resolve(preset="")


@pytest.mark.parametrize("content", [b"[rl\nlr=1", b"\xff\xfe\x00", b"lr = 1 = 2"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        resolve(file=file)
    with pytest.raises(ConfigError, match=r"none\.toml"):
        resolve(file=tmp_path / "none.toml")


def test_a_file_with_values_of_other_types_is_a_fault_and_no_crash(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("[rl]\nlr = 2020-01-01\n[rll]\nlr = 1\n[env]\nname = 3\n")
    with pytest.raises(ConfigError, match="3 faults"):
        resolve(file=file)


def test_a_configuration_is_frozen_and_resolving_shares_nothing():
    config = resolve()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.rl.lr = 1.0
    one = resolve(overrides=["space.values.hidden=4"])
    one.space.values["hidden"] = 99
    assert resolve(overrides=["space.values.hidden=4"]).space.values == {"hidden": 4} and Config().space.values == {}


def test_names_of_the_learners_options_are_those_of_the_configuration():
    rl = {field.name for field in dataclasses.fields(Config().rl)}
    assert {field.name for field in dataclasses.fields(LearnerOptions)} <= rl


@pytest.mark.parametrize(
    "values, shares",
    [
        ({}, {0.0: 1.0, 0.5: 1.0, 1.0: 1.0}),
        ({"end_fraction": 0.0}, {0.0: 1.0, 0.25: 0.75, 1.0: 0.0}),
        ({"end_fraction": 0.2, "fall_begin": 0.25, "fall_end": 0.75}, {0.2: 1.0, 0.25: 1.0, 0.5: 0.6, 0.75: 0.2, 0.9: 0.2}),
        ({"end_fraction": 0.01, "fall": "geometric"}, {0.0: 1.0, 0.5: 0.1, 0.75: 0.0316227766, 1.0: 0.01}),
        ({"end_fraction": 0.5, "fall_begin": 0.4, "fall_end": 0.4}, {0.39: 1.0, 0.4: 0.5}),
    ],
)
def test_the_weights_of_the_distillation_fall(values, shares):
    distill = config_from_dict({"distill": {"end_fraction": 1.0, **values}}).distill
    assert {progress: distill.share_at(progress) for progress in shares} == pytest.approx(shares)


@pytest.mark.parametrize(
    "key", ["threads", "seed", "env.num_envs", "rl.lr", "rl.gamma", "budget.search_steps", "objective.latency_target_s"]
)
@pytest.mark.parametrize("value", [True, False])
def test_a_truth_value_is_no_number(key, value):
    section, _, name = key.rpartition(".")
    with pytest.raises(ConfigError, match=rf"{key}: Input should be .*, got {value}"):
        config_from_dict({section: {name: value}} if section else {key: value})


def test_truth_values_stay_where_they_belong():
    values = {"rl": {"value_clip": False, "lr": "0.1"}, "env": {"kwargs": {"render": True}}, "accel": {"fixed": True}}
    config = config_from_dict(values)
    assert (config.rl.value_clip, config.rl.lr, config.env.kwargs, config.accel.fixed) == (False, 0.1, {"render": True}, True)
