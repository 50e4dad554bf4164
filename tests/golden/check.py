#!/usr/bin/env python3
# tests/golden/check.py: runs this project on a golden directory and compares; see docs/golden.md.
"""Compares this project with the golden data of a reference implementation.

One line per group: the tensor that is farthest off (||a - b|| / ||b||) and whether every token is equal.
Exit status 1 on any miss. With --bits 8 or 4 the quantized engine is compared with the float32 graph on the same
weights, dequantized, so that quantization itself is no part of the error.

The graph engine must equal the reference. The fused engine rounds activations to 16 bits, as the reference does in
bfloat16, and is therefore compared step by step, every step fed with the golden tokens: see docs/golden.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("MLX_ENABLE_TF32", "0")  # TF32 would be the whole error on an NVIDIA card
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "python")]
import folder  # noqa: E402
import tensors  # noqa: E402
from folder import Golden  # noqa: E402
from reference import Grid  # noqa: E402

from personaplex import _core, nvrtc, pt  # noqa: E402
from personaplex.cache_dir import cache_dir  # noqa: E402

TOLERANCE = 1e-5
# Of the fused engine. NOISE is what the reference's own bfloat16 run is off by.
NOISE = 0.009
FUSED_TOLERANCE = {"mimi.": 2e-3, "lmgen.agent_pcm": 2e-3, "embeddings": TOLERANCE, "": 1.5 * NOISE}
CODE_MARGIN = 5e-3  # a codeword this close to the nearest one, relatively, may be taken for it
CHUNKS = (1, 3, 8, 32)  # columns per prefill pass: one by one, odd, full
USER = 4  # lmgen.phase
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One run of one group: what came out and what the golden data says, under the golden tensors' names."""

    label: str
    got: Arrays
    want: Arrays


def tolerance(name: str, fused: bool) -> float:
    if not fused:
        return TOLERANCE
    return next(limit for part, limit in FUSED_TOLERANCE.items() if part in name)


@dataclass
class Line:
    """The verdict on a group."""

    group: str
    fused: bool = False
    worst: float = 0.0
    where: str = ""
    floats: int = 0
    integers: int = 0
    misses: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def ok(self) -> bool:
        return not self.misses

    def add(self, label: str, got: Arrays, want: Arrays) -> None:
        for name in want:
            a, b, what = got[name], want[name], f"{name} ({label})" if label else name
            if a.shape != b.shape:
                self.misses.append(f"{what}: shape {a.shape}, expected {b.shape}")
            elif np.issubdtype(b.dtype, np.integer):
                self.integers += b.size
                if not np.array_equal(a, b):
                    first = tuple(int(i) for i in np.argwhere(a != b)[0])
                    self.misses.append(f"{what}: {int((a != b).sum())} of {b.size} differ, first at {first}")
            else:
                self.floats += 1
                error = relative_error(a, b)
                if not error <= self.worst:  # also true for NaN
                    self.worst, self.where = error, what
                if not error <= tolerance(name, self.fused):
                    self.misses.append(f"{what}: relative error {error:.2e}")
                if self.fused and name.endswith("logits"):
                    self.add_tokens(what, a, b)

    def add_tokens(self, what: str, a: np.ndarray, b: np.ndarray) -> None:
        """The greedy tokens of two sets of logits: equal unless the runner-up is within the noise."""
        a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
        best = np.sort(b, axis=1)
        clear = best[:, -1] - best[:, -2] > 4 * NOISE * np.sqrt((b.astype(np.float64) ** 2).mean(axis=1))
        self.integers += int(clear.sum())
        wrong = int((clear & (a.argmax(axis=1) != b.argmax(axis=1))).sum())
        if wrong:
            self.misses.append(f"{what}: {wrong} of {int(clear.sum())} clear greedy tokens differ")

    def __str__(self) -> str:
        if self.skipped:
            return f"{self.group:<10} skipped: {self.skipped}"
        tokens = f"{self.integers} tokens" if self.integers else "no tokens"
        largest = f"largest error {self.worst:.1e} in {self.where or 'all'}" if self.floats else "no tensors"
        head = f"{self.group:<10} {'ok  ' if self.ok else 'MISS'} {tokens} compared, {largest}"
        return "\n".join([head] + [f"           {miss}" for miss in self.misses])


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


