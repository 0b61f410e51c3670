"""Configs are strict: what nothing reads is refused, and every value can be overridden."""

from pathlib import Path

import pytest
import yaml

from engine.build import check_config_parts
from engine.config import load_config, write_config
from utils.errors import UserError

STAGE_1 = "config/Digits_LT/stage_1.py"
STAGE_2 = "config/Digits_LT/stage_2_meta_embedding.py"


def test_a_sibling_states_only_what_differs():
    first, second = load_config(STAGE_1), load_config(STAGE_2)
    assert second.data == first.data
    assert second.networks["feat_model"].params == first.networks["feat_model"].params
    assert second.networks["hash_head"].def_file != first.networks["hash_head"].def_file


def test_siblings_of_one_name_in_two_folders_stay_apart():
    digits = load_config(STAGE_2)
    cifar = load_config("config/Cifar100_LT/stage_2_meta_embedding.py")
    assert (digits.training_opt.dataset, cifar.training_opt.dataset) == ("Digits_LT", "Cifar100_LT")


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("training_opt.code_length=16", lambda c: c.training_opt.code_length == 16),
        (
            "training_opt.optimizer.params.lr=1e-4",
            lambda c: c.training_opt.optimizer["params"]["lr"] == 1e-4,
        ),
        ("training_opt.gradient_clip=null", lambda c: c.training_opt.gradient_clip is None),
        ("training_opt.top_k=[1, 2]", lambda c: c.training_opt.top_k == [1, 2]),
        (
            "training_opt.scheduler={name: StepLR, params: {step_size: 3}}",
            lambda c: c.training_opt.scheduler["params"] == {"step_size": 3},
        ),
        (
            "networks.feat_model.params.width=8",
            lambda c: c.networks["feat_model"].params["width"] == 8,
        ),
        (
            "criterions.classification.loss_params.label_smoothing=0",
            lambda c: c.criterions["classification"].loss_params["label_smoothing"] == 0,
        ),
    ],
)
def test_opts_set_any_value_in_yaml(override, read):
    assert read(load_config(STAGE_1, [override]))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training_opt.code_lenght=16", ["training_opt.code_lenght", "'code_length'"]),
        ("trainin_opt.seed=1", ["trainin_opt", "'training_opt'"]),
        ("networks.feet_model.fix=True", ["feet_model", "'feat_model'"]),
        ("networks.feat_model.params.widht=8", ["params.widht", "'width'"]),
        ("criterions.classification.loss_params.smoothing=0", ["'label_smoothing'"]),
        ("data.params.folder=x", ["data.params.folder"]),
        ("training_opt.optimizer.name=AdamX", ["AdamX", "'Adam'"]),
        ("training_opt.optimizer.params.learning=1", ["optimizer.params.learning"]),
        ("training_opt.scheduler.params.T_mx=1", ["scheduler.params.T_mx", "'T_max'"]),
        ("training_opt.augmentation.crop=1", ["augmentation.crop", "'crop_scale'"]),
        ("training_opt.code_length=long", ["code_length", "'long'", "a whole number"]),
        ("training_opt.code_length=0", ["code_length is 0", "at least 1"]),
        ("training_opt.code_length=[8, 8]", ["code_length is [8, 8]", "different"]),
        ("training_opt.code_length=[]", ["code_length is []", "different"]),
        ("training_opt.code_length=[8, x]", ["code_length is [8, 'x']", "a whole number"]),
        ("training_opt.code_length=[8, 16]", ["hash_head takes one", "[8, 16]"]),
        ("training_opt.imbalance_factor=0.5", ["imbalance_factor is 0.5", "at least 1"]),
        ("training_opt.sampler=random", ["sampler", "'uniform'", "'class_aware'"]),
        ("training_opt.num_epochs=0", ["num_epochs is 0"]),
        ("training_opt.seed=4294967296", ["training_opt.seed is 4294967296", "at most 4294967295"]),
        ("training_opt.log_dir=logs/{seed.foo}", ["log_dir", "foo"]),
        ("training_opt.optimizer.params=null", ["optimizer.params is None", "a dict"]),
        ("training_opt.augmentation.crop_scale=5", ["crop_scale is 5", "two numbers"]),
        ("training_opt.augmentation.crop_scale=[1.0, 0.5]", ["crop_scale", "smaller first"]),
        ("training_opt.augmentation.color_jitter=[1]", ["color_jitter", "four numbers"]),
        ("training_opt.augmentation.interpolation=foo", ["interpolation is 'foo'", "bicubic"]),
        ("networks.feat_model.optim_params.lrr=5", ["feat_model.optim_params.lrr", "'lr'"]),
        ("criterions.classification.optim_params={lrr: 5}", ["classification.optim_params.lrr"]),
        ("criterions.classification.weight=.nan", ["weight is nan", "finite"]),
        ("training_opt.seed", ["KEY=VALUE"]),
        ("training_opt.seed=[", ["not YAML"]),
        ("training_opt.log_dir=logs/{bits}", ["log_dir", "bits"]),
        ("engine=magic", ["'magic'", "minibatch"]),
        ("memory.dpp_samples=3", ["memory.dpp_samples is 3", "centroids"]),
        ("networks.feat_model.def_file=./models/none.py", ["./models/none.py", "no such file"]),
        ("criterions.classification.def_file=./models/pixels.py", ["create_loss"]),
        ("training_opt.image_size=1000000", ["image_size is 1000000", "at most 4096"]),
        ("training_opt.batch_size=1000000000000", ["batch_size", "at most 65536"]),
        ("training_opt.batch_size=1", ["batch_size is 1", "at least 2"]),
        ("training_opt.evaluation_batch_size=65537", ["evaluation_batch_size", "at most 65536"]),
        ("training_opt.feature_dim=1000000000", ["feature_dim", "at most 16384"]),
        ("training_opt.code_length=1000000000", ["code_length is 1000000000", "at most 4096"]),
        ("training_opt.num_workers=1000000", ["num_workers is 1000000", "at most 1024"]),
        ("training_opt.num_epochs=1000001", ["num_epochs", "at most 1000000"]),
        ("training_opt.top_k=[1000000000000]", ["top_k is [1000000000000]", "up to 10000000"]),
        ("data.cache_size=1000000", ["data.cache_size", "at most 4096"]),
        ("memory={centroids: true, dpp_samples: 1001}", ["dpp_samples is 1001", "at most 1000"]),
        ("alternate.samples=1000000000000", ["alternate.samples", "at most 10000000"]),
        ("training_opt.seed=9223372036854775808", ["training_opt.seed", "64 bits"]),
        ("training_opt.final_epochs=2", ["final_epochs is 2", "final_augmentation is empty"]),
        ("training_opt.final_augmentation.flip=1", ["final_augmentation.flip is 1"]),
        ("training_opt.warmup_epochs=.inf", ["warmup_epochs is inf", "finite"]),
        ("training_opt.log_dir=''", ["training_opt.log_dir is empty"]),
        ("training_opt.log_dir='a{seed:>9999999}'", ["log_dir", "'>9999999'"]),
        ("training_opt.log_dir='a{see}'", ["log_dir", "'seed'"]),
        ("training_opt.log_dir='a{optimizer}'", ["log_dir", "{optimizer}"]),
        ("training_opt.log_dir='a{seed'", ["log_dir", "write {{ for a brace"]),
        ("training_opt.log_dir='a{seed:x!}'", ["log_dir", "'a{seed:x!}'"]),
        ("training_opt.data_root=2020-13-45", ["training_opt.data_root", "not YAML"]),
        ("training_opt.data_root=2020-12-15", ["training_opt.data_root", "(date)"]),
        ("training_opt.data_root=!!timestamp x", ["training_opt.data_root", "not YAML"]),
        ("training_opt.data_root=!!set {a, b}", ["training_opt.data_root", "(set)"]),
        ("training_opt.top_k=&a [*a]", ["training_opt.top_k", "within each other"]),
        ("training_opt.top_k=" + "[" * 5000, ["training_opt.top_k", "not YAML"]),
        ("training_opt.seed..x=1", ["training_opt.seed", "empty"]),
        ("=5", ["a key of config is empty"]),
        ("a\nb=5", [r"--opts is 'a\nb'"]),
        ("networks.heads.add_module={def_file: x}", ["unknown key", "'hash_head'"]),
        ("networks={a.b: {def_file: x}}", ["a name in networks is 'a.b'"]),
        ("networks.hash_head.params.code_length=5000", ["params.code_length", "at most 4096"]),
        ("networks.feat_model.params.width=wide", ["width is 'wide'", "a whole number"]),
        ("criterions.classification.loss_params.label_smoothing=x", ["label_smoothing is 'x'"]),
        ("training_opt.augmentation.crop_ratio=[1.0, 1e18]", ["crop_ratio", "0.01 to 100"]),
        ("training_opt.augmentation.color_jitter=[0, 0, 0, 1]", ["color_jitter", "hue's to 0.5"]),
    ],
)
def test_a_mistake_is_one_line_that_names_key_and_remedy(override, words):
    with pytest.raises(UserError) as raised:
        check_config_parts(load_config(STAGE_1, [override]))
    message = str(raised.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("config = {", "SyntaxError"),
        ("import no_such_module", "no_such_module"),
        ("settings = {}", "does not end with config"),
        ("config = {'training_opt': {'dataset': 'x'}}", "lacks method"),
    ],
)
def test_a_broken_config_file_is_named(tmp_path, text, words):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as raised:
        load_config(str(path))
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("config = {}\nconfig['data'] = config", "data.data.data"),
        ("config = {5: 6}", "a key of config is 5, expected text"),
        ("config = {'data': {'params': {'x': {1, 2}}}}", "data.params.x is {1, 2}"),
        ("config = {'training_opt': open}", "training_opt is <built-in function open>"),
    ],
)
def test_a_config_file_with_odd_values_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "odd.py"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        load_config(str(path))
    assert words in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["x.txt", "x" * 300 + ".py", "x\0.py", "folder.py"])
