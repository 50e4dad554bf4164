"""The `personaplex` command: options, help, errors. What `respond` does is in respond_command.py."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from personaplex import shipped
from personaplex.errors import PersonaplexError
from personaplex.hub import DEFAULT_MODEL, KNOWN_MODELS
from personaplex.interrupts import Interrupts
from personaplex.prompts import PROMPTS
from personaplex.respond_command import respond
from personaplex.usage import UsageError, check_input, model_options, one_line
from personaplex.version import __version__
from personaplex.voices import VOICES

EXIT_FAILURE, EXIT_USAGE = 1, 2

_EXAMPLES = """\
examples:
  # no download: the small trained model that comes with this package
  personaplex respond --model tiny --input question.wav --transcript

  # a spoken answer in question-response.wav, and its text
  personaplex respond --input question.wav --transcript

  # another voice and role, the same answer every time
  personaplex respond --input question.wav --voice NATF2 --system-prompt teacher --seed 7

  # imitate a recorded voice; user left, agent right
  personaplex respond --input question.wav --voice me.wav --stereo --output both.wav

  # hear it while it is being made
  personaplex respond --input question.wav --stream --output - | ffplay -nodisp -autoexit -

  # many recordings, one load, one JSON line each
  personaplex respond --input a.wav --input b.wav --output answers/ --json
"""

LoadFunction = Callable[..., Any]


def main(argv: Sequence[str] | None = None, load: LoadFunction | None = None) -> int:
    """Runs the command; returns the exit status.

    0; 1, the model, hub, device or output failed, or the reader of a pipe left; 2, wrong arguments or input files;
    130 and 143, Ctrl-C and SIGTERM, after saving.

    Args:
        argv: without the program's name; None for sys.argv.
        load: stands in for personaplex.load.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    logging.basicConfig(format="personaplex: %(message)s", level=logging.DEBUG if options.debug else logging.WARNING)
    if load is None:
        from personaplex.api import load
    interrupts = Interrupts()
    try:
        with interrupts:
            status = int(options.run(options, load, interrupts))
            if sys.stdout is not None:
                sys.stdout.flush()  # a pipe that broke is noticed here, not after the end
        return status
    except KeyboardInterrupt:
        _complain("interrupted")
        return 128 + (interrupts.received or signal.SIGINT)
    except BrokenPipeError:
        # The reader has left. Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except UsageError as error:
        _complain(f"error: {error}")
        return EXIT_USAGE
    except (PersonaplexError, ValueError, TypeError, OSError, MemoryError) as error:
        if options.debug:
            raise
        _complain(f"error: {one_line(error)}")
        # A wrong argument or input is usage; anything that went wrong with right ones is a failure.
        return EXIT_USAGE if isinstance(error, (ValueError, TypeError)) else EXIT_FAILURE


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, instead of a page of options before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"personaplex: error: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="personaplex",
        description="Full-duplex speech to speech: the agent listens and speaks at the same time, 12.5 times a second.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"personaplex {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_respond(commands)
    _add_voices(commands)
    _add_prompts(commands)
    return parser


def _add_respond(commands: Any) -> None:
    models = "\n".join(f"  {name}\n      {note}" for name, note in KNOWN_MODELS.items())
    parser = commands.add_parser(
        "respond",
        help="answer a recording",
        description="Answers a recording: writes the agent's audio, and its text when asked.",
        epilog=(
            f"models:\n{models}\n  {shipped.TINY}\n      {shipped.ABOUT}\n"
            "  random:tiny, random:7b\n      random weights of that shape: noise, but no download\n"
            f"  a directory with a checkpoint\n\n{_EXAMPLES}"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    io = parser.add_argument_group("input and output")
    io.add_argument(
        "--input",
        "-i",
        action="append",
        required=True,
        metavar="FILE",
        help="input audio file, or - for standard input; may be repeated",
    )
    io.add_argument(
        "--output",
        "-o",
        metavar="PATH",
        help="output file, or - for standard output (default: NAME-response.wav in the current folder); with several "
        "inputs a folder, or a name with {name} or {index} in it",
    )
    io.add_argument("--stream", action="store_true", help="write audio as it is generated")
    io.add_argument(
        "--format",
        choices=("wav", "raw"),
        help="of streamed output: wav (default), or raw (16-bit little-endian PCM without a header)",
    )
    io.add_argument("--stereo", action="store_true", help="two channels: user left, agent right")
    io.add_argument("--transcript", action="store_true", help="print the agent's text")
    io.add_argument("--json", action="store_true", help="print one JSON object per input, and nothing else")

    talk = parser.add_argument_group("conversation")
    talk.add_argument(
        "--voice",
        default="NATM0",
        metavar="VOICE",
        help="NATF0-3, NATM0-3, VARF0-4, VARM0-4, a preset file, a recording to imitate, or none (default: NATM0)",
    )
    talk.add_argument(
        "--system-prompt",
        default="assistant",
        metavar="TEXT",
        help=f"{', '.join(PROMPTS)}, any text, or @FILE; empty for none (default: assistant)",
    )
    talk.add_argument(
        "--max-steps",
        type=int,
        default=200,
        metavar="N",
        help="most frames (80 ms) generated after the input ends (default: 200); ends earlier once the agent has "
        "spoken and fallen silent for 2 s",
    )
    talk.add_argument("--seed", type=int, metavar="N", help="of the sampling noise (default: another each time)")
    talk.add_argument("--greedy", action="store_true", help="always the most likely token")
    talk.add_argument("--audio-temp", type=float, default=0.8, metavar="T", help="default: 0.8")
    talk.add_argument("--audio-top-k", type=int, default=250, metavar="K", help="default: 250")
    talk.add_argument("--text-temp", type=float, default=0.7, metavar="T", help="default: 0.7")
    talk.add_argument("--text-top-k", type=int, default=25, metavar="K", help="default: 25")
    _add_model_options(parser)
    parser.set_defaults(run=respond)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model")
    _add_model_name(model)
    _add_weight_options(model)
    model.add_argument(
        "--engine",
        default="auto",
        choices=("auto", "fused", "graph"),
        help="fused: own kernels, tens of times faster, on CPUs and NVIDIA GPUs; graph: plain MLX operations, any "
        "device; auto: fused where it can (default)",
    )
    model.add_argument(
        "--kv-bits",
        type=int,
        choices=(16, 8),
        help="of the temporal transformer's memory, fused engine: 8 halves it, 0.8 GB instead of 1.6 for 3000 frames "
        "(default: 16)",
    )
    model.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="of the fused engine on a CPU (default: all cores that this process may use)",
    )
    model.add_argument("--depformer-steps", type=int, choices=(8, 16), help="default: 8; 16 gives the same, slower")
    model.add_argument(
        "--compile",
        action="store_true",
        help="MLX compiled inference, graph engine: about 13 s at every start on a CPU (up to 70 s on an H200, kernels "
        "cold); gains little: between 7 %% faster and 3 %% slower",
    )
    model.add_argument(
        "--prompt-cache",
        default="auto",
        choices=("auto", "memory", "disk", "off"),
        help="where the state after voice and prompt is kept for the next time; auto: memory, and disk when the prompt "
        "took over 1 s",
    )
    parser.add_argument("--debug", action="store_true", help="log more, and show tracebacks")


def _add_model_name(group: Any) -> None:
    group.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"hub id, folder, tiny or random:* (default: {DEFAULT_MODEL})",
    )
    group.add_argument("--revision", metavar="REV", help="branch, tag or commit of a hub model")


def _add_weight_options(model: Any) -> None:
    model.add_argument("--device", default="auto", choices=("auto", "cpu", "gpu", "metal", "cuda"))
    model.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    model.add_argument(
        "--bits",
        type=int,
        choices=(4, 8, 16),
        help="of the temporal transformer and the depformer: quantizes an unquantized checkpoint at load, widens a "
        "quantized one; heads and embeddings stay as stored unless their own option is given",
    )
    for part, default in (
        ("temporal", "--bits"),
        ("depformer", "--bits"),
        ("head", "as stored"),
        ("embedding", "as stored"),
    ):
        model.add_argument(
            f"--{part}-bits", type=int, choices=(4, 8, 16), help=f"the {part} part only (default: {default})"
        )
    model.add_argument(
        "--group-size",
        type=int,
        choices=(32, 64),
        help="weights that share a scale (default: the larger one that divides the sizes)",
    )
    model.add_argument("--context", type=int, metavar="N", help="frames remembered, 2 or more (default: 3000)")


def _add_voices(commands: Any) -> None:
    parser = commands.add_parser(
        "voices",
        help="list the voices, or make a preset from a recording",
        description="Lists the 18 voices, or with --model those of a model on this machine. With --imitate, makes a "
        "voice preset from a recording of a few seconds.",
    )
    _add_model_name(parser)
    parser.add_argument("--debug", action="store_true", help="log more, and show tracebacks")
    imitation = parser.add_argument_group("a preset from a recording")
    imitation.add_argument("--imitate", metavar="FILE", help="recording of the voice")
    imitation.add_argument("--output", "-o", metavar="FILE", help="preset to write (.safetensors)")
    _add_weight_options(imitation)
    parser.set_defaults(run=_voices, model=None)


def _add_prompts(commands: Any) -> None:
    parser = commands.add_parser("prompts", help="list the system prompts", description="Lists the system prompts.")
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=_prompts)