# The groups. Each yields cases; nothing here knows a size.


def mimi(model: _core.Model, golden: Golden) -> Iterator[Case]:
    names = {"enc_seanet": "enc_seanet", "enc_transformer": "enc_transformer_stream", "latent": "latent_stream"}
    names |= {"dec_quantized": "dec_quantized", "dec_upsampled": "dec_upsampled_stream"}
    names |= {"dec_transformer": "dec_transformer_stream"}
    probe = model.probe_mimi(golden["mimi.pcm"])
    got = {f"mimi.{there}": probe[here] for here, there in names.items()}
    got["mimi.codes_stream"] = model.encode(golden["mimi.pcm"])
    got["mimi.decoded_stream"] = model.decode(golden["mimi.codes_stream"])
    want = {name: golden[name] for name in got}
    if model.info["engine"] == "fused" and not np.array_equal(got["mimi.codes_stream"], want["mimi.codes_stream"]):
        got["mimi.codes_stream"] = forgiven(got["mimi.codes_stream"], want["mimi.codes_stream"], golden)
        want = {name: tensor for name, tensor in want.items() if "mimi.dec_" not in name}  # of the codes it found
    yield Case("", got, want)


def forgiven(got: np.ndarray, want: np.ndarray, golden: Golden) -> np.ndarray:
    """[Q, T] codes with the golden ones where a near tie fell the other way, and in the levels that build on it."""
    got = got.copy()
    for t in range(got.shape[1]):
        for levels in (range(1), range(1, len(got))):  # the two parts of the split quantizer
            for level in levels:
                if got[level, t] != want[level, t]:
                    if golden["mimi.code_margin"][level, t] <= CODE_MARGIN:
                        got[level : levels.stop, t] = want[level : levels.stop, t]
                    break
    return got


def temporal(model: _core.Model, golden: Golden, chunks: tuple[int, ...]) -> Iterator[Case]:
    names = ("embeddings", "hidden", "text_logits")
    fed = conversation_columns(golden)
    voice = golden["voice.embeddings"].reshape(-1, golden["lmgen.hidden"].shape[1])
    for chunk in chunks:
        probe = model.probe_temporal(golden["temporal.tokens"], chunk=chunk)
        yield Case(f"chunk {chunk}", *matched({f"temporal.{name}": probe[name] for name in names}, golden))
        probe = model.probe_temporal(fed, chunk=chunk)
        got, want = matched({f"lmgen.{name}": probe[name] for name in names[1:]}, golden)
        got["voice.embeddings"], want["voice.embeddings"] = probe["embeddings"][: len(voice)], voice
        yield Case(f"conversation, chunk {chunk}", got, want)


def matched(got: Arrays, golden: Golden) -> tuple[Arrays, Arrays]:
    return got, {name: golden[name] for name in got}


def conversation_columns(golden: Golden) -> np.ndarray:
    """[rows, N] tokens of a conversation whose voice was fed as codes; the golden run replayed a preset instead."""
    kwargs, columns = golden.manifest["lm_kwargs"], golden["lmgen.input"].copy()
    grid = Grid(kwargs["delays"], kwargs["text_card"], kwargs["card"])
    for i, codes in enumerate(golden["voice.codes"].T[1:]):
        grid.put(golden["lmgen.sine_tokens"], codes, kwargs["existing_text_padding_id"])
        columns[i] = grid.column
        grid.finish([])
    return np.ascontiguousarray(columns.T.astype(np.int32))


def depformer(model: _core.Model, golden: Golden) -> Iterator[Case]:
    steps = model.config["depformer_steps"]
    given = np.ascontiguousarray(golden["depformer.given"][:, :steps])
    logits = model.probe_depformer(golden["depformer.hidden"], golden["depformer.text"], given)
    want = golden["depformer.logits"][:, :steps]
    yield Case(f"{steps} steps", {"depformer.logits": logits}, {"depformer.logits": want})


