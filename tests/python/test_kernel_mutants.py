"""One barrier of each kernel file dropped: its tests notice. All of them: kernel_mutants.py, which CI runs apart."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "metalsim"))
metalsim = pytest.importorskip("metalsim", reason="tools/metalsim is part of a checkout only")
if metalsim.why_not():
    pytest.skip(metalsim.why_not(), allow_module_level=True)

import kernel_mutants  # noqa: E402

FILES = kernel_mutants.files_with_barriers()


def test_every_file_has_tests_and_every_survivor_exists() -> None:
    assert set(FILES) == set(kernel_mutants.TESTS)
    names = [mutant.name for file in FILES for mutant in kernel_mutants.mutants_of(file)]
    assert len(names) == len(set(names))
    assert set(kernel_mutants.survivors()) <= set(names)


@pytest.mark.parametrize("file", FILES)
def test_a_dropped_barrier_is_noticed(file: str) -> None:
    mutant = kernel_mutants.mutants_of(file)[-1]
    assert kernel_mutants.complaint(kernel_mutants.fate_of(mutant)) == ""


def test_a_survivor_that_nobody_listed_is_named() -> None:
    mutant = kernel_mutants.Mutant("norm", "sum", "norm sum 1", "norm.metal: threadgroup_barrier of line 1 dropped", "")
    fate = kernel_mutants.Fate(mutant, killed_by="", seconds=0)
    assert kernel_mutants.complaint(fate) == f"{mutant.what} ({mutant.name}) and no test noticed"
