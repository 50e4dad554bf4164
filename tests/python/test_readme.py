"""README.md and examples/ do what they show: Python and commands run as written, with a random model for large ones."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import personaplex
from personaplex import hub

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Real models need gigabytes; what the text says about them is tried on random:tiny.
PRELUDE = """
import personaplex.api
personaplex.api._kept[personaplex.hub.DEFAULT_MODEL] = personaplex.load("random:tiny")
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands() -> list[str]:
    """Each `personaplex ...` line of the README, continuation lines joined."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if re.search(r"(^|&& )personaplex ", line)]


def on_random(text: str) -> str:
    for model in (*hub.KNOWN_MODELS, "random:7b"):
        text = text.replace(model, "random:tiny")
    return text


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the examples in it, to run things from."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def run(arguments: list[str], place: Path) -> subprocess.CompletedProcess[bytes]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(arguments, cwd=place, env={**os.environ, "PATH": path}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.strip().splitlines()[-1][:40])
def test_python_of_the_readme(code, place):
    run([sys.executable, "-W", "error", "-c", PRELUDE + on_random(code)], place)


@pytest.mark.parametrize("line", commands())
def test_command_of_the_readme(line, place):
    command = on_random(line).rpartition("&& ")[2]
    command, _, player = command.partition(" | ")
    if command.startswith("personaplex respond") and "--model" not in command:
        command += " --model random:tiny"
    done = run(shlex.split(command), place)
    if player:
        assert done.stdout.startswith(b"RIFF")
    elif output := re.search(r"--output (\S+)", command):
        assert (place / output[1]).stat().st_size > 24000


def test_the_first_command_says_what_the_readme_shows(place):
    first = commands()[0].rpartition("&& ")[2]
    assert "--model tiny" in first
    assert run(shlex.split(first), place).stdout.decode() == blocks("text")[0]


def test_readme_has_examples_to_run():
    assert len(blocks("python")) >= 3
    assert len(commands()) >= 3


def test_readme_test_command_is_the_one_of_ci():
    (command,) = [line for line in "".join(blocks("bash")).splitlines() if "pytest" in line]
    assert command in (ROOT / "tools" / "ci" / "test.sh").read_text().splitlines()


def test_readme_names_every_model_voice_family_and_prompt():
    for name in (*hub.KNOWN_MODELS, *personaplex.PROMPTS, *hub._RANDOM, "`tiny`"):
        assert name in README, name


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_example(script, place):
    arguments = ["examples/question.wav"] + (["answer.wav"] if script.stem == "respond" else [])
    done = run([sys.executable, "-W", "error", f"examples/{script.name}", *arguments, "--model", "random:tiny"], place)
    assert done.stdout.strip()


def test_readme_lists_the_options_of_respond():
    """Every option has a row in the table, and every row is an option."""
    cells = re.findall(r"^\| (`--.*?) \|", README.replace("\\|", "/"), re.M)
    listed = {option for cell in cells for option in re.findall(r"`(--[\w-]+)", cell) if cell != "`--model`"}
    shown = run(["personaplex", "respond", "--help"], ROOT).stdout.decode()
    assert listed == set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", shown, re.M)) - {"--help"}
