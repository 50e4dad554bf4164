"""Drops each barrier of kernels/*.metal in turn, to see whether the kernels' own tests and metalsim's checkers notice.

    python tests/python/kernel_mutants.py [--jobs N] [FILE.metal ...]

A mutant that no test kills is a survivor: tests/survivors/kernel_barriers.txt lists those that are known, each with its
reason. Exit status 1 for one that is not listed, and for one that is listed and was killed.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "kernels"
SURVIVORS = ROOT / "tests" / "survivors" / "kernel_barriers.txt"
sys.path[:0] = [str(ROOT / "tests" / "python"), str(ROOT / "tools" / "metalsim")]

# The tests that run a file's kernels, those that notice most first.
TESTS = {
    "codec_attend": ("codec", ["test_attend"]),
    "codec_carry": ("codec", ["test_carry"]),
    "codec_conv": ("codec", ["test_conv_streams", "test_transposed_conv"]),
    "codec_dequantize": ("codec", ["test_dequantize"]),
    "codec_linear": ("codec", ["test_linear", "test_layer_streams"]),
    "codec_qkv": ("codec", ["test_qkv", "test_layer_streams"]),
    "codec_quantize": ("codec", ["test_quantize"]),
    "codec_residual": ("codec", ["test_residual_block"]),
    "lm_attend": ("lm", ["test_attend", "test_attend_extreme_scores"]),
    "lm_embed": ("lm", ["test_embed_sum"]),
    "lm_norm": ("lm", ["test_norm"]),
    "lm_product": ("lm", ["test_project", "test_project_qkv", "test_attend_project"]),
    "lm_sample": (
        "lm",
        [
            "test_sample_draws_what_the_cpu_draws",
            "test_sample_of_special_values",
            "test_sample_takes_the_first_of_those_that_tie",
        ],
    ),
}
FIRST = {"qkv": "test_project_qkv", "attend_project": "test_attend_project"}  # of a function
_ATTRIBUTE = re.compile(r"\[\[.*?\]\]")
_FUNCTION = re.compile(r"^ *(?:METAL_FUNC|kernel|void|static)\b[^;\n]*?\b(\w+)\(", re.MULTILINE)


@dataclass(frozen=True)
class Mutant:
    """A kernel file without one of its barriers."""

    file: str  # without .metal
    function: str
    name: str  # "file function n": the nth barrier of that function, whatever line it is on
    what: str
    text: str


@dataclass(frozen=True)
class Fate:
    """What became of a mutant: the test that killed it and what that said, or nothing."""

    mutant: Mutant
    killed_by: str
    seconds: float


def mutants_of(file: str) -> list[Mutant]:
    """All mutants of a file, in the order of their lines."""
    import metalsim

    text = (KERNELS / f"{file}.metal").read_text(encoding="utf-8")
    found, counts = [], dict[str, int]()
    for what, mutated in metalsim.mutants(text):
        line = int(re.search(r"line (\d+)", what)[1])  # type: ignore[index]
        before = "\n".join(text.split("\n")[:line])
        function = _FUNCTION.findall(_ATTRIBUTE.sub("", before))[-1]
        counts[function] = counts.get(function, 0) + 1
        found.append(Mutant(file, function, f"{file} {function} {counts[function]}", f"{file}.metal: {what}", mutated))
    return found


def files_with_barriers() -> list[str]:
    return [path.stem for path in sorted(KERNELS.glob("*.metal")) if mutants_of(path.stem)]


class _Kernels:
    """A library whose kernels are compiled one by one, when they are first run."""

    def __init__(self, text: str) -> None:
        self._text = text

    @functools.cache  # noqa: B019
    def _compiled(self, name: str) -> Any:
        import metalsim

        return metalsim.compile(self._text, only=[name])

    def run(self, name: str, *arguments: Any, **options: Any) -> Any:
        return self._compiled(name).run(name, *arguments, **options)


def _cases(test: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """The arguments of each case of a parametrized test."""
    axes = []
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize":
            names, values = mark.args[:2]
            names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
            axes.append([dict(zip(names, v if len(names) > 1 else [v], strict=True)) for v in values])
    for chosen in itertools.product(*reversed(axes)):
        yield {name: value for part in chosen for name, value in part.items()}


def fate_of(mutant: Mutant) -> Fate:
    """Runs the file's tests on the mutant until one fails. RuntimeError where the kernel as it is fails it, too."""
    import metalsim

    begin = time.monotonic()
    kind, tests = TESTS[mutant.file]
    tests = sorted(tests, key=lambda name: name != FIRST.get(mutant.function))
    module = importlib.import_module(f"test_kernels_{kind}")
    original, mutated = module.library, _Kernels(mutant.text)

    def failure(test: Callable[..., None], case: dict[str, Any], drop: bool) -> str:
        module.library = lambda name: mutated if drop and name == mutant.file else original(name)
        try:
            test(**case)
        except (AssertionError, metalsim.Fault) as e:
            return (str(e).strip() or type(e).__name__).splitlines()[0]
        finally:
            module.library = original
        return ""

    for name in tests:
        test = getattr(module, name)
        for case in _cases(test):
            if said := failure(test, case, drop=True):
                if failure(test, case, drop=False):
                    raise RuntimeError(f"[kernel_mutants] {name} fails without any mutation: {said}")
                return Fate(mutant, f"{name}: {said}", time.monotonic() - begin)
    return Fate(mutant, "", time.monotonic() - begin)


def survivors() -> dict[str, str]:
    """The known ones, with their reasons."""
    lines = SURVIVORS.read_text(encoding="utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines if line and not line.startswith("#"))


def complaint(fate: Fate) -> str:
    """What is wrong with a fate, given the list of survivors; or nothing."""
    listed = fate.mutant.name in survivors()
    if not fate.killed_by and not listed:
        return f"{fate.mutant.what} ({fate.mutant.name}) and no test noticed"
    if fate.killed_by and listed:
        return f"{fate.mutant.name} is listed as a survivor, but was killed by {fate.killed_by}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.metal")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    files = [path.stem for path in args.files] or files_with_barriers()
    mutants = [mutant for file in files for mutant in mutants_of(file)]
    complaints, killed, begin = [], 0, time.monotonic()
    with ProcessPoolExecutor(args.jobs) as pool:
        for fate in pool.map(fate_of, mutants):
            complaints += filter(None, [complaint(fate)])
            killed += bool(fate.killed_by)
            print(f"{fate.seconds:5.1f} s  {fate.mutant.name}: {fate.killed_by or 'SURVIVED'}", flush=True)
    unknown = {name for name in survivors() if name.split()[0] in files} - {mutant.name for mutant in mutants}
    complaints += [f"{name} is listed as a survivor, but there is no such barrier" for name in sorted(unknown)]
    seconds = time.monotonic() - begin
    print(f"{killed} of {len(mutants)} mutants killed, {len(mutants) - killed} survived, in {seconds:.0f} s")
    print(*complaints, sep="\n", file=sys.stderr)
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main())