def test_a_path_that_is_no_config_file_is_refused(tmp_path, name):
    (tmp_path / "x.txt").write_text("config = {}")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UserError) as raised:
        load_config(f"{tmp_path}/{name}")
    assert "\n" not in str(raised.value)


def test_a_resolved_config_is_a_config_that_takes_overrides(tmp_path):
    path = str(tmp_path / "config.yaml")
    resolved = load_config(STAGE_2)
    write_config(resolved, Path(path))
    assert load_config(path).to_dict() == resolved.to_dict()
    assert load_config(path, ["training_opt.seed=7"]).training_opt.seed == 7


@pytest.mark.parametrize("text", ["- 1", "{", "", "training_opt: !!set {a}", "\xff"])
def test_a_broken_resolved_config_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError) as raised:
        load_config(str(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_config_file_is_named():
    with pytest.raises(UserError, match=r"config/none\.py does not exist"):
        load_config("config/none.py")


def test_places_of_runs_follow_the_options():
    config = load_config(STAGE_2, ["training_opt.imbalance_factor=20", "training_opt.seed=3"])
    folder = "./logs/Digits_LT/if20_32bits_seed3"
    assert config.training_opt.log_dir == f"{folder}/stage_2_meta_embedding"
    assert config.networks["feat_model"].weights == f"{folder}/stage_1/final_model_checkpoint.pth"


def test_several_code_lengths_are_joined_in_a_place_and_a_list_of_one_is_that_one():
    config = load_config(STAGE_1, ["training_opt.code_length=[4, 8, 16]"])
    assert config.training_opt.log_dir == "./logs/Digits_LT/if50_4-8-16bits_seed0/stage_1"
    assert load_config(STAGE_1, ["training_opt.code_length=[32]"]) == load_config(STAGE_1)


def test_the_resolved_config_reads_back(tmp_path):
    config = load_config(STAGE_1, ["training_opt.augmentation.crop_scale=[0.5, 1.0]"])
    write_config(config, tmp_path / "config.yaml")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == config.to_dict()


def test_the_epochs_of_all_turns_are_bounded():
    alternate = ["alternate.iterations=10000", "alternate.epochs=1000"]
    with pytest.raises(UserError, match=r"alternate\.iterations is 10000 .* at most 1000000"):
        load_config("config/Cifar10/adsh.py", alternate)


@pytest.mark.parametrize("path", sorted(map(str, Path("config").glob("*/*.py"))))
def test_every_shipped_config_is_valid(path):
    check_config_parts(load_config(path))
