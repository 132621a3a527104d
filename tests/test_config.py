"""Settings: files in and out, every wrong key and type refused by name, no jax needed to parse them."""

import dataclasses
import json
import subprocess
import sys
import typing

import pytest
from toys import small_dataset

from recunlearn_jax.config import (
    PRESETS,
    Config,
    ModelConfig,
    TrainConfig,
    UnlearnConfig,
    from_dict,
    load_config,
    to_dict,
)
from recunlearn_jax.errors import InputError
from recunlearn_jax.models import build_model

SECTIONS = {"model": ModelConfig, "train": TrainConfig, "unlearn": UnlearnConfig}
FIELDS = [(section, field.name) for section, kind in SECTIONS.items() for field in dataclasses.fields(kind)]


def kind_of(section, name):
    return typing.get_type_hints(SECTIONS[section])[name]


def other_value(section, name):
    """A valid value that is not the default."""
    default, kind = getattr(SECTIONS[section](), name), kind_of(section, name)
    if typing.get_origin(kind) is typing.Literal:
        return next(value for value in typing.get_args(kind) if value != default)
    return not default if kind is bool else default + kind(1)


def everything_changed():
    values = {section: {} for section in SECTIONS}
    for section, name in FIELDS:
        values[section][name] = other_value(section, name)
    return Config(**{section: SECTIONS[section](**values[section]) for section in SECTIONS})


def as_toml(config):
    """Every value of these settings is written the same in TOML and in JSON."""
    lines = []
    for section, values in to_dict(config).items():
        lines += [f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    return "\n".join(lines) + "\n"


def refusal(values):
    with pytest.raises(InputError) as caught:
        from_dict(values)
    return str(caught.value)


WRITTEN = {".json": lambda config: json.dumps(to_dict(config)), ".toml": as_toml}


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("config", [Config(), *PRESETS.values(), everything_changed()])
def test_round_trip(tmp_path, config, suffix):
    path = tmp_path / f"settings{suffix}"
    path.write_text(WRITTEN[suffix](config))
    assert load_config(path) == config
    assert load_config(str(path)) == config
    assert from_dict(to_dict(config)) == config


def test_everything_changed_differs_everywhere():
    """What the round trip relies on: a setting that were dropped would come back as its default."""
    ours, defaults = to_dict(everything_changed()), to_dict(Config())
    for section, name in FIELDS:
        assert ours[section][name] != defaults[section][name]


def test_missing_settings_keep_their_defaults():
    assert from_dict({}) == Config()
    ours = from_dict({"train": {"batch_size": 7}})
    assert ours == Config(train=TrainConfig(batch_size=7))
    assert from_dict({"batch_size": 7}, TrainConfig) == TrainConfig(batch_size=7)


def test_dictionary_is_plain_json():
    assert json.loads(json.dumps(to_dict(Config()))) == to_dict(Config())


@pytest.mark.parametrize(
    ("values", "where", "wrong", "right"),
    [
        ({"trian": {}}, "settings", "trian", "train"),
        ({"train": {"batchsize": 4}}, "settings.train", "batchsize", "batch_size"),
        ({"train": {"learing_rate": 0.1}}, "settings.train", "learing_rate", "learning_rate"),
        ({"model": {"embeding_size": 4}}, "settings.model", "embeding_size", "embedding_size"),
        ({"unlearn": {"alfa": 0.1}}, "settings.unlearn", "alfa", "alpha"),
    ],
)
def test_unknown_key_with_a_similar_one(values, where, wrong, right):
    message = refusal(values)
    assert message.startswith(f"{where}: ")
    assert f"unknown setting {wrong!r}; did you mean {right!r}?" in message


def test_unknown_key_with_no_similar_one():
    message = refusal({"zzz": 1})
    assert "unknown setting 'zzz'; known settings: model, train, unlearn" in message


@pytest.mark.parametrize(("section", "name"), FIELDS)
def test_wrong_types(section, name):
    """In particular: true is no number, 1 is no truth value, text is neither, whole numbers are not rounded to."""
    kind = kind_of(section, name)
    wrong = {int: [True, 1.0, "1", None, [1]], float: [True, "0.1", None, [0.1]], bool: [1, 0, "true", None]}
    for value in wrong.get(kind, [None, True, 1, "nonsense", ["auto"]]):
        message = refusal({section: {name: value}})
        assert message.startswith(f"settings.{section}.{name}: {value!r} is not ")
        if kind in wrong:
            assert message.endswith(f"of type {kind.__name__}")


@pytest.mark.parametrize("values", [[], "train", 3, None])
def test_settings_that_are_no_table(values):
    assert refusal(values) == f"settings: expected a table of settings, got {values!r}"
    assert refusal({"train": values}) == f"settings.train: expected a table of settings, got {values!r}"


def test_whole_numbers_are_floats_where_floats_are_expected():
    value = from_dict({"train": {"learning_rate": 1}}).train.learning_rate
    assert value == 1.0
    assert isinstance(value, float)


LITERALS = [(s, n) for s, n in FIELDS if typing.get_origin(kind_of(s, n)) is typing.Literal]


@pytest.mark.parametrize(("section", "name"), LITERALS)
def test_choices(section, name):
    choices = typing.get_args(kind_of(section, name))
    for choice in choices:
        assert getattr(getattr(from_dict({section: {name: choice}}), section), name) == choice
    message = refusal({section: {name: choices[0].upper()}})
    assert message.startswith(f"settings.{section}.{name}: {choices[0].upper()!r} is not one of ")
    assert all(repr(choice) in message for choice in choices)


def test_there_are_choices():
    assert {("model", "layout"), ("unlearn", "reverse")} <= set(LITERALS)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("nowhere.json", None, ["cannot be read", "No such file"]),
        ("settings.yaml", "train: {}", [".json or .toml"]),
        ("settings", "{}", [".json or .toml"]),
        ("settings.json", "{", ["not valid JSON"]),
        ("settings.toml", "train = ", ["not valid TOML"]),
        ("settings.json", b"\xff\xfe", ["not valid JSON"]),
        ("settings.toml", b"\xff\xfe", ["not valid TOML"]),
        ("settings.json", "[1]", ["expected a table of settings, got [1]"]),
        ("settings.json", '{"train": {"batch_siz": 3}}', ["batch_siz", "did you mean 'batch_size'?"]),
        ("settings.toml", "[train]\nbatch_size = true\n", ["train.batch_size: True is not of type int"]),
    ],
)
def test_bad_files(tmp_path, name, content, parts):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    for part in parts:
        assert part in message


def test_folder_in_place_of_a_file(tmp_path):
    (tmp_path / "settings.json").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        load_config(tmp_path / "settings.json")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build(name):
    """Each gives a model for any data, and can be an argument of a compiled function, which takes hashable ones."""
    config = PRESETS[name]
    assert isinstance(config, Config)
    assert hash(config) == hash(from_dict(to_dict(config)))
    for modalities in range(3):
        model = build_model(small_dataset(modalities), config.model)
        assert len(model.modalities) == modalities
        assert model.embedding_size == config.model.embedding_size
        assert model.user_item_layers == config.model.user_item_layers
        assert model.item_item_layers == config.model.item_item_layers
        assert model.trainable_features == config.model.trainable_features


def test_presets_that_others_name():
    """The command line's default and the demo's."""
    assert PRESETS["faithful"] == Config()
    assert PRESETS["toy"] != Config()


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().train.batch_size = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_settings_are_parsed_without_jax():
    code = "import sys, recunlearn_jax.config, recunlearn_jax.errors; assert not {'jax', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
