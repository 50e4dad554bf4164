# tests/python/test_threads.py: any thread may call; memory stays flat; forks, Ctrl-C and unload end in clear errors.
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from goldens import GREEDY, checkpoint, golden, load, model, prompted, talk, user_codes, user_pcm

from personaplex import _core

LONG_PROMPT = [5] * 60_000  # many seconds of prefill, to be interrupted
linux_only = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc/self/statm")


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def in_thread(work):
    """The result of `work`, run in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(timeout=60)


def test_load_here_step_there():
    loaded = in_thread(lambda: load("nano"))
    try:
        session = in_thread(lambda: prompted(loaded, "nano"))
        tokens = [in_thread(lambda codes=codes: session.step_codes(codes).tokens) for codes in user_codes("nano")]
        assert np.array_equal(np.stack(tokens), golden("nano")["lmgen.out"])
    finally:
        in_thread(loaded.unload)


@linux_only
def test_500_short_lived_threads_do_not_grow_memory():
    session = prompted(model("nano"), "nano")
    sizes = []
    for i in range(500):
        in_thread(lambda: session.step_codes(user_codes("nano")[0]))
        if i in (99, 499):
            sizes.append(resident_mb())
    assert sizes[1] - sizes[0] < 8
    assert session.frames == 500


def test_conversations_in_parallel_equal_those_in_turn():
    def converse(seed: int) -> bytes:
        sampling = _core.Sampling(1.0, 0, 1.0, 0)
        return talk(prompted(model("nano"), "nano", sampling, seed), user_codes("nano")).tobytes()

    expected = [converse(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(converse, range(6))) == expected
    assert len(set(expected)) == 6


class LongPrompt:
    """A session in the middle of a prompt that another thread runs and that ends with `stop`."""

    def __init__(self, of: _core.Model) -> None:
        self.session, self.started, self.stopped = of.session(GREEDY), threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run)

    def _progress(self, done: int, total: int) -> None:
        self.started.set()
        if self.stopped.is_set():
            raise KeyboardInterrupt

    def _run(self) -> None:
        try:
            self.session.prompt(text_tokens=LONG_PROMPT, chunk=1, progress=self._progress)
        except BaseException as error:  # whatever ends it is looked at by the test
            self.error = error

    def __enter__(self) -> "LongPrompt":
        self.thread.start()
        assert self.started.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


def test_one_session_from_two_threads():
    with LongPrompt(model("nano")) as busy:
        for use in (
            lambda: busy.session.step(user_pcm("nano")[0]),
            lambda: busy.session.step_codes(user_codes("nano")[0]),
            lambda: busy.session.prompt(),
            busy.session.clone,
            busy.session.snapshot,
            busy.session.reset,
        ):
            with pytest.raises(_core.StreamError, match="thread"):
                use()
    assert isinstance(busy.error, KeyboardInterrupt)


def test_an_exception_in_progress_stops_the_prompt():
    with LongPrompt(model("nano")) as busy:
        pass
    assert isinstance(busy.error, KeyboardInterrupt)
    assert not busy.session.ready
    busy.session.prompt(voice_codes=golden("nano")["voice.codes"], text_tokens=[4, 5])
    expected = talk(prompted(model("nano"), "nano", text_tokens=[4, 5]), user_codes("nano"))
    assert np.array_equal(talk(busy.session, user_codes("nano")), expected)


def test_other_threads_run_during_a_prompt():
    """The interpreter lock is free while the core works."""
    with LongPrompt(model("nano")):
        deadline, turns = time.monotonic() + 0.5, 0
        while time.monotonic() < deadline:
            time.sleep(0.001)
            turns += 1
    assert turns > 50


def test_unload():
    loaded = load("nano")
    session = prompted(loaded, "nano")
    snapshot = session.snapshot()
    assert loaded.loaded
    loaded.unload()
    loaded.unload()
    assert not loaded.loaded
    uses = [
        lambda: session.step(user_pcm("nano")[0]),
        lambda: session.step_codes(user_codes("nano")[0]),
        lambda: session.prompt(),
        session.reset,
        session.clone,
        session.snapshot,
        lambda: session.restore(snapshot),
        loaded.session,
        lambda: loaded.encode(golden("nano")["mimi.pcm"]),
        lambda: loaded.decode(golden("nano")["mimi.codes_stream"]),
        lambda: loaded.probe_mimi(golden("nano")["mimi.pcm"]),
    ]
    for use in uses:
        with pytest.raises(_core.DeviceError, match="unloaded"):
            use()


def test_unload_while_another_thread_talks():
    loaded = load("nano")
    session, errors = prompted(loaded, "nano"), []
    started = threading.Event()

    def converse() -> None:
        try:
            while True:
                session.step_codes(user_codes("nano")[0])
                started.set()
        except _core.PersonaplexError as error:
            errors.append(error)

    thread = threading.Thread(target=converse)
    thread.start()
    assert started.wait(30)
    loaded.unload()
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(errors[0], _core.DeviceError)


def run(script: str) -> str:
    """Runs a script in its own process, with the nano checkpoint's path in `source`."""
    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); source = {checkpoint('nano')!r}\n"
    body = """
    import os, signal, threading, time
    import numpy as np
    from personaplex import _core

    def load():
        return _core.Model(source, device="cpu", dtype="float32")

    silence = np.zeros(1920, np.float32)
    """
    text = head + textwrap.dedent(body) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork on this system")
