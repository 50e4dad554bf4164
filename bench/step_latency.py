#!/usr/bin/env python3
"""Times a frame of a conversation and its parts, and says how close that is to what the memory allows.

A frame is 80 ms of speech; a model that takes longer cannot talk in real time. At one frame at a time nearly all of
that time goes into reading the weights, so bytes / (speed of the memory) is the floor, and the benchmark measures both
in turns. Speed does not depend on what the weights are: random ones of full size serve, and need no download.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import NoReturn

import figure
import measure
import report
import saved

import personaplex

_EXAMPLES = """\
examples:
  # a small model: is everything installed?
  python bench/step_latency.py --random tiny

  # the full size at 4 bits, with 250 frames (20 s of conversation) behind it
  python bench/step_latency.py --random 7b --bits 4 --context 250

  # against plain MLX operations, in one run; and a picture
  python bench/step_latency.py --random 7b --bits 4 --context 250 --compare graph --plot frame.png

  # your own weights, at the rhythm of a conversation, kept in bench/results/laptop.jsonl
  python bench/step_latency.py --model aufklarer/PersonaPlex-7B-MLX-4bit --paced --save laptop

what the table says:
  part        Mimi encode (your audio to codes), temporal (the 7B transformer, and the text token), depformer (the
              agent's 8 codes), Mimi decode (codes to audio)
  p50 p95 p99 half of the frames, 95 and 99 in 100, were as fast as that
  MB          what the part reads from memory, counted from the table of weights
  GB/s        MB / p50
  of memory   of the speed at which a loop that does nothing else reads this machine's memory

What every key of the JSON means: docs/performance.md, "The keys of a result".
PERSONAPLEX_CPU=NAME in the environment takes that instruction set instead of the fastest one: portable, neon, avx2,
avx512vnni or avx512bf16.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"step_latency: error: {message}; see --help\n")


def parser() -> argparse.ArgumentParser:
    out = _Parser(
        prog="step_latency.py",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    model = out.add_argument_group("model")
    which = model.add_mutually_exclusive_group()
    which.add_argument("--model", metavar="MODEL", help="hub id, directory or random:* (default: random:tiny)")
    which.add_argument("--random", choices=("7b", "tiny"), help="random weights of that size: --model random:SIZE")
    model.add_argument("--bits", type=int, choices=(4, 8, 16), help="of the weights, where they are not quantized yet")
    model.add_argument("--kv-bits", type=int, choices=(16, 8), help="of keys and values, fused engine (default: 16)")
    model.add_argument("--device", default="auto", choices=("auto", "cpu", "gpu", "metal", "cuda"))
    model.add_argument("--engine", default="auto", choices=("auto", "fused", "graph"), help="default: the faster one")
    model.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"), help="graph engine only")
    model.add_argument("--depformer-steps", type=int, choices=(8, 16), help="default: 8")
    model.add_argument("--compile", action="store_true", help="mx::compile, graph engine only")
    model.add_argument("--threads", type=int, metavar="N", help="fused engine (default: all usable cores)")
    run = out.add_argument_group("measurement")
    run.add_argument(
        "--context",
        type=int,
        default=250,
        metavar="N",
        help="frames that the model remembers when the first one is timed; 12.5 a second, at least those of the silent "
        "prompt and --warmup (default: 250)",
    )
    run.add_argument("--rounds", type=int, default=5, metavar="N", help="with the memory's speed between (default: 5)")
    run.add_argument(
        "--frames", type=int, metavar="N", help="a round (default: what takes 4 s, at most 50, at least 1)"
    )
    run.add_argument("--warmup", type=int, default=3, metavar="N", help="frames before the first round (default: 3)")
    run.add_argument("--paced", action="store_true", help="begin a frame every 80 ms, as a conversation does")
    run.add_argument(
        "--compare",
        choices=("graph",),
        help="then time plain MLX operations as well, taking turns, or one after the other where memory does not hold "
        "both; in the dtype whose depformer is faster here; with an empty ring where filling it takes over 60 s",
    )
    show = out.add_argument_group("output")
    show.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    show.add_argument("--plot", type=Path, metavar="FILE", help="picture (.png, .svg, .pdf); needs matplotlib")
    show.add_argument("--save", metavar="NAME", help="append the JSON to bench/results/NAME.jsonl")
    return out


def check(options: argparse.Namespace) -> None:
    """Everything that can be wrong before a model is loaded; ValueError or ImportError."""
    options.model = options.model or f"random:{options.random or 'tiny'}"
    for name, least in (("context", 0), ("rounds", 1), ("warmup", 0), ("frames", 1), ("threads", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} must be {least} or more, not {value}")
    saved.check(options.save)
    if options.plot is not None:
        figure.check(options.plot)


def run(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    model = measure.load(options)
    load_s = time.perf_counter() - start
    remembered = int(model.config["context"])
    if options.context >= remembered:
        raise ValueError(f"--context {options.context}: this model remembers {remembered - 1} frames at most")
    info = report.describe_model(model)
    measured, talk = measure.measure(model, options, load_s)
    result = report.report(info, measured, report.count_bytes(model, measured), options)
    if options.compare:
        result["compare"] = report.compared(measure.compare(model, talk, measured, options))
    model.unload()
    if options.plot:
        figure.draw(result, measured.frames, options.plot)
    if options.save:
        saved.append(options.save, [result])
    print(json.dumps(result) if options.json else report.table(result))


def main() -> int:
    options = parser().parse_args()
    try:
        check(options)
        run(options)
    except KeyboardInterrupt:
        print("step_latency: interrupted", file=sys.stderr)
        return 130
    except (personaplex.PersonaplexError, ValueError, TypeError, ImportError, OSError, MemoryError) as error:
        print(f"step_latency: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, (ValueError, TypeError, ImportError)) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
