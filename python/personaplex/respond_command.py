"""`personaplex respond`: checks everything that can be checked, loads the model once, answers each input."""

import argparse
import contextlib
import errno
import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from personaplex import prompts, shipped
from personaplex.api import check_context
from personaplex.audio import AudioSource, check_suffix
from personaplex.generation import Generation
from personaplex.hints import nearest
from personaplex.interrupts import Interrupts
from personaplex.model import check_max_steps, check_seed, make_sampling
from personaplex.progress import announce, progress_bar
from personaplex.response import Response
from personaplex.usage import UsageError, check_input, model_options
from personaplex.voices import PRESET_SUFFIXES, VOICES
from personaplex.wav_stream import WavStream, write_all


@dataclass(frozen=True)
class _Job:
    source: str  # as given; "-" is standard input
    output: str  # a path, or "-"
    kind: str  # "wav" or "raw" when written here, "file" when soundfile writes it by suffix


class _StandardInput(io.BytesIO):
    """All of it in memory, so that it can be checked before the model is loaded, and read again."""

    name = "standard input"


def respond(options: argparse.Namespace, load: Callable[..., Any], interrupts: Interrupts) -> int:
    """Runs the command; returns the exit status."""
    jobs = _plan(options)
    _check_talk(options)
    standard_input = _read_standard_input() if "-" in options.input else None
    for job in jobs:
        check_input(lambda job=job: AudioSource(standard_input or job.source).close())  # type: ignore[misc]
    for job in jobs:
        if job.output != "-":
            _check_writable(Path(job.output))
    announce(f"loading {options.model} ...")
    if options.model == shipped.TINY:
        announce(f"{shipped.TINY} is {shipped.ABOUT}")
    model = load(options.model, **model_options(options))
    for job in jobs:
        if standard_input is not None:
            standard_input.seek(0)
        audio = job.source if job.source != "-" else standard_input
        interrupts.note = "stopping; keeping what was generated"
        response, interrupted = _answer(model, job, audio, options)
        _report(response, job, options, interrupted)
        if interrupted:
            return 128 + (interrupts.received or signal.SIGINT)
    return 0


def _plan(options: argparse.Namespace) -> list[_Job]:
    """Which input goes to which output."""
    output: str | None = options.output
    if options.input.count("-") > 1:
        raise UsageError("standard input can be answered once")
    several = len(options.input) > 1
    if output == "-":
        if options.json:
            raise UsageError("--json and --output - both want standard output; write the audio to a file")
        if several:
            raise UsageError("--output - takes one --input")
        if sys.stdout.isatty():
            raise UsageError("standard output is a terminal; redirect it to a file or a player")
        return [_Job(options.input[0], "-", options.format or "wav")]
    placeholders = set(re.findall(r"\{[^{}]*\}", output or ""))
    if unknown := placeholders - {"{name}", "{index}"}:
        raise UsageError(f"--output knows {{name}} and {{index}}, not {', '.join(sorted(unknown))}")
    folder = output is not None and (output.endswith("/") or Path(output).is_dir())
    if output is not None and several and not placeholders and not folder:
        if Path(output).suffix:
            raise UsageError(
                f"{len(options.input)} inputs cannot all be written to {output!r}; end it with / for a folder, or put "
                "{name} or {index} in it"
            )
        folder = True
    suffix = ".raw" if options.format == "raw" else ".wav"
    jobs = []
    for index, (source, stem) in enumerate(zip(options.input, _stems(options.input), strict=True), 1):
        if output is None:
            target = f"{stem}-response{suffix}"
        elif placeholders and not folder:
            target = output.replace("{name}", stem).replace("{index}", str(index))
        elif folder:
            target = str(Path(output) / f"{stem}-response{suffix}")
        else:
            target = output
        jobs.append(_Job(source, target, _kind(Path(target), options)))
    inputs = {os.path.realpath(source) for source in options.input}
    for job in jobs:
        if os.path.realpath(job.output) in inputs:
            raise UsageError(f"{job.output!r} is an input too; choose another --output")
    return jobs


def _stems(sources: list[str]) -> list[str]:
    """A name for each input, numbered where two would be the same (also to a file system that ignores case)."""
    stems = ["stdin" if source == "-" else Path(source).stem for source in sources]
    taken: set[str] = set()
    given = {stem.casefold() for stem in stems}
    named = []
    for stem in stems:
        name, number = stem, 1
        while name.casefold() in taken or (number > 1 and name.casefold() in given):
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        named.append(name)
    return named


def _kind(target: Path, options: argparse.Namespace) -> str:
    if options.format == "raw":
        return "raw"
    if options.stream:
        if target.suffix.lower() != ".wav":
            raise UsageError(f"--stream writes .wav (or --format raw), not {target.name!r}")
        return "wav"
    if options.format == "wav" and target.suffix.lower() != ".wav":
        raise UsageError(f"--format wav writes .wav, not {target.name!r}")
    check_suffix(target)
    return "file"


def _check_talk(options: argparse.Namespace) -> None:
    """Arguments that the model would refuse, before it takes minutes to load."""
    make_sampling(options.greedy, options.audio_temp, options.audio_top_k, options.text_temp, options.text_top_k)
    check_seed(options.seed)
    check_max_steps(options.max_steps)
    check_context(options.context)
    prompts.resolve(options.system_prompt)
    if (near := _meant_preset(options.system_prompt)) is not None:
        print(
            f"personaplex: note: the prompt is the text {options.system_prompt!r}; did you mean the preset {near}?",
            file=sys.stderr,
        )
    voice = Path(options.voice).expanduser()
    if voice.is_file() and voice.suffix not in PRESET_SUFFIXES:
        check_input(lambda: AudioSource(voice).close())
    elif voice.suffix and not voice.is_file() and voice.stem.upper() not in VOICES:
        raise ValueError(f"[voice] there is no file {options.voice!r}; see `personaplex voices` for the names.")