def _voices(options: argparse.Namespace, load: LoadFunction, interrupts: Interrupts) -> int:
    if (options.imitate is None) != (options.output is None):
        raise UsageError("--imitate and --output go together")
    if options.imitate is None:
        names = list(VOICES) if options.model is None else _voices_of(options.model, options.revision)
        for name in names:
            print(f"{name}  {VOICES.get(name, 'a preset of this model')}")
        return 0
    from pathlib import Path

    from personaplex.api import check_context
    from personaplex.audio import AudioSource
    from personaplex.progress import announce

    target = Path(options.output)
    if target.suffix != ".safetensors":
        raise UsageError(f"a preset is a .safetensors file, not {target.name!r}")
    check_input(lambda: AudioSource(options.imitate).close())
    check_context(options.context)
    name = options.model or DEFAULT_MODEL
    announce(f"loading {name} ...")
    model = load(name, **model_options(options))
    model.make_preset(options.imitate, target.stem).save(target)
    print(target)
    return 0


def _voices_of(model: str, revision: str | None) -> list[str]:
    from personaplex import hub
    from personaplex.cache_dir import cache_dir
    from personaplex.voices import VoiceLibrary

    return VoiceLibrary(hub.resolve(model, revision, download=False).directory, cache_dir()).names()


def _prompts(options: argparse.Namespace, load: LoadFunction, interrupts: Interrupts) -> int:
    for name, text in PROMPTS.items():
        print(f"{name}\n    {text}")
    return 0


def _complain(message: str) -> None:
    print(f"personaplex: {message}", file=sys.stderr)