def voice(model: _core.Model, golden: Golden) -> Iterator[Case]:
    session = greedy_session(model)
    session.prompt(voice_codes=golden["voice.codes"], text_tokens=golden["lmgen.text_prompt"].tolist())
    embeddings, cache = session.voice_preset()
    want = {"voice.embeddings": golden["voice.embeddings"][:, 0, 0], "voice.cache": golden["voice.cache"][0]}
    yield Case("from codes", {"voice.embeddings": embeddings, "voice.cache": cache}, want)


def voice_file(golden: Golden) -> Iterator[Case]:
    """voice.pt as this project reads it. A file of the reference may store its embeddings in bfloat16."""
    read = pt.read_voice(golden.path / "voice.pt")
    want = {"voice.embeddings": golden["voice.embeddings"], "voice.cache": golden["voice.cache"].astype(np.int64)}
    if np.array_equal(read["embeddings"], tensors.as_bfloat16(read["embeddings"])):
        want["voice.embeddings"] = tensors.as_bfloat16(want["voice.embeddings"])
    yield Case("voice.pt", {f"voice.{name}": read[name] for name in ("embeddings", "cache")}, want)


def lmgen(model: _core.Model, golden: Golden, chunks: tuple[int, ...]) -> Iterator[Case]:
    if model.info["engine"] == "fused":
        yield from taught(model, golden, chunks)
        return
    embeddings, cache = golden["voice.embeddings"], golden["voice.cache"]
    replayed = {"voice_embeddings": embeddings[:, 0, 0], "voice_cache": cache[0].astype(np.int64)}
    for chunk in chunks:
        yield conversation(model, golden, f"replayed voice, chunk {chunk}", replayed | {"chunk": chunk})
    fed = {"voice_codes": golden["voice.codes"], "chunk": chunks[-1]}
    yield conversation(model, golden, f"fed voice, chunk {chunks[-1]}", fed)
    yield from_audio(model, golden, replayed)


def taught(model: _core.Model, golden: Golden, chunks: tuple[int, ...]) -> Iterator[Case]:
    """The conversation with the golden tokens in place of the model's own: logits of every step, and the audio."""
    steps = model.config["depformer_steps"]
    user = golden["lmgen.phase"] == USER
    for chunk in chunks:
        session = greedy_session(model)
        prompt = {"text_tokens": golden["lmgen.text_prompt"].tolist(), "voice_codes": golden["voice.codes"]}
        session.prompt(chunk=chunk, **prompt)
        got = dict(zip(("lmgen.cache", "lmgen.provided_after"), session.grid_ring(), strict=True))
        yield Case(f"after the prompt, chunk {chunk}", got, {name: golden[name][~user][-1] for name in got})
    rows = slice(1, 1 + steps)
    drawn, target = golden["lmgen.sampled_audio"][user][:, :steps], golden["lmgen.target"][user][:, rows]
    given = np.ascontiguousarray(np.where(golden["lmgen.provided"][user][:, rows], target, drawn))
    text = np.ascontiguousarray(golden["lmgen.text_next"][user])
    logits = model.probe_depformer(np.ascontiguousarray(golden["lmgen.hidden"][user]), text, given)
    want = {"lmgen.audio_logits": golden["lmgen.audio_logits_user"][:, :steps]}
    yield Case(f"{steps} depformer steps, golden tokens", {"lmgen.audio_logits": logits}, want)
    codes = np.ascontiguousarray(golden["lmgen.out"].T[1 : 1 + golden.codebooks])
    pcm = model.decode(np.clip(codes, 0, golden.manifest["lm_kwargs"]["card"] - 1))
    yield Case("golden codes", {"lmgen.agent_pcm": pcm}, {"lmgen.agent_pcm": golden["lmgen.agent_pcm"]})
    finite = [session.step(frame).audio for frame in golden["lmgen.user_pcm"].reshape(user.sum(), -1)]
    told = {"lmgen.finite": np.isfinite(np.stack(finite)).astype(np.int32)}
    yield Case("from audio", told, {"lmgen.finite": np.ones_like(told["lmgen.finite"])})


