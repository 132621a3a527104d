"""Settings: files in and out, every wrong key and type refused by name, no jax needed to parse them."""

import dataclasses
import json
import math
import subprocess
import sys
import typing

import pytest
from annotated_types import Ge, Gt, Le, Lt
from toys import small_dataset

from recunlearn_jax.backbones import BACKBONES
from recunlearn_jax.backbones.base import shape_of
from recunlearn_jax.backbones.mgcn import Settings, module
from recunlearn_jax.config import PRESETS, Config, TrainConfig, config_from_dict, config_to_dict, with_backbone
from recunlearn_jax.errors import InputError
from recunlearn_jax.settings import check_seed, from_dict, override, read_file, to_dict
from recunlearn_jax.unlearn import METHODS
from recunlearn_jax.unlearn.driver import find

# Everything that can be chosen: training, each backbone and each method.
KINDS = {"train": TrainConfig}
KINDS |= {f"{name}, the backbone": kind.Settings for name, kind in BACKBONES.items()}
KINDS |= {name: method.Settings for name, method in METHODS.items()}
FIELDS = [(where, field.name) for where, kind in KINDS.items() for field in dataclasses.fields(kind)]


def kind_of(where, name):
    return typing.get_type_hints(KINDS[where])[name]


def other_value(where, name):
    """A valid value that is not the default."""
    default, kind = getattr(KINDS[where](), name), kind_of(where, name)
    if typing.get_origin(kind) is typing.Literal:
        return next(value for value in typing.get_args(kind) if value != default)
    if kind is bool:
        return not default
    return default + 1 if isinstance(default, int) else default / 2 or 0.25


def changed(where):
    """Settings that differ from the defaults in everything."""
    kind = KINDS[where]
    return kind(**{field.name: other_value(where, field.name) for field in dataclasses.fields(kind)})


def everything_changed(backbone="mgcn"):
    return Config(backbone, changed(f"{backbone}, the backbone"), changed("train"))


def as_toml(config):
    """Every value of these settings is written the same in TOML and in JSON."""
    groups = config_to_dict(config)
    lines = [f"{name} = {json.dumps(value)}" for name, value in groups.items() if not isinstance(value, dict)]
    for group, values in groups.items():
        if isinstance(values, dict):
            lines += [f"[{group}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    return "\n".join(lines) + "\n"


def load_config(path):
    return config_from_dict(read_file(path), str(path))


def refusal(values, kind=None):
    """The message with which a config, or settings of one kind, are refused."""
    with pytest.raises(InputError) as caught:
        config_from_dict(values) if kind is None else from_dict(values, kind, "settings")
    return str(caught.value)


WRITTEN = {".json": lambda config: json.dumps(config_to_dict(config)), ".toml": as_toml}


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("config", [*PRESETS.values(), *map(Config, BACKBONES), *map(everything_changed, BACKBONES)])
def test_round_trip(tmp_path, config, suffix):
    path = tmp_path / f"settings{suffix}"
    path.write_text(WRITTEN[suffix](config))
    assert load_config(path) == config
    assert load_config(str(path)) == config
    assert config_from_dict(config_to_dict(config)) == config


@pytest.mark.parametrize("where", KINDS)
def test_round_trip_of_one_kind(where):
    for settings in (KINDS[where](), changed(where)):
        assert from_dict(to_dict(settings), KINDS[where], where) == settings
        assert hash(settings) == hash(dataclasses.replace(settings))  # compiled functions take hashable settings


def test_everything_changed_differs_everywhere():
    """What the round trips rely on: a setting that were dropped would come back as its default."""
    for where, name in FIELDS:
        assert to_dict(changed(where))[name] != to_dict(KINDS[where]())[name]


def test_missing_settings_keep_their_defaults():
    assert config_from_dict({}) == Config()
    ours = config_from_dict({"train": {"batch_size": 7}})
    assert ours == Config(train=TrainConfig(batch_size=7))
    assert from_dict({"batch_size": 7}, TrainConfig, "train") == TrainConfig(batch_size=7)
    vbpr = config_from_dict({"backbone": "vbpr", "model": {"embedding_size": 8}})
    assert vbpr == Config("vbpr", BACKBONES["vbpr"].Settings(embedding_size=8))


@pytest.mark.parametrize("method", METHODS)
def test_settings_of_a_method(method):
    """As given, from a dictionary, or the defaults; those of another method and unknown ones are refused by name."""
    kind = METHODS[method].Settings
    assert find(method, None)[1] == find(method, {})[1] == kind()
    assert find(method, changed(method))[1] == find(method, to_dict(changed(method)))[1] == changed(method)
    with pytest.raises(InputError, match=rf"{method}: settings are {kind.__module__}\.Settings; got Train"):
        find(method, TrainConfig())
    with pytest.raises(InputError, match=f"{method}: unknown setting 'zzz'"):
        find(method, {"zzz": 1})


def test_another_backbone():
    """At its own defaults, training as it was; settings of one backbone are refused for another."""
    config = everything_changed()
    other = with_backbone(config, "freedom")
    assert other == Config("freedom", train=config.train)
    assert with_backbone(config, "mgcn") is config
    with pytest.raises(InputError, match=r"the settings of vbpr are recunlearn_jax\.backbones\.vbpr\.Settings; got"):
        Config("vbpr", Settings())
    with pytest.raises(InputError, match=r"backbone 'mgnc' is not known; did you mean 'mgcn'\?"):
        config_from_dict({"backbone": "mgnc"})
    assert refusal({"backbone": 3}).startswith("settings.backbone: 3 is not one of 'mgcn', ")


def test_single_values_on_top():
    groups = config_to_dict(Config()) | {"mmrecun": to_dict(METHODS["mmrecun"].Settings())}
    words = [
        "train.batch_size=7",
        "train.learning_rate=0.5",
        "model.trainable_features=False",
        "mmrecun.reverse=ascent",
    ]
    ours = override(groups, words)
    steps = ours.pop("mmrecun")
    assert steps["reverse"] == "ascent"
    model = dataclasses.replace(Settings(), trainable_features=False)
    assert config_from_dict(ours) == Config(model=model, train=TrainConfig(batch_size=7, learning_rate=0.5))
    assert groups["train"]["batch_size"] == TrainConfig().batch_size  # what was given stays as it was


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("train.batch_size", "expected group.name=value, such as train.batch_size=512"),
        ("batch_size=3", "expected group.name=value"),
        ("trian.batch_size=3", "unknown group 'trian'; did you mean 'train'?"),
        ("zzz.batch_size=3", "unknown group 'zzz'; known groups: model, train"),
        ("backbone.name=3", "unknown group 'backbone'"),
    ],
)
def test_bad_single_values(word, told):
    with pytest.raises(InputError) as caught:
        override(config_to_dict(Config()), [word])
    assert str(caught.value).startswith(f"--set {word}: {told}")