def _meant_preset(prompt: str) -> str | None:
    """The preset that a prompt of one word looks like without being it."""
    if prompt in prompts.PROMPTS or prompt.startswith("@") or len(prompt.split()) != 1:
        return None
    return nearest(prompt, prompts.PROMPTS)


def _read_standard_input() -> _StandardInput:
    if sys.stdin.isatty():
        raise UsageError("standard input is a terminal; redirect an audio file to it")
    return _StandardInput(sys.stdin.buffer.read())


def _check_writable(target: Path) -> None:
    """OSError when the file could not be written. Leaves no trace: missing folders are made with the first output."""
    folder = target.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    if folder != target.parent:
        return
    existed = target.exists()
    target.open("ab").close()
    if not existed:
        target.unlink()


def _answer(model: Any, job: _Job, audio: Any, options: argparse.Namespace) -> tuple[Response, bool]:
    """The answer, and whether Ctrl-C cut it short. Streamed audio is written on the way, other audio at the end.

    An output that exists is touched only when there is something to write to it. KeyboardInterrupt when there is not.
    """
    streaming = options.stream and job.kind != "file"
    interrupted = False
    with contextlib.ExitStack() as stack:
        prompt_progress = stack.enter_context(progress_bar("prompt", "column"))
        # Never amid streamed text.
        shows_text = options.stream and options.transcript
        progress = None if shows_text else stack.enter_context(progress_bar("answer", "frame"))
        generation = stack.enter_context(
            model.respond_stream(
                audio,
                voice=options.voice,
                system_prompt=options.system_prompt,
                max_steps=options.max_steps,
                seed=options.seed,
                greedy=options.greedy,
                audio_temperature=options.audio_temp,
                audio_top_k=options.audio_top_k,
                text_temperature=options.text_temp,
                text_top_k=options.text_top_k,
                keep=True,
                on_progress=progress,
                on_prompt=prompt_progress,
            )
        )
        try:
            _consume(generation, job if streaming else None, options)
        except KeyboardInterrupt:
            interrupted = True
            generation.close()
        response = generation.response()
    if interrupted and not len(response.tokens):
        raise KeyboardInterrupt
    if not streaming:
        _write(response, job, options)
    return response, interrupted


def _consume(generation: Generation, job: _Job | None, options: argparse.Namespace) -> None:
    """Writes and shows frame after frame; `job` None when audio is not streamed."""
    show = _text_stream(options) if options.stream and options.transcript and not options.json else None
    sink: WavStream | None = None
    with contextlib.ExitStack() as stack:
        for out in generation:
            if job is not None:
                sink = sink or stack.enter_context(_sink(job, options))
                sink.write(np.stack([generation.user_frame, out.audio], axis=1) if options.stereo else out.audio)
            if show is not None and out.text:
                show.write(out.text)
                show.flush()
    if show is not None:
        show.write(f"{generation.rest}\n")
        show.flush()


def _sink(job: _Job, options: argparse.Namespace) -> WavStream:
    if job.output == "-":
        return WavStream(sys.stdout.buffer, job.kind, 2 if options.stereo else 1)
    Path(job.output).parent.mkdir(parents=True, exist_ok=True)
    return WavStream(job.output, job.kind, 2 if options.stereo else 1)


def _write(response: Response, job: _Job, options: argparse.Namespace) -> None:
    audio = response.stereo if options.stereo else response.audio
    if job.kind == "file":
        Path(job.output).parent.mkdir(parents=True, exist_ok=True)
        audio.write(job.output)
    elif job.output == "-" and job.kind == "wav":
        write_all(sys.stdout.buffer, audio.wav_bytes())  # all is known, so the header has true lengths
        sys.stdout.buffer.flush()
    else:
        with _sink(job, options) as sink:
            sink.write(audio.samples)


def _report(response: Response, job: _Job, options: argparse.Namespace, interrupted: bool) -> None:
    if options.json:
        print(json.dumps(report(response, job.output, job.source, interrupted), ensure_ascii=False), flush=True)
        return
    if options.transcript and not options.stream:
        print(response.transcript, file=_text_stream(options), flush=True)
    facts = response.metadata
    note = " (interrupted; this is what was generated so far)" if interrupted else ""
    name = "standard output" if job.output == "-" else job.output
    seconds, elapsed, seed = facts["durations"]["output"], facts["elapsed"], facts["seed"]
    print(f"personaplex: {name}: {seconds:.1f} s in {elapsed:.1f} s, seed {seed}{note}", file=sys.stderr)


def report(response: Response, output: str, source: str, interrupted: bool = False) -> dict[str, Any]:
    """The object of --json, as schemas/respond.schema.json describes it."""
    return {
        **response.metadata,
        "input": source,
        "audio": os.path.abspath(output),
        "transcript": response.transcript,
        "words": [{"text": word.text, "start": word.start, "end": word.end} for word in response.words],
        "interrupted": interrupted,
    }


def _text_stream(options: argparse.Namespace) -> TextIO:
    """Where text goes: standard output, unless the audio is there."""
    return sys.stderr if options.output == "-" else sys.stdout
