"""The installed package: files, versions, stub and command are what the source tree promises."""

import ast
import importlib.metadata
import importlib.resources
import inspect
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import personaplex
from personaplex import _build_info, _core


def stub() -> ast.Module:
    return ast.parse((importlib.resources.files("personaplex") / "_core.pyi").read_text())


def declared(body: list[ast.stmt]) -> set[str]:
    functions = {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return functions | {
        node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def public(members: dict[str, object] | types.MappingProxyType[str, object]) -> set[str]:
    return {name for name in members if not name.startswith("_")}


def test_is_the_version_of_the_source_tree(repository):
    version = re.search(r'^version = "([^"]+)"', (repository / "pyproject.toml").read_text(), re.M)
    assert version
    assert personaplex.__version__ == importlib.metadata.version("personaplex") == _build_info.VERSION == version[1]


def test_was_built_against_the_installed_mlx():
    assert _build_info.MLX_VERSION == _core.MLX_VERSION == importlib.metadata.version("mlx")


@pytest.mark.parametrize(
    "file", ["py.typed", "_core.pyi", "_build_info.py", "data/random.model", "tiny/config.json", "tiny/NOTICE"]
)
def test_ships(file):
    assert (importlib.resources.files("personaplex") / file).is_file()


def test_ships_every_python_file_and_nothing_else(repository):
    source = repository / "python" / "personaplex"
    installed = Path(_core.__file__).parent
    if installed != Path(personaplex.__file__).parent:
        pytest.skip("an editable installation: the Python files are the source tree's")
    keep = {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    found = {
        p.relative_to(installed).as_posix()
        for p in installed.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert found == keep | {"_build_info.py", Path(_core.__file__).name}


def test_installed_licences():
    """Of the code, and of what the shipped model was made from."""
    files = importlib.metadata.files("personaplex")
    assert files
    found = {Path(file).name for file in files if ".dist-info/" in str(file)}
    assert {"LICENSE", "NOTICE"} <= found


def test_stub_declares_what_the_extension_has():
    assert public(vars(_core)) == declared(stub().body)


@pytest.mark.parametrize(
    "node", [node for node in stub().body if isinstance(node, ast.ClassDef)], ids=lambda node: node.name
)
def test_stub_declares_the_members_of(node):
    cls = getattr(_core, node.name)
    assert inspect.isclass(cls)
    assert public(vars(cls)) == {name for name in declared(node.body) if not name.startswith("_")}


def test_extension_loads_alone():
    """It finds libmlx by its own run path, without anyone importing mlx before."""
    code = "import sys, personaplex._core; print('mlx.core' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "False\n"


def test_command_is_installed():
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="personaplex")
    assert callable(entry.load())