def test_a_forked_child_gets_a_device_error():
    """Using the parent's model and loading one of its own; the parent goes on, and both end normally."""
    out = run(
        """
        model = load()
        session = model.session()
        session.prompt()
        child = os.fork()
        if child == 0:
            uses = {"step": lambda: session.step(silence), "session": lambda: model.session().prompt(),
                    "encode": lambda: model.encode(silence), "unload": model.unload, "load": load}
            for name, use in uses.items():
                try:
                    use()
                    print(name, "went through")
                except _core.DeviceError as error:
                    print(name, "DeviceError" if "fork" in str(error) else error)
            del session, model, uses, use
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        session.step(silence)
        print("parent", status, session.frames)
        """
    )
    names = ("step", "session", "encode", "unload", "load")
    assert out.splitlines() == [*(f"{name} DeviceError" for name in names), "parent 0 1"]


def test_a_forked_child_that_loads_first():
    """Before the parent has loaded anything, a child may."""
    out = run(
        """
        child = os.fork()
        if child == 0:
            session = load().session()
            session.prompt()
            print(session.step(silence).tokens.shape)
            sys.stdout.flush()
            os._exit(0)
        print(os.waitpid(child, 0)[1])
        """
    )
    assert out.split("\n")[:2] == ["(17,)", "0"]


def test_ctrl_c_inside_prefill():
    out = run(
        """
        model = load()
        session = model.session()
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        begin = time.monotonic()
        try:
            session.prompt(text_tokens=[5] * 200_000, chunk=1)
            print("went through")
        except KeyboardInterrupt:
            print("interrupted", time.monotonic() - begin < 5, session.ready)
        session.prompt()
        print(session.step(silence).index, session.ready)
        """
    )
    assert out.splitlines() == ["interrupted True False", "0 True"]


@linux_only
def test_unload_gives_memory_back():
    out = run(
        """
        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

        def use():
            model = _core.Model("random:tiny", device="cpu", dtype="float32")
            session = model.session()
            session.prompt()
            session.step(silence)
            full = resident()
            model.unload()
            return full, model, session  # still referenced: unload, not the destructor, frees

        use()
        base = resident()
        full, *kept = use()
        after = resident()
        for _ in range(5):
            use()
        print(full - base, after - base, resident() - base)
        """
    )
    held, left, repeated = map(float, out.split())
    assert held > 4
    assert left < 0.3 * held + 1
    assert repeated < 0.3 * held + 2
