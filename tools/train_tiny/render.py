"""Speaks the corpus, resumable: `python render.py FOLDER [--groups GROUP ...] [--every N] [--workers N]`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from pathlib import Path

import corpus
import shards


def speak(task: tuple[Path, corpus.Shard]) -> tuple[str, float, float]:
    """Renders one speaker; name, seconds of speech, seconds of work."""
    folder, shard = task
    start = time.monotonic()
    said = [(text, shard.speaker.say(text)) for text in shard.lines]
    shards.write(folder, shard.group, shard.name, said)
    return f"{shard.group}/{shard.name}", sum(len(s) for _, s in said) / shards.RATE, time.monotonic() - start


def thinned(shard: corpus.Shard, every: int) -> corpus.Shard:
    return corpus.Shard(shard.group, shard.name, shard.speaker, shard.lines[::every])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--groups", nargs="+", default=["agents", "users", "evaluation"])
    parser.add_argument("--every", type=int, default=1, help="render one line in N, to try it out")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    todo = [
        (options.folder, thinned(shard, options.every))
        for group in options.groups
        for shard in corpus.everything()
        if shard.group == group and not shards.done(options.folder, group, shard.name)
    ]
    start, speech = time.monotonic(), 0.0
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for name, seconds, work in pool.imap_unordered(speak, todo, chunksize=1):
            speech += seconds
            print(f"{name}: {seconds:.0f} s of speech in {work:.0f} s", flush=True)
    print(
        f"{len(todo)} speakers, {speech / 60:.1f} min of speech, {(time.monotonic() - start) / 60:.1f} min", flush=True
    )


if __name__ == "__main__":
    main()
