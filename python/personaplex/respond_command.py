"""`personaplex respond`: checks everything that can be checked, loads the model once, answers each input."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from personaplex import prompts
from personaplex.api import check_context
from personaplex.audio import AudioSource, check_suffix
from personaplex.generation import Generation
from personaplex.model import check_max_steps, check_seed, make_sampling
from personaplex.progress import announce, progress_bar
from personaplex.response import Response
from personaplex.voices import VOICES
from personaplex.wav_stream import WavStream


@dataclass(frozen=True)
class _Job:
    source: str
    output: str  # a path, or "-"
    kind: str  # "wav" or "raw" when written here, "file" when soundfile writes it by suffix


def respond(options: argparse.Namespace, load: Callable[..., Any]) -> int:
    """Runs the command; returns the exit status."""
    from personaplex.cli import EXIT_INTERRUPTED, UsageError, model_options

    jobs = _plan(options, UsageError)
    _check_talk(options)
    for job in jobs:
        AudioSource(job.source).close()
        if job.output != "-":
            _check_writable(Path(job.output))
    announce(f"loading {options.model} ...")
    model = load(options.model, **model_options(options))
    for job in jobs:
        response, interrupted = _answer(model, job, options)
        _report(response, job, options, interrupted)
        if interrupted:
            return EXIT_INTERRUPTED
    return 0


def _plan(options: argparse.Namespace, usage_error: type[Exception]) -> list[_Job]:
    """Which input goes to which output."""
    output: str | None = options.output
    several = len(options.input) > 1
    if output == "-":
        if options.json:
            raise usage_error("--json and --output - both want standard output; write the audio to a file")
        if several:
            raise usage_error("--output - takes one --input")
        return [_Job(options.input[0], "-", options.format or "wav")]
    folder = output is not None and (several or output.endswith("/") or Path(output).is_dir())
    suffix = ".raw" if options.format == "raw" else ".wav"
    jobs = []
    for source in options.input:
        stem = Path(source).stem
        if output is None:
            target = f"{stem}-response{suffix}"
        elif "{name}" in output:
            target = output.replace("{name}", stem)
        elif folder:
            target = str(Path(output) / f"{stem}-response{suffix}")
        else:
            target = output
        jobs.append(_Job(source, target, _kind(Path(target), options, usage_error)))
    if len({os.path.abspath(job.output) for job in jobs}) < len(jobs):
        raise usage_error("two inputs would be written to the same output; use a name with {name} in --output")
    inputs = {os.path.realpath(source) for source in options.input}
    for job in jobs:
        if os.path.realpath(job.output) in inputs:
            raise usage_error(f"{job.output!r} is an input too; choose another --output")
    return jobs


def _kind(target: Path, options: argparse.Namespace, usage_error: type[Exception]) -> str:
    if options.format == "raw":
        return "raw"
    if options.stream:
        if target.suffix.lower() != ".wav":
            raise usage_error(f"--stream writes .wav (or --format raw), not {target.name!r}")
        return "wav"
    if options.format == "wav" and target.suffix.lower() != ".wav":
        raise usage_error(f"--format wav writes .wav, not {target.name!r}")
    check_suffix(target)
    return "file"


def _check_talk(options: argparse.Namespace) -> None:
    """Arguments that the model would refuse, before it takes minutes to load."""
    make_sampling(options.greedy, options.audio_temp, options.audio_top_k, options.text_temp, options.text_top_k)
    check_seed(options.seed)
    check_max_steps(options.max_steps)
    check_context(options.context)
    prompts.resolve(options.system_prompt)
    voice = Path(options.voice)
    if voice.suffix and not (voice.expanduser().is_file() or voice.stem in VOICES):
        raise ValueError(f"[voice] there is no file {options.voice!r}; see `personaplex voices` for the names.")


def _check_writable(target: Path) -> None:
    """OSError when the file could not be written. Leaves no trace, except a missing folder made for several outputs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    existed = target.exists()
    target.open("ab").close()
    if not existed:
        target.unlink()


def _answer(model: Any, job: _Job, options: argparse.Namespace) -> tuple[Response, bool]:
    """The answer, and whether Ctrl-C cut it short. Streamed audio is written on the way, other audio at the end."""
    streaming = options.stream and job.kind != "file"
    interrupted = False
    with contextlib.ExitStack() as stack:
        prompt_progress = stack.enter_context(progress_bar("prompt", "column"))
        # Never amid streamed text.
        shows_text = options.stream and options.transcript
        progress = None if shows_text else stack.enter_context(progress_bar("answer", "frame"))
        sink = stack.enter_context(_sink(job, options)) if streaming else None
        generation = stack.enter_context(
            model.respond_stream(
                job.source,
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
            _consume(generation, sink, options)
        except KeyboardInterrupt:
            interrupted = True
            generation.close()
        response = generation.response()
    if not streaming:
        _write(response, job, options)
    return response, interrupted


def _consume(generation: Generation, sink: WavStream | None, options: argparse.Namespace) -> None:
    show = _text_stream(options) if options.stream and options.transcript and not options.json else None
    for out in generation:
        if sink is not None:
            sink.write(np.stack([generation.user_frame, out.audio], axis=1) if options.stereo else out.audio)
        if show is not None and out.text:
            show.write(out.text)
            show.flush()
    if show is not None:
        show.write(f"{generation.rest}\n")
        show.flush()


def _sink(job: _Job, options: argparse.Namespace) -> WavStream:
    target: Any = sys.stdout.buffer if job.output == "-" else job.output
    return WavStream(target, job.kind, 2 if options.stereo else 1)


def _write(response: Response, job: _Job, options: argparse.Namespace) -> None:
    audio = response.stereo if options.stereo else response.audio
    if job.kind == "file":
        audio.write(job.output)
    elif job.output == "-" and job.kind == "wav":
        sys.stdout.buffer.write(audio.wav_bytes())  # all is known, so the header has true lengths
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