def test_dictionary_is_plain_json():
    assert json.loads(json.dumps(config_to_dict(Config()))) == config_to_dict(Config())


@pytest.mark.parametrize(
    ("values", "wrong", "right"),
    [
        ({"train": {"batchsize": 4}}, "batchsize", "batch_size"),
        ({"train": {"learing_rate": 0.1}}, "learing_rate", "learning_rate"),
        ({"model": {"embeding_size": 4}}, "embeding_size", "embedding_size"),
        ({"backbone": "vbpr", "model": {"embeding_size": 4}}, "embeding_size", "embedding_size"),
    ],
)
def test_unknown_key_with_a_similar_one(values, wrong, right):
    message = refusal(values)
    assert message.startswith(f"settings.{list(values)[-1]}: ")
    assert f"unknown setting {wrong!r}; did you mean {right!r}?" in message


def test_unknown_setting_of_a_method_with_a_similar_one():
    with pytest.raises(InputError, match=r"mmrecun: unknown setting 'alfa'; did you mean 'alpha'\?"):
        find("mmrecun", {"alfa": 0.1})


def test_unknown_group():
    assert refusal({"trian": {}}) == "settings: unknown group 'trian'; did you mean 'train'?"
    assert refusal({"zzz": 1}) == "settings: unknown group 'zzz'; known groups: backbone, model, train"
    assert refusal({"mmrecun": {"steps": 3}}).startswith("settings: unknown group 'mmrecun'")


def test_unknown_key_with_no_similar_one():
    message = refusal({"model": {"zzz": 1}})
    known = ", ".join(field.name for field in dataclasses.fields(Settings))
    assert message == f"settings.model: unknown setting 'zzz'; known settings: {known}"


@pytest.mark.parametrize(("section", "name"), FIELDS)
def test_wrong_types(section, name):
    """In particular: true is no number, 1 is no truth value, text is neither, whole numbers are not rounded to."""
    kind = kind_of(section, name)
    wrong = {int: [True, 1.0, "1", None, [1]], float: [True, "0.1", None, [0.1]], bool: [1, 0, "true", None]}
    for value in wrong.get(kind, [None, True, 1, "nonsense", ["auto"]]):
        message = refusal({name: value}, KINDS[section])
        assert message.startswith(f"settings.{name}: {value!r} is not ")
        if kind in wrong:
            assert f"of type {kind.__name__}; " in message


def bounds_of(where, name):
    hint = typing.get_type_hints(KINDS[where], include_extras=True)[name]
    return typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()


NUMBERS = [(where, name) for where, name in FIELDS if kind_of(where, name) in (int, float)]