def conversation(model: _core.Model, golden: Golden, label: str, prompt: dict) -> Case:
    """Prompt, then the user's codes; every frame's tokens, token ring, hidden state, logits and audio."""
    steps = model.config["depformer_steps"]
    user = golden["lmgen.phase"] == USER
    spoken = int(np.argmax(user))  # columns of the prompt
    session = greedy_session(model)
    session.set_probing(True)
    session.prompt(text_tokens=golden["lmgen.text_prompt"].tolist(), **prompt)
    rings, frames = [session.grid_ring()], []
    if session.position != spoken:
        raise AssertionError(f"[check] the prompt took {session.position} positions, expected {spoken}")
    for codes in golden["lmgen.user_codes"].T:
        output = session.step_codes(np.ascontiguousarray(codes))
        frames.append({"out": output.tokens, "agent_pcm": output.audio, **session.probe()})
        rings.append(session.grid_ring())
    rows = slice(spoken - 1, None)  # the ring is known from the last prompt column on
    got = {f"lmgen.{name}": np.stack([frame[name] for frame in frames]) for name in ("out", "hidden", "text_logits")}
    got["lmgen.audio_logits_user"] = np.stack([frame["audio_logits"] for frame in frames])
    got["lmgen.agent_pcm"] = np.concatenate([frame["agent_pcm"] for frame in frames])
    got["lmgen.cache"], got["lmgen.provided_after"] = (np.stack(parts) for parts in zip(*rings, strict=True))
    want = {name: golden[name] for name in got}
    want |= {name: golden[name][user] for name in ("lmgen.hidden", "lmgen.text_logits")}
    want |= {name: golden[name][rows] for name in ("lmgen.cache", "lmgen.provided_after")}
    want["lmgen.audio_logits_user"] = want["lmgen.audio_logits_user"][:, :steps]
    return Case(f"{steps} depformer steps, {label}", got, want)


def from_audio(model: _core.Model, golden: Golden, prompt: dict) -> Case:
    """The way that a user takes: samples in, samples out."""
    session = greedy_session(model)
    session.prompt(text_tokens=golden["lmgen.text_prompt"].tolist(), **prompt)
    frames = golden["lmgen.user_pcm"].reshape(golden["lmgen.user_codes"].shape[1], -1)
    outputs = [session.step(pcm) for pcm in frames]
    got = {"lmgen.out": np.stack([o.tokens for o in outputs])}
    got["lmgen.agent_pcm"] = np.concatenate([o.audio for o in outputs])
    label = f"{model.config['depformer_steps']} depformer steps, from audio"
    return Case(label, *matched(got, golden))


def greedy_session(model: _core.Model) -> _core.Session:
    return model.session(_core.Sampling(text_temperature=0, audio_temperature=0))


def sampling(golden: Golden) -> Iterator[Case]:
    for name, temperature in (("audio", 0.8), ("text", 0.7)):
        logits, q = golden[f"sampling.{name}.logits"], golden[f"sampling.{name}.q"]
        tokens = [sampled(*row, temperature) for row in zip(logits, q, strict=True)]
        token = f"sampling.{name}.token"
        yield Case("", {token: np.array(tokens)}, {token: golden[token]})


def sampled(logits: np.ndarray, q: np.ndarray, temperature: float) -> int:
    """The golden noise belongs to places, most probable first; ours to token ids."""
    noise = np.ones_like(logits)
    noise[np.argsort(-logits, kind="stable")[: len(q)]] = q
    return _core.sample_with_noise(logits, noise, temperature, len(q))


# Running them.


