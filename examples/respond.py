"""Answers a recording and writes what the agent said: python examples/respond.py question.wav answer.wav"""

import argparse

import personaplex as pp

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("question", help="audio file with the user's voice")
parser.add_argument("answer", help="WAV file to write")
parser.add_argument("--model", default="aufklarer/PersonaPlex-7B-MLX-4bit", help="hub id, directory, or tiny")
args = parser.parse_args()

model = pp.load(args.model)
response = model.respond(args.question, voice="NATF2", system_prompt="teacher", seed=1)
response.audio.write(args.answer)

print(response.transcript)
for word in response.words:
    print(f"{word.start:6.2f} s  {word.text}")