@pytest.mark.parametrize(("section", "name"), NUMBERS)
def test_every_number_has_a_range(section, name):
    """From a file and in Python; the sentence says what is allowed."""
    kind, bounds = kind_of(section, name), bounds_of(section, name)
    assert any(isinstance(bound, (Ge, Gt)) for bound in bounds), "no lower bound"
    outside = [-1] if kind is int else [-1.0, math.inf, -math.inf, math.nan, 10**400]
    if kind is int:
        outside += [10**30, max(bound.le for bound in bounds if isinstance(bound, Le)) + 1]
    for bound in bounds:
        match bound:
            case Ge(ge=float() | int() as limit):
                outside.append(limit - 1)
            case Gt(limit) | Lt(limit):
                outside.append(limit)
            case Le(le=float() | int() as limit):
                outside.append(limit + 1)
    for value in outside:
        message = refusal({name: value}, KINDS[section])
        assert message.startswith(f"settings.{name}: ")
        assert message.endswith("is allowed")
        if isinstance(value, kind):
            with pytest.raises(InputError, match=f"^{name}: .* is allowed"):
                KINDS[section](**{name: value})
    for bound in bounds:
        if isinstance(bound, (Ge, Le)):
            limit = kind(bound.ge if isinstance(bound, Ge) else bound.le)
            assert getattr(from_dict({name: limit}, KINDS[section], section), name) == limit


@pytest.mark.parametrize(
    ("text", "value"),
    [(".5", 0.5), ("1.", 1.0), ("+2", 2.0), ("1e-3", 1e-3), ("5E2", 500.0), ("1_0", "1_0"), ("inf", "inf")],
)
def test_numbers_in_any_usual_form(text, value):
    assert override({"train": {}}, [f"train.learning_rate={text}"]) == {"train": {"learning_rate": value}}


@pytest.mark.parametrize("seed", [-1, 2**31, 10**30, True, 1.5, "0", None])
def test_bad_seeds(seed):
    with pytest.raises(InputError, match="seed: "):
        check_seed(seed)


@pytest.mark.parametrize("values", [[], "train", 3, None])
def test_settings_that_are_no_table(values):
    assert refusal(values) == f"settings: expected a table of settings, got {values!r}"
    assert refusal({"train": values}) == f"settings.train: expected a table of settings, got {values!r}"


def test_whole_numbers_are_floats_where_floats_are_expected():
    value = config_from_dict({"train": {"learning_rate": 1}}).train.learning_rate
    assert value == 1.0
    assert isinstance(value, float)


LITERALS = [(s, n) for s, n in FIELDS if typing.get_origin(kind_of(s, n)) is typing.Literal]


@pytest.mark.parametrize(("section", "name"), LITERALS)
def test_choices(section, name):
    choices = typing.get_args(kind_of(section, name))
    for choice in choices:
        assert getattr(from_dict({name: choice}, KINDS[section], section), name) == choice
    message = refusal({name: choices[0].upper()}, KINDS[section])
    assert message.startswith(f"settings.{name}: {choices[0].upper()!r} is not one of ")
    assert all(repr(choice) in message for choice in choices)


def test_there_are_choices():
    assert {("mgcn, the backbone", "layout"), ("mmrecun", "reverse"), ("train", "precision")} <= set(LITERALS)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("nowhere.json", None, ["no such file"]),
        ("settings.yaml", "train: {}", [".json or .toml"]),
        ("settings", "{}", [".json or .toml"]),
        ("settings.json", "{", ["not valid JSON"]),
        ("settings.toml", "train = ", ["not valid TOML"]),
        ("settings.json", b"\xff\xfe", ["byte 0 is no UTF-8"]),
        ("settings.toml", b"\xff\xfe", ["byte 0 is no UTF-8"]),
        ("settings.json", "[" * 100_000, ["too deep"]),
        ("settings.toml", "a = " + "[" * 100_000, ["too deep"]),
        ("settings.json", '{"train": {"batch_size": ' + "9" * 5000 + "}}", ["not valid JSON"]),
        ("settings.json", '{"train": {"batch_size": ' + "9" * 4000 + "}}", ["train.batch_size: 999", "at most"]),
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
    with pytest.raises(InputError, match="is a folder"):
        load_config(tmp_path / "settings.json")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build(name):
    """Each gives a model for any data, and can be an argument of a compiled function, which takes hashable ones."""
    config = PRESETS[name]
    assert isinstance(config, Config)
    assert hash(config) == hash(config_from_dict(config_to_dict(config)))
    for modalities in range(3):
        model = module(shape_of(small_dataset(modalities)), config.model)
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
    code = "import sys, recunlearn_jax.settings, recunlearn_jax.errors; assert not {'jax', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
