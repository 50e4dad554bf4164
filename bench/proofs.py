#!/usr/bin/env python3
"""Measures what the benchmark of a frame does not: one subcommand, one line.

  load        loading a checkpoint, beside `cat` of its files (warm cache)
  clone       cloning a conversation
  competitor  a frame while another process keeps a core busy, beside a frame alone
  prefill     a column of a prompt, beside the same column by itself
  soak        a long conversation: memory, p50 and p99

What is compared takes turns, and medians count. Leave the machine alone meanwhile.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import machine
import numpy as np
from frames import frame_bytes, times
from measure import converse

import personaplex
from personaplex import _core


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="proofs.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = out.add_subparsers(dest="command", required=True, metavar="COMMAND")
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("--model", default="random:tiny", metavar="MODEL", help="hub id, directory or random:7b, :tiny")
    model.add_argument("--bits", type=int, choices=(4, 8, 16), help="of the weights, where they are not quantized yet")
    model.add_argument("--kv-bits", type=int, choices=(16, 8), help="of keys and values (default: 16)")
    model.add_argument("--device", default="cpu", help="default: cpu")
    model.add_argument("--threads", type=int, metavar="N", help="default: all usable cores")

    def add(name: str, what: str, parents: list[argparse.ArgumentParser]) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=what, description=what, parents=parents)

    load = add("load", "seconds to load a directory, and to `cat` its *.safetensors", [])
    load.add_argument("directory", type=Path, metavar="DIR")
    load.add_argument("--repeats", type=int, default=5, metavar="N", help="default: 5")
    clone = add("clone", "milliseconds of a clone", [model])
    clone.add_argument("--context", type=int, default=120, metavar="N", help="frames remembered (default: 120)")
    clone.add_argument("--repeats", type=int, default=20, metavar="N", help="default: 20")
    competitor = add("competitor", "frames alone and beside a busy process, in turns", [model])
    competitor.add_argument("--context", type=int, default=250, metavar="N", help="frames remembered (default: 250)")
    competitor.add_argument("--repeats", type=int, default=5, metavar="N", help="of each (default: 5)")
    competitor.add_argument("--frames", type=int, default=20, metavar="N", help="each time (default: 20)")
    prefill = add("prefill", "a column of a prompt in passes of up to 32, and one by one", [model])
    prefill.add_argument("--columns", type=int, default=100, metavar="N", help="of the prompt (default: 100)")
    prefill.add_argument("--repeats", type=int, default=5, metavar="N", help="of each (default: 5)")
    soak = add("soak", "a conversation without pauses", [model])
    soak.add_argument("--minutes", type=float, default=10.0, metavar="X", help="default: 10")
    soak.add_argument("--frames", type=int, metavar="N", help="so many frames, however long they take")
    return out


def load(options: argparse.Namespace) -> str:
    files = sorted(options.directory.glob("*.safetensors"))
    if not files:
        raise ValueError(f"there are no *.safetensors in {str(options.directory)!r}")
    loading, reading = [], []
    for i in range(options.repeats + 1):  # the first time warms the cache
        start = time.perf_counter()
        subprocess.run(["cat", *map(str, files)], stdout=subprocess.DEVNULL, check=True)
        middle = time.perf_counter()
        model = _core.Model(str(options.directory), device="cpu")
        end = time.perf_counter()
        model.unload()
        if i > 0:
            reading.append(middle - start)
            loading.append(end - middle)
    ours, cat = statistics.median(loading), statistics.median(reading)
    size = sum(file.stat().st_size for file in files) / 1e9
    return f"{ours:.3f} s for {size:.2f} GB, cat {cat:.3f} s: {ours / cat:.2f} times as long"


def clone(options: argparse.Namespace) -> str:
    talk = converse(open_model(options), options.context)
    taken = [talk.clone_ms() for _ in range(options.repeats)]
    return f"{statistics.median(taken):.2f} ms at {talk.position} frames, slowest of {len(taken)} {max(taken):.2f} ms"


def competitor(options: argparse.Namespace) -> str:
    talk = converse(open_model(options), options.context)
    talk.run(3)
    alone, beside = [], []
    for _ in range(options.repeats):
        alone += times(talk.run(options.frames), "total")
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            beside += times(talk.run(options.frames), "total")
        finally:
            busy.kill()
            busy.wait()
    a, b = statistics.median(alone), statistics.median(beside)
    return f"{b:.2f} ms a frame beside a busy process, {a:.2f} ms alone: {b / a:.2f} times as long"


def prefill(options: argparse.Namespace) -> str:
    core = open_model(options)._core
    least = 2 * int(core.config["spacer_frames"]) - 1  # of a prompt without text
    if options.columns < least:
        raise ValueError(f"--columns must be {least} or more, not {options.columns}")
    rng = np.random.default_rng(0)

    def column_ms(columns: int, chunk: int) -> float:
        text = rng.integers(0, int(core.config["text_card"]), columns - least).tolist()
        session = core.session()
        start = time.perf_counter()
        session.prompt(text_tokens=text, chunk=chunk)
        taken = (time.perf_counter() - start) / session.position * 1e3
        session.close()
        return taken

    column_ms(options.columns, 32)
    single, passes = [], []
    for _ in range(options.repeats):
        single.append(column_ms(least, 1))
        passes.append(column_ms(options.columns, 32))
    a, b = statistics.median(single), statistics.median(passes)
    return f"{b:.3f} ms a column of a {options.columns}-frame prompt, {a:.3f} ms one by one: {b / a:.3f} of it"


def soak(options: argparse.Namespace) -> str:
    model = open_model(options)
    talk = converse(model, 0)
    first = talk.run(25)[-1]  # the buffers of the first frames are made
    begun, before = time.monotonic(), machine.resident_bytes()
    on_gpu = machine.gpu_bytes()
    taken, told, count = [], begun, 0
    while count < options.frames if options.frames else time.monotonic() - begun < 60 * options.minutes:
        frames = talk.run(10)
        count += len(frames)
        taken += times(frames, "total")  # of those that were timed as a whole
        if sys.stderr.isatty() and time.monotonic() - told > 60:
            told = time.monotonic()
            print(f"{talk.position} frames, {machine.resident_bytes() / 1e9:.3f} GB", file=sys.stderr)
    after = machine.resident_bytes()
    grown = frame_bytes(model, [frames[-1]])["temporal"] - frame_bytes(model, [first])["temporal"]  # keys and values
    p50, p99 = np.percentile(taken, (50, 99))
    gpu = f", on the GPU {on_gpu / 1e9:.3f} to {machine.gpu_bytes() / 1e9:.3f} GB" if options.device != "cpu" else ""
    return (
        f"{count} frames in {(time.monotonic() - begun) / 60:.3g} minutes, p50 {p50:.2f} ms, p99 {p99:.2f} ms "
        f"({p99 / p50:.2f} times); memory {before / 1e9:.3f} to {after / 1e9:.3f} GB{gpu}, "
        f"{grown / 1e9:.3f} GB of it keys and values of these frames"
    )


def open_model(options: argparse.Namespace) -> personaplex.Model:
    names = ("device", "bits", "kv_bits", "threads")
    return personaplex.load(options.model, **{name: getattr(options, name) for name in names})


def main() -> int:
    options = parser().parse_args()
    try:
        for name in ("repeats", "frames", "minutes"):
            value = getattr(options, name, None)
            if value is not None and value <= 0:
                raise ValueError(f"--{name} must be more than 0, not {value}")
        print(f"{options.command}: {globals()[options.command](options)}")
    except KeyboardInterrupt:
        print("proofs: interrupted", file=sys.stderr)
        return 130
    except (personaplex.PersonaplexError, ValueError, TypeError, OSError, subprocess.CalledProcessError) as error:
        print(f"proofs: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, (ValueError, TypeError)) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
