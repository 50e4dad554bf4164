"""What a model leaves behind: threads, memory, mappings; and processes that end while it is in use."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from goldens import model

from personaplex import _core

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

STEP_FOREVER = """
import threading, time
import numpy as np
from personaplex import _core

model = _core.Model("random:tiny")
started = threading.Event()

def talk():
    session = model.session()
    session.prompt()
    while True:
        session.step(np.zeros(1920, np.float32))
        started.set()

threading.Thread(target=talk, daemon=True).start()
assert started.wait(60)
"""


def test_process_ends_while_a_daemon_thread_is_stepping() -> None:
    for _ in range(3):
        result = subprocess.run([sys.executable, "-c", STEP_FOREVER], capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""


@LINUX
def test_models_come_and_go_without_leaving_threads() -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    for _ in range(2):
        _core.Model("random:tiny").unload()
    before = threads()
    for _ in range(20):
        _core.Model("random:tiny").unload()
    assert threads() <= before + 1


@LINUX
def test_weights_are_mapped_not_copied() -> None:
    loaded = model("odd", dtype="bfloat16")  # as stored: nothing is converted
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("model.safetensors")]
    assert mapped
    assert loaded.loaded


def test_unloading_in_many_threads_at_once() -> None:
    loaded = _core.Model("random:tiny")
    session = loaded.session()
    session.prompt()
    threads = [threading.Thread(target=loaded.unload) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not loaded.loaded
    with pytest.raises(_core.DeviceError):
        session.step(np.zeros(1920, np.float32))


@pytest.mark.parametrize("temperature", [1e-45, 1e-40, 1e-38, 1e-6])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    logits = np.array([1, 5, 2], np.float32)
    assert _core.sample(logits, temperature, 0, 1, 0, 0) == 1
