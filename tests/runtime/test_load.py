"""Finding the processor: every mistake is one line that says where."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from streampipe.errors import ModuleError, TopologyError
from streampipe.runtime.load import load_processor

HEAD = "from streampipe.processor import Processor\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.endswith("_app")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_and_a_module_name_lead_to_the_only_processor(folder: Path) -> None:
    write(folder / "pkg_one" / "app.py", HEAD + "anything = Processor('flights')\nalias = anything\n")
    assert load_processor("pkg_one.app").name == "flights"
    assert load_processor("pkg_one/app.py").name == "flights"
    assert load_processor(str(folder / "pkg_one" / "app.py")).name == "flights"


def test_a_name_chooses_among_several(folder: Path) -> None:
    write(folder / "several_app.py", HEAD + "a = Processor('one')\nb = Processor('two')\nnumber = 3\n")
    assert load_processor("several_app:b").name == "two"
    assert load_processor("several_app.py:a").name == "one"
    with pytest.raises(ModuleError, match=r"several processors \(a, b\); choose one with several_app:NAME"):
        load_processor("several_app")
    with pytest.raises(ModuleError, match="number is a int"):
        load_processor("several_app:number")
    with pytest.raises(ModuleError, match="nothing of that name"):
        load_processor("several_app:c")


def test_two_files_of_one_name_do_not_meet(folder: Path) -> None:
    for name in ("x", "y"):
        write(folder / name / "app.py", HEAD + f"p = Processor('{name}')\n")
    assert [load_processor(f"{name}/app.py").name for name in ("x", "y")] == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "holds no processor"),
        ("def f():\n    return 1 / 0\n\nf()\n", r"bad_app\.py:2: ZeroDivisionError: division by zero"),
        ("import no_such_library\n", r"bad_app\.py:1: ModuleNotFoundError: No module named 'no_such_library'"),
        ("def f(:\n", r"bad_app\.py:1: SyntaxError"),
        (
            "from streampipe import Tumbling\n\nTumbling('5 minutes')\n",
            r"bad_app\.py:3: ValueError: size: duration '5 minutes' is not like 500ms",
        ),
        ("import json\njson.loads('{')\n", r"bad_app\.py:2: JSONDecodeError"),
        ("raise ValueError('one\\ntwo')\n", "ValueError: one two"),
    ],
)
@pytest.mark.parametrize("target", ["bad_app.py", "bad_app"])
def test_a_broken_module_is_one_line_with_the_place(folder: Path, text: str, message: str, target: str) -> None:
    write(folder / "bad_app.py", text)
    with pytest.raises(ModuleError, match=message) as caught:
        load_processor(target)
    assert "\n" not in str(caught.value)


def test_a_processor_installed_as_a_library_is_named_as_well(folder: Path) -> None:
    write(folder / "site-packages" / "bad_app.py", "from streampipe import Tumbling\n\nTumbling(0)\n")
    with pytest.raises(ModuleError, match=r": bad_app\.py:3: ValueError: tumbling 0"):
        load_processor("site-packages/bad_app.py")


@pytest.mark.parametrize("target", ["no_such_app", "no_such_package.app", "no/such.py", "no_such_app:x"])
def test_a_module_that_is_not_there_says_so(folder: Path, target: str) -> None:
    with pytest.raises(ModuleError, match=r"cannot be found|does not exist"):
        load_processor(target)


def test_a_mistake_in_the_topology_keeps_its_own_error(folder: Path) -> None:
    write(folder / "topology_app.py", HEAD + "p = Processor('no topic name!')\n")
    with pytest.raises(TopologyError):
        load_processor("topology_app.py")
