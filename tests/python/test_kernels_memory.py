"""kernels/read_memory.metal, run by tools/metalsim and its checkers: it reads everything, and each word once."""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "metalsim"))
metalsim = pytest.importorskip("metalsim", reason="tools/metalsim is part of a checkout only")
if metalsim.why_not():
    pytest.skip(metalsim.why_not(), allow_module_level=True)

PATH = ROOT / "kernels" / "read_memory.metal"
GROUPS, THREADS = 3, 64


@functools.cache
def library():
    return metalsim.compile(PATH)


def test_would_compile_on_a_mac():
    metalsim.typecheck(PATH)


@pytest.mark.parametrize("name", ["read_memory_u1", "read_memory_u4", "read_memory_u8"])
@pytest.mark.parametrize("count", [1, 191, 192 * 4, 192 * 8 + 5])
@pytest.mark.parametrize("order", ["forward", "shuffle:1"])
def test_each_thread_sums_its_units(name, count, order):
    data = np.random.default_rng(count).integers(0, 1 << 32, (count, 4), dtype=np.uint32)
    data.setflags(write=False)
    sums = np.zeros(GROUPS * THREADS, np.uint32)
    launch = library().run(name, [data, sums, np.uint32(count).tobytes()], GROUPS, THREADS, order=order, record=True)
    units = np.bitwise_xor.reduce(data, axis=1)
    assert [int(np.bitwise_xor.reduce(units[i :: sums.size], initial=0)) for i in range(sums.size)] == sums.tolist()
    assert (data.ctypes.data, data.ctypes.data + data.nbytes) in launch.read
