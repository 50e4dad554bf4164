"""Prints the agent's words while it speaks: python examples/stream.py question.wav"""

import argparse
import time

import personaplex as pp

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("question", help="audio file with the user's voice")
parser.add_argument("--model", default="aufklarer/PersonaPlex-7B-MLX-4bit", help="hub id, directory, or tiny")
args = parser.parse_args()

model = pp.load(args.model)
model.warmup()

start = time.perf_counter()
with model.respond_stream(args.question, seed=1) as answer:
    for frame in answer:  # one every 80 ms of audio; frame.audio is [1920] float32 at 24 kHz
        if frame.index == 0:
            print(f"first frame after {time.perf_counter() - start:.2f} s")
        print(frame.text, end="", flush=True)
print(f"\nended: {answer.stop_reason}")
