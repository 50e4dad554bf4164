"""Pictures and samples of six presets: `python show.py CORPUS PICTURE FOLDER [--model tiny]`.

PICTURE gets spectrograms of one answer: original, through the codec, and generated. FOLDER gets one talk a preset, the
question on the left and the answer on the right. CORPUS holds the groups `agents` and `evaluation`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import shards
import soundfile
import talking
from intents import INTENTS
from measures import Sound, magnitude
from talking import FRAME, RATE, Company

import personaplex

SHOWN = ("NATF0", "NATM0", "NATM3", "VARF2", "VARM1", "VARM3")
ASKED = {  # voice -> who asks, which intent's first phrasing
    "NATF0": ("nezumi", "what is the capital of france"),
    "NATM0": ("kal", "how many legs does a spider have"),
    "NATM3": ("annie", "what color is the sky"),
    "VARF2": ("slt_hts", "what is the weather like"),
    "VARM1": ("nezumi_low", "what is two plus three"),
    "VARM3": ("michael", "do you like music"),
}
LINE, QUESTION = "A spider has eight legs.", "how many legs does a spider have"


def decibels(sound: Sound) -> np.ndarray:
    return 20 * np.log10(magnitude(sound) + 1e-4)


def by_line(corpus: Path, group: str) -> dict[tuple[str, str], Sound]:
    return {(c.speaker, c.text): c.samples.astype(np.float32) / 32768 for c in shards.read(corpus, group)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()
    matplotlib.use("Agg")
    from matplotlib import pyplot

    model = personaplex.load(options.model, device="cpu")
    company = Company(model, greedy=True)
    originals, strangers = (by_line(options.corpus, group) for group in ("agents", "evaluation"))
    figure, axes = pyplot.subplots(len(SHOWN), 3, figsize=(12, 2 * len(SHOWN)), sharey=True, squeeze=False)
    options.folder.mkdir(parents=True, exist_ok=True)
    for row, voice in zip(axes, SHOWN, strict=True):
        original = originals[voice, LINE]
        padded = np.zeros((len(original) // FRAME + 2) * FRAME, np.float32)
        padded[: len(original)] = original
        coded = model._core.decode(model._core.encode(padded))[: len(original)]
        question = strangers["nezumi", QUESTION]
        said = company.ask(question, voice, "assistant", 0)
        first = said.loud()[0] * 480 - 480
        sounds = {"original": original, "coded": coded, "generated": said.sound[first : first + len(original)]}
        for axis, (name, sound) in zip(row, sounds.items(), strict=True):
            seconds = len(sound) / RATE
            axis.imshow(decibels(sound), origin="lower", aspect="auto", vmin=-60, vmax=30, extent=(0, seconds, 0, 12))
            axis.set_title(f"{voice}, {name}", fontsize=9)
        row[0].set_ylabel("kHz")
        person, text = ASKED[voice]
        asked = strangers[person, text]
        answer = company.ask(asked, voice, "assistant", 0, listen=48)
        left = np.zeros(len(answer.sound), np.float32)
        left[talking.LEAD * FRAME :][: len(asked)] = asked
        both = np.stack([left, answer.sound], 1)
        soundfile.write(options.folder / f"{voice}.ogg", both, RATE, format="OGG", subtype="VORBIS")
        expected = next(i.full for i in INTENTS if text in i.phrasings)
        print(f"{voice}: {text!r} -> {answer.text()!r} (expected {expected!r})")
    figure.tight_layout()
    figure.savefig(options.picture, dpi=70)


if __name__ == "__main__":
    main()
