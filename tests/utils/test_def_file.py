import pytest

import models.direct_head
from utils import def_file
from utils.def_file import PROJECT, call, check_params, in_project, load_function
from utils.errors import UserError


def create(width, depth=2, *, bias):
    return {"width": width, "depth": depth, "bias": bias}


@pytest.fixture
def write_file(tmp_path):
    def write(name, text="def create_model(size=1):\n    return size + 41\n"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", ["./models/direct_head.py", "models/direct_head.py"])
def test_a_file_of_the_project_is_loaded_as_its_own_module(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function = load_function(name, "create_model", "networks.head")
    assert function is models.direct_head.create_model


def test_a_file_outside_the_project_loads_by_absolute_path(write_file):
    path = write_file("my_model.py")
    assert load_function(str(path), "create_model", "networks.x")(1) == 42


def test_a_file_outside_the_project_loads_relative_to_the_working_folder(
    write_file, tmp_path, monkeypatch
):
    write_file("mine/my_model.py")
    monkeypatch.chdir(tmp_path)
    assert load_function("./mine/my_model.py", "create_model", "networks.x")(1) == 42


@pytest.mark.parametrize("name", ["beta-0.99/model.py", "my-model.py", "3d.py"])
def test_a_file_in_the_project_whose_path_is_no_module_name_loads(write_file, name, monkeypatch):
    path = write_file(name)
    monkeypatch.setattr(def_file, "PROJECT", path.parent if "/" not in name else path.parents[1])
    assert load_function(name, "create_model", "networks.x")(1) == 42


def test_an_unknown_file_is_a_user_error():
    with pytest.raises(UserError) as error:
        load_function("./models/no_such.py", "create_model", "networks.head")
    assert str(error.value) == "networks.head.def_file is './models/no_such.py': no such file"


def test_a_file_without_the_function_is_a_user_error():
    with pytest.raises(UserError) as error:
        load_function("./models/direct_head.py", "create_loss", "criterions.x")
    assert "criterions.x.def_file is './models/direct_head.py'" in str(error.value)
    assert "defines no create_loss()" in str(error.value)


def test_params_come_before_what_is_supplied_and_both_before_defaults():
    supplied = {"width": 1, "bias": True, "never_asked_for": 0}
    assert call(create, {"width": 8}, supplied, "x") == {"width": 8, "depth": 2, "bias": True}
    assert call(create, {}, supplied | {"depth": 5}, "x") == {"width": 1, "depth": 5, "bias": True}


def test_an_unknown_param_is_a_user_error_that_names_the_nearest():
    for check in (
        lambda: check_params(create, {"widht": 3}, "networks.head.params"),
        lambda: call(create, {"widht": 3}, {"width": 1, "bias": True}, "networks.head.params"),
    ):
        with pytest.raises(UserError, match=r"networks\.head\.params\.widht: .*'width'") as error:
            check()
        assert "\n" not in str(error.value)


def test_a_missing_param_is_a_user_error_that_names_it():
    with pytest.raises(UserError, match=r"networks\.head lacks 'bias'"):
        call(create, {"width": 3}, {}, "networks.head")


def test_a_function_that_takes_any_keyword_gets_every_param():
    def create_any(width, *args, **options):
        return width, args, options

    check_params(create_any, {"dropout": 0.5}, "x")
    supplied = {"width": 4, "num_classes": 10, "options": 1, "args": 2}
    assert call(create_any, {"dropout": 0.5}, supplied, "x") == (4, (), {"dropout": 0.5})


def test_a_bare_star_argument_is_neither_needed_nor_a_valid_key():
    def create_star(width, *args):
        return width, args

    assert call(create_star, {}, {"width": 4}, "x") == (4, ())
    with pytest.raises(UserError, match="valid: width"):
        call(create_star, {"args": 3}, {"width": 4}, "x")


def test_files_of_the_project_are_named_from_its_root(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT / "config")
    assert in_project("Digits_LT/stage_1.py") == "config/Digits_LT/stage_1.py"
    assert in_project(str(PROJECT / "main.py")) == "main.py"
    assert in_project(str(tmp_path / "own.py")) == str(tmp_path / "own.py")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines (part.py:1)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import no_such_module_of_anyone", "no_such_module_of_anyone"),
        ("def create_model(:", "SyntaxError"),
        ("create_model = 5", "defines no create_model()"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_user_error_in_one_line(write_file, text, words):
    path = write_file("part.py", text)
    with pytest.raises(UserError) as error:
        load_function(str(path), "create_model", "networks.x")
    assert str(error.value).startswith(f"networks.x.def_file is '{path}': ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_python_is_a_user_error(write_file):
    path = write_file("part.txt")
    with pytest.raises(UserError, match="expected a Python file"):
        load_function(str(path), "create_model", "networks.x")


@pytest.mark.parametrize("kind", [RuntimeError, KeyError, OverflowError, MemoryError])
def test_whatever_a_part_raises_is_a_user_error_that_says_where(kind):
    def create_model():
        raise kind("two\nlines")

    with pytest.raises(UserError, match=r"networks\.x: create_model\(.* failed: ") as error:
        call(create_model, {}, {}, "networks.x")
    assert kind.__name__ in str(error.value)
    assert "(test_def_file.py:" in str(error.value)
    assert "\n" not in str(error.value).replace("\\n", "")


def test_a_parts_own_user_error_gets_its_place():
    def create_model():
        raise UserError("growth is -1")

    with pytest.raises(UserError, match=r"^networks\.x: growth is -1$"):
        call(create_model, {}, {}, "networks.x")
