"""Every figure of the model card: `python evaluate.py CORPUS [--model tiny] [--limit N] [--parts PART ...]`.

CORPUS holds the group `evaluation` (`render.py CORPUS --groups evaluation`): speakers and lines that nothing was
trained on. The model is driven through the package, on the CPU; needs `pystoi` and `pyworld-prebuilt`, and for `words`
the group `agents`, a recogniser and its torch. Results go to `--json` as they come.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import answers
import corpus
import numpy as np
import other_lines
import shards
import soundfile
import speakers
import talking
import world
from intents import INTENTS
from measures import Fidelity, Share, Sound, errors, fidelity, mean_interval, words
from talking import FRAME, RATE, Asked, Company
from voices import PRESETS

import personaplex

Recogniser = Callable[[Sound], list[str]]
BY_TEXT = {said: intent for intent in INTENTS for said in (*intent.phrasings, *intent.held_out)}
TRAINED, HELD_OUT = set(corpus.trained_phrasings()), set(corpus.held_out_phrasings())


class Evaluation:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rng = np.random.default_rng(options.seed)
        self.model = personaplex.load(options.model, device="cpu", engine=options.engine)
        self.company = Company(self.model)
        self.clips: dict[str, dict[str, Sound]] = {}
        for clip in shards.read(options.corpus, "evaluation"):
            self.clips.setdefault(clip.speaker, {})[clip.text] = clip.samples.astype(np.float32) / 32768
        self.strangers = [name for name in speakers.HELD_OUT_VOICES if name in self.clips]
        self.foreign = [name for name in speakers.HELD_OUT_SYNTHESIZERS if name in self.clips]
        self.result: dict[str, Any] = {}

    def keep(self, name: str, value: Any) -> None:
        self.result[name] = value
        print(f"{name}: {value}", flush=True)
        if self.options.json:
            self.options.json.write_text(json.dumps(self.result, indent=1, default=str), encoding="utf-8")

    def some(self, things: list[Any]) -> list[Any]:
        """At most `--limit` of them, in random order."""
        order = self.rng.permutation(len(things))
        return [things[int(i)] for i in order[: self.options.limit or len(things)]]

    def voice(self) -> str:
        return list(PRESETS)[int(self.rng.integers(len(PRESETS)))]

    # -- the codec

    def coded(self, sound: Sound) -> Sound:
        """Through the package's encoder and decoder, from silence, as long as it was."""
        padded = np.zeros((len(sound) // FRAME + 2) * FRAME, np.float32)
        padded[: len(sound)] = sound
        return self.model._core.decode(self.model._core.encode(padded))[: len(sound)]

    def codec(self) -> None:
        rows: dict[str, list[Fidelity]] = {}
        for name, said in self.clips.items():
            long = [text for text, sound in said.items() if len(sound) > RATE // 2]
            few = [long[int(i)] for i in self.rng.permutation(len(long))[: self.options.lines]]
            rows[name] = [fidelity(said[text], self.coded(said[text])) for text in few]
        for group, names in (
            ("presets", [name for name in rows if name in PRESETS]),
            ("held-out voices", self.strangers),
            ("held-out synthesizers", self.foreign),
        ):
            found = [one for name in names for one in rows[name]]
            if found:
                for figure in ("stoi", "mel"):
                    value = mean_interval([getattr(one, figure) for one in found], self.rng)
                    self.keep(f"codec, {group}, {figure}", f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})")
                self.keep(f"codec, {group}, lines", len(found))
        pitches = {
            name: (np.median([one.pitch for one in rows[name]]), np.median([one.coded_pitch for one in rows[name]]))
            for name in rows
            if name in PRESETS
        }
        for name, (before, after) in pitches.items():
            self.keep(
                f"codec, pitch of {name}", f"{before:.0f} -> {after:.0f} Hz ({100 * (after / before - 1):+.1f} %)"
            )
        if len(pitches) > 1:
            table = np.array(list(pitches.values()))
            self.keep("codec, pitch, correlation", round(float(np.corrcoef(table.T)[0, 1]), 4))
            self.keep("codec, pitch, largest deviation", round(float(np.abs(table[:, 1] / table[:, 0] - 1).max()), 4))

    # -- single questions

    def questions(self) -> None:
        delays: list[float] = []
        styles = [Share() for _ in answers.PROMPTS]
        quiet: list[float] = []
        for name, people, texts in (
            ("held-out voices, trained phrasings", self.strangers, TRAINED),
            ("held-out synthesizers, trained phrasings", self.foreign, TRAINED),
            ("held-out voices, held-out phrasings", self.strangers, HELD_OUT),
            ("held-out synthesizers, held-out phrasings", self.foreign, HELD_OUT),
            ("held-out voices, unknown questions", self.strangers, set(other_lines.HELD_OUT)),
            ("held-out synthesizers, unknown questions", self.foreign, set(other_lines.HELD_OUT)),
        ):
            share, by_person, wrong = Share(), {person: Share() for person in people}, []
            for person, text in self.some([(p, t) for p in people for t in self.clips[p] if t in texts]):
                style, voice = int(self.rng.integers(len(answers.PROMPTS))), self.voice()
                sound = self.clips[person][text]
                said = self.company.ask(sound, voice, talking.STYLES[style], int(self.rng.integers(1 << 30)))
                expected = talking.wanted(BY_TEXT.get(text), style)
                right = talking.same(said.text(), expected)
                share.add(right)
                by_person[person].add(right)
                styles[style].add(right)
                if not right:
                    wrong.append((person, voice, text, said.text()))
                if (waited := talking.delay(said, sound)) is not None:
                    delays.append(waited)
                before = said.sound[: talking.LEAD * FRAME + len(sound)]
                quiet.append(float(np.sqrt((before**2).mean())))
            self.keep(f"answers, {name}", str(share))
            self.keep(f"answers, {name}, by speaker", {who: f"{s.right} of {s.of}" for who, s in by_person.items()})
            self.keep(f"answers, {name}, wrong", wrong[:12])
        for style, share in zip(talking.STYLES, styles, strict=True):
            self.keep(f"answers, prompt {style}", str(share))
        low, middle, high = np.quantile(delays or [math.nan], (0.05, 0.5, 0.95))
        self.keep("answers, delay after the question", f"{middle:.2f} s (5 to 95 %: {low:.2f} to {high:.2f})")
        self.keep(
            "answers, sound while the user speaks, rms",
            f"median {np.median(quiet):.6f}, 99 % {np.quantile(quiet, 0.99):.6f}",
        )

    # -- whole talks

    def question(self, person: str, style: int) -> tuple[Sound, str]:
        texts = [text for text in self.clips[person] if text in TRAINED]
        text = texts[int(self.rng.integers(len(texts)))]
        return self.clips[person][text], talking.wanted(BY_TEXT[text], style)

    def interruptions(self) -> None:
        """Two questions, the second 0.7 s into the answer to the first, and a third after its answer."""
        second, third, stops = Share(), Share(), []
        for _ in range(self.options.talks):
            person = self.strangers[int(self.rng.integers(len(self.strangers)))]
            style = int(self.rng.integers(3))  # brief answers are over before anyone could interrupt
            asked: list[Asked] = []
            at = 0.8
            for gap in (1.2, 5.0, 0.0):  # from a question's end to the next one
                one = Asked(at, *self.question(person, style))
                asked.append(one)
                at = one.end + gap
            end = asked[-1].end + 5.0
            said = self.company.talk(
                talking.mixed(asked, end), self.voice(), talking.STYLES[style], int(self.rng.integers(1 << 30))
            )
            began = asked[1].at
            speech = said.loud() * 0.02
            if not ((speech > began - 0.3) & (speech < began)).any():
                continue  # the answer was over: nothing was interrupted
            second.add(talking.answered(said, asked[1], asked[2].at))
            third.add(talking.answered(said, asked[2], end))
            stops.append(max((t + 0.02 - began for t in speech if began <= t < asked[1].end), default=0.0))
        self.keep("interruptions, the interrupting question answered", str(second))
        self.keep("interruptions, the question after it answered", str(third))
        if stops:
            self.keep("interruptions, silent after", f"{np.mean(stops):.2f} s on average, {max(stops):.2f} s at most")

    def silence(self) -> None:
        """Nobody speaks: digital silence, and noises."""
        rng, seconds = self.rng, 20
        n = seconds * RATE
        brown = np.cumsum(rng.standard_normal(n))
        sounds = {
            "digital silence": np.zeros(n),
            "white noise, -50 dB": 10 ** (-50 / 20) * rng.standard_normal(n),
            "white noise, -35 dB": 10 ** (-35 / 20) * rng.standard_normal(n),
            "hum of 100 Hz, -40 dB": 10 ** (-40 / 20) * 1.4 * np.sin(2 * np.pi * 100 * np.arange(n) / RATE),
            "rumble, -40 dB": 10 ** (-40 / 20) * (brown - np.convolve(brown, np.ones(2400) / 2400, "same")) / 40,
        }
        for name, sound in sounds.items():
            share, level = Share(), []
            for voice in list(PRESETS)[:: 2 if self.options.limit == 0 else 6]:
                said = self.company.talk(sound.astype(np.float32), voice, "assistant", int(rng.integers(1 << 30)))
                share.add(not said.text())
                level.append(float(np.sqrt((said.sound**2).mean())))
            self.keep(f"silent user, {name}", f"nothing said in {share}; largest rms {max(level):.6f}")

    def long(self) -> None:
        """Talks of `--minutes`, longer than the context: right answers and the voice's pitch, early and late."""
        seconds = 60 * self.options.minutes
        thirds = [Share() for _ in range(3)]
        drift: dict[str, str] = {}
        for number, voice in enumerate(list(PRESETS)[:: self.options.every]):
            person = self.strangers[number % len(self.strangers)]
            style = number % len(answers.PROMPTS)
            asked: list[Asked] = []
            at = 1.0
            while True:
                one = Asked(at, *self.question(person, style))
                if one.end + 7 > seconds:
                    break
                asked.append(one)
                at = one.end + float(self.rng.uniform(5.0, 9.0))
            said = self.company.talk(talking.mixed(asked, seconds), voice, talking.STYLES[style], number)
            for i, one in enumerate(asked):
                until = asked[i + 1].at if i + 1 < len(asked) else seconds
                thirds[min(2, int(3 * one.at / seconds))].add(talking.answered(said, one, until))
            part = len(said.sound) // 3
            pitches = [world.median_pitch(said.sound[i * part : (i + 1) * part], RATE) for i in range(3)]
            drift[voice] = " ".join(f"{p:.0f}" for p in pitches) + f" Hz (preset {PRESETS[voice].pitch:.0f})"
        for name, share in zip(("first", "second", "last"), thirds, strict=True):
            self.keep(f"talks of {self.options.minutes} min, {name} third", str(share))
        self.keep("talks, pitch by thirds", drift)

    # -- what it sounds like

    def words(self) -> None:
        """Words heard in originals, in coded originals and in generated answers, by each recogniser there is."""
        judges: dict[str, tuple[Recogniser, tuple[str, ...]]] = {}
        if self.options.recogniser:
            import train_recogniser

            own = train_recogniser.load(self.options.recogniser).hear
            judges["own recogniser"] = (own, tuple(v for v in PRESETS if v not in train_recogniser.KNOWN_VOICES))
        if self.options.whisper:
            import whisper_judge

            judges["Whisper tiny.en"] = (whisper_judge.Judge(), tuple(PRESETS))
        spoken: dict[str, dict[str, Sound]] = {}
        for clip in shards.read(self.options.corpus, "agents"):
            spoken.setdefault(clip.speaker, {})[clip.text] = clip.samples.astype(np.float32) / 32768
        asked = {intent.full: intent for intent in INTENTS if len(words(intent.full)) >= 4}
        generated: dict[str, list[float]] = {}
        tables: dict[str, Share] = {}
        for voice in PRESETS:
            lines = [line for line in asked if line in spoken[voice]]
            for line in [lines[int(i)] for i in self.rng.permutation(len(lines))[: self.options.lines]]:
                question = self.clips[self.strangers[0]][asked[line].phrasings[0]]
                said = self.company.ask(question, voice, "assistant", int(self.rng.integers(1 << 30)))
                heard = {"original": spoken[voice][line], "coded": self.coded(spoken[voice][line])}
                if talking.same(said.text(), line):
                    heard["generated"] = said.sound[talking.LEAD * FRAME + len(question) :]
                    generated.setdefault(voice, []).append(world.median_pitch(heard["generated"], RATE))
                for name, (judge, voices) in judges.items():
                    if voice in voices:
                        self.count(tables, f"words, {name}, answers", judge, line, heard)
        for person in (*self.strangers, *self.foreign):
            texts = [text for text in self.clips[person] if text in HELD_OUT]
            for text in [texts[int(i)] for i in self.rng.permutation(len(texts))[: self.options.lines]]:
                heard = {"original": self.clips[person][text], "coded": self.coded(self.clips[person][text])}
                for name, (judge, _) in judges.items():
                    self.count(tables, f"words, {name}, strangers' held-out phrasings", judge, text, heard)
        for name, share in tables.items():
            self.keep(name, str(share))
        pitches = {voice: (PRESETS[voice].pitch, float(np.median(found))) for voice, found in generated.items()}
        self.keep("generated, pitch", {v: f"{a:.0f} -> {b:.0f} Hz" for v, (a, b) in pitches.items()})
        table = np.array(list(pitches.values()))
        if len(table) > 1:
            self.keep("generated, pitch, correlation", round(float(np.corrcoef(table.T)[0, 1]), 4))
            self.keep(
                "generated, pitch, largest deviation", round(float(np.abs(table[:, 1] / table[:, 0] - 1).max()), 4)
            )

    @staticmethod
    def count(tables: dict[str, Share], name: str, judge: Recogniser, line: str, heard: dict[str, Sound]) -> None:
        n = len(words(line))
        for kind, sound in heard.items():
            wrong = min(n, errors(words(line), judge(sound)))
            tables.setdefault(f"{name}, {kind}", Share()).add(n - wrong, n)

    # -- size and speed

    def size(self) -> None:
        folder = self.model._source.directory
        files = {str(f.relative_to(folder)): f.stat().st_size for f in sorted(folder.rglob("*")) if f.is_file()}
        self.keep("size, files", {name: size for name, size in files.items() if not name.startswith("voices")})
        self.keep("size, all that ships", f"{sum(files.values()) / 1e6:.2f} MB")

    def speed(self) -> None:
        for engine in ("fused", "graph"):
            threads: tuple[int | None, ...] = (1, 2) if engine == "fused" else (None,)
            for count in threads:
                model = personaplex.load(self.options.model, device="cpu", engine=engine, threads=count)
                with model.session("NATM0", "assistant", seed=1) as session:
                    times = []
                    for _ in range(150):
                        start = time.perf_counter()
                        session.step(np.zeros(FRAME, np.float32))
                        times.append(time.perf_counter() - start)
                best = float(np.median(times[20:])) * 1000
                self.keep(f"speed, {engine}, threads {count}", f"{best:.2f} ms a frame, {80 / best:.1f} x real time")

    def humans(self) -> None:
        """Recordings of people: nothing is expected but that it goes on."""
        for path in self.options.humans:
            sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
            response = self.model.respond((sound[:, 0], rate), voice="NATF0", seed=1)
            level = float(np.abs(response.audio.samples).max())
            self.keep(
                f"human, {path.name}", f"{response.transcript!r}, finite {math.isfinite(level)}, peak {level:.3f}"
            )


PARTS: dict[str, Callable[[Evaluation], None]] = {
    name: getattr(Evaluation, name)
    for name in ("size", "speed", "codec", "questions", "interruptions", "silence", "long", "words", "humans")
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--engine", default="fused", choices=("fused", "graph"))
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--limit", type=int, default=0, help="questions of a set; 0: all")
    parser.add_argument("--lines", type=int, default=6, help="lines of a speaker")
    parser.add_argument("--talks", type=int, default=100, help="talks with an interruption")
    parser.add_argument("--minutes", type=int, default=6)
    parser.add_argument("--every", type=int, default=3, help="one preset in N has a long talk")
    parser.add_argument("--humans", type=Path, nargs="*", default=[], help="recordings of people")
    parser.add_argument("--recogniser", type=Path, help="what train_recogniser.py wrote, for `words`")
    parser.add_argument("--whisper", action="store_true", help="Whisper tiny.en as a second judge of `words`")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    evaluation = Evaluation(options)
    for part in options.parts:
        started = time.monotonic()
        PARTS[part](evaluation)
        print(f"({part}: {time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