@dataclass(frozen=True)
class Options:
    engine: str = "graph"
    device: str = "cpu"
    bits: int = 16
    steps: tuple[str, ...] = ("8", "16")  # "8": the agent's rows only; "16": every row
    chunks: tuple[int, ...] = CHUNKS
    threads: int = 0  # of the fused engine; 0: all usable cores


def check(path: Path | str, options: Options = Options()) -> list[Line]:
    """Every group's verdict on a golden directory."""
    golden = folder.load(path)
    groups = ("mimi", "temporal", "depformer", "voice", "lmgen", "sampling")
    lines = {group: Line(group, fused=options.engine == "fused") for group in groups}
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = str(folder.checkpoint(golden, Path(directory) / "checkpoint"))
        for i, steps in enumerate(options.steps if golden.has_lm else options.steps[:1]):
            model = open_model(checkpoint, golden, steps, options)
            exact = open_model(checkpoint, golden, steps, options, exact=True) if options.bits < 16 else None
            for group in ("mimi", "temporal", "depformer", "voice", "lmgen") if golden.has_lm else ("mimi",):
                if i == 0 or group in ("depformer", "lmgen"):  # the others do not depend on the depformer
                    compare(lines[group], group, model, exact, golden, options)
            for loaded in (model, exact):
                if loaded is not None:
                    loaded.unload()
    if golden.has_lm:
        for group, cases in (("voice", voice_file(golden)), ("sampling", sampling(golden))):
            for case in cases:
                lines[group].add(case.label, case.got, case.want)
    else:
        for group in groups[1:]:
            lines[group].skipped = "this data has no language model"
    return list(lines.values())


def compare(
    line: Line, group: str, model: _core.Model, exact: _core.Model | None, golden: Golden, options: Options
) -> None:
    """Adds a group's cases to its line. `exact`, when given, stands in for the golden values."""
    run = globals()[group]
    extra = (options.chunks,) if group in ("temporal", "lmgen") else ()
    if exact is None or group == "mimi":  # Mimi is never quantized
        for case in run(model, golden, *extra):
            line.add(case.label, case.got, case.want)
        return
    if line.fused and group == "lmgen":
        run = taught  # both of them
    for case, truth in zip(run(model, golden, *extra), run(exact, golden, *extra), strict=True):
        line.add(case.label, case.got, {name: truth.got[name] for name in case.want})


def open_model(checkpoint: str, golden: Golden, steps: str, options: Options, exact: bool = False) -> _core.Model:
    """`exact`: the graph engine on the quantized weights, dequantized to float32."""
    parts = ("temporal_bits", "depformer_bits", "head_bits", "embedding_bits") if options.bits < 16 else ()
    return _core.Model(
        checkpoint,
        device="cpu" if exact and options.engine == "fused" else options.device,
        engine="graph" if exact else options.engine,
        dtype="float32" if exact or options.engine == "graph" else "auto",
        depformer_steps=golden.codebooks * (2 if steps == "16" else 1),
        dequantize=exact,
        threads=0 if exact else options.threads,
        nvrtc=nvrtc.folders(),
        kernel_cache=str(cache_dir() / "kernels"),
        **dict.fromkeys(parts, options.bits),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--engine", default="graph", choices=("graph", "fused"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bits", type=int, choices=(16, 8, 4), default=16)
    parser.add_argument("--depformer-steps", choices=("8", "16", "both"), default="both", help="half or all of them")
    parser.add_argument("--chunk", type=int, choices=range(1, 33), metavar="1..32", help="only this prefill chunk")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="fused engine only (default: all usable cores)"
    )
    args = parser.parse_args()
    if args.threads and (args.threads < 0 or args.engine != "fused"):
        parser.error("--threads: expected 1 or more, and --engine fused")
    steps = ("8", "16") if args.depformer_steps == "both" else (args.depformer_steps,)
    chunks = (args.chunk,) if args.chunk else CHUNKS
    try:
        lines = check(args.directory, Options(args.engine, args.device, args.bits, steps, chunks, args.threads))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    print(*lines, sep="\n")
    return int(not all(line.ok for line in lines))


if __name__ == "__main__":
    sys.exit(main())
