"""The house rules that a machine can check: first lines, layers, build lists, links, pinned versions, CI steps."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE_DIRS = ("bench", "cmake", "csrc", "examples", "kernels", "python", "tests", "tools")
CODE = {".cpp", ".h", ".metal", ".cu", ".py", ".pyi", ".sh", ".cmake"}
TEXT = CODE | {".in", ".json", ".md", ".toml", ".txt", ".yml"}

if not (ROOT / ".ci").exists():
    pytest.skip("a source archive: the rules are the repository's", allow_module_level=True)

# Lower layers first: a file includes its own layer and those before it.
LAYERS = ["core", "checkpoint", "engine", "ops", "cpu", "gpu", "model", "graph", "session", "bindings"]


def files(suffixes: set[str]) -> list[Path]:
    found = [path for folder in SOURCE_DIRS for path in (ROOT / folder).rglob("*")]
    found += [*ROOT.iterdir(), *(ROOT / "docs").rglob("*"), *(ROOT / ".github").rglob("*")]
    return sorted(p for p in found if p.is_file() and p.suffix in suffixes and "__pycache__" not in p.parts)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def cmake_sources() -> set[str]:
    lists = re.sub(r"set_source_files_properties\([^)]*\)", "", (ROOT / "CMakeLists.txt").read_text())
    return set(re.findall(r"\s((?:csrc|tests/cpp)/[\w/]+\.cpp)(?=[\s)])", lists))


@pytest.mark.parametrize("path", files(CODE), ids=name)
def test_first_line_says_what_the_file_is(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    first = lines[1] if lines[0].startswith("#!") else lines[0]
    if path.suffix in {".cpp", ".h", ".metal", ".cu"}:
        assert first.startswith(f"// {name(path)}: "), first
    elif path.suffix in {".sh", ".cmake"}:
        assert re.match(rf"# {re.escape(name(path))}\b.*: ", first), first
    else:
        assert re.match(r'(r?""")?[^\s"]|# \S', first), first
        assert len(first) > 12, first


@pytest.mark.parametrize("path", files(TEXT), ids=name)
def test_names_no_machine_and_no_registry_host(path):
    text = path.read_text(encoding="utf-8")
    folders = r"/r[o]ot/|/h[o]me/\w|/U[s]ers/\w|/w[o]rk/|/tmp/w[/]|[.]{2}/sh[a]red"
    hosts = r"pypi[.]org|pythonhosted[.]org|npmjs[.]org|deb[.]debian"
    assert not re.findall(f"{folders}|{hosts}", text)


def test_cmake_lists_every_source():
    assert cmake_sources() == {name(p) for folder in ("csrc", "tests/cpp") for p in (ROOT / folder).rglob("*.cpp")}


@pytest.mark.parametrize("path", files({".cpp", ".h"}), ids=name)
def test_includes_exist_and_point_down(path):
    own = path.relative_to(ROOT / "csrc").parts[0] if (ROOT / "csrc") in path.parents else "bindings"
    for included in re.findall(r'^#include "((?!mlx/)[^"]+)"', path.read_text(encoding="utf-8"), re.M):
        places = (ROOT / "csrc", path.parent, ROOT / "tools" / "metalsim" / "objc")
        assert any((place / included).exists() for place in places), f"{included} does not exist"
        if (ROOT / "csrc" / included).exists():
            layer = included.split("/")[0]
            assert LAYERS.index(layer) <= LAYERS.index(own), f"{own} may not depend on {layer}"


@pytest.mark.parametrize("path", files({".md"}), ids=name)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        page = (path.parent / target) if target else path
        assert page.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}, link


def test_architecture_names_every_source_directory():
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert [layer for layer in LAYERS if f"csrc/{layer}" not in text] == []


def test_one_mlx_version():
    pins = set()
    for path in [*files({".toml", ".cmake", ".md"}), ROOT / "CMakeLists.txt"]:
        if path.name != "CHANGELOG.md":
            pins |= set(re.findall(r"mlx(?:\[\w+\]|-c\w+(?:-\d+)?)?==([\d.]+\d)", path.read_text()))
    pins |= set(re.findall(r"PERSONAPLEX_MLX_VERSION ([\d.]+)\)", (ROOT / "cmake" / "dependencies.cmake").read_text()))
    assert len(pins) == 1, pins


def test_one_nanobind_version():
    text = (ROOT / "pyproject.toml").read_text() + (ROOT / "cmake" / "dependencies.cmake").read_text()
    assert len(set(re.findall(r"nanobind(?:==| )(\d[\d.]*\d)", text))) == 1


def test_changelog_tells_of_this_version():
    version = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version
    assert f"## {version[1]}" in (ROOT / "CHANGELOG.md").read_text()


def test_workflow_runs_the_scripts_that_ci_run_runs():
    steps = set()
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        runs = re.findall(r"^\s*-? ?run: *(.*)$", workflow.read_text(), re.M)
        assert all(re.fullmatch(r"tools/ci/\w+\.sh", run) for run in runs), runs
        steps |= set(runs)
    assert steps
    assert steps <= set(re.findall(r"^(tools/ci/\w+\.sh)", (ROOT / ".ci" / "run").read_text(), re.M))


@pytest.mark.parametrize("path", [ROOT / ".ci" / "run", *files({".sh"})], ids=name)
def test_scripts_can_be_run(path):
    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in path.read_text()
