# tools/make_goldens.py: writes golden directories of small random models with Kyutai's `moshi`; see docs/golden.md.
"""Golden data from an independent implementation of the model.

    python tools/make_goldens.py                         # every preset, into tests/golden/data
    python tools/make_goldens.py nano --out data         # one preset, elsewhere
    python tools/make_goldens.py --compare DIR           # DIR's weights and inputs through this script

Needs PyPI `moshi` and torch (install lines in docs/golden.md). The generation loop is ours: a flat table of tokens
(tests/python/reference.py), since moshi's own neither replays voices nor takes user tokens in every row.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "golden"), str(ROOT / "tests" / "python")]
import reference  # noqa: E402
import tensors  # noqa: E402
import weights  # noqa: E402
from golden_presets import MEANINGS, PRESETS, Preset  # noqa: E402
from moshi_reference import Codec, LMModel, Tensors, depformer_frame, embedding, load_lm, new_mimi  # noqa: E402

PAD = 3
SPACER_FRAMES = 6  # int(0.5 s * 12.5)
VOICE, SILENCE, TEXT, SILENCE_AGAIN, USER = range(5)


def mimi_group(codec: Codec, pcm: np.ndarray) -> Tensors:
    out = {"pcm": pcm, "codes_stream": codec.encode(pcm), "enc_seanet": codec.stage("encoder")}
    out["enc_transformer_stream"] = codec.stage("encoder_transformer")
    out["latent_stream"] = codec.stage("downsample")
    codes = torch.from_numpy(out["codes_stream"].astype(np.int64))[None]
    out["dec_quantized"] = codec.mimi.decode_latent(codes)[0].numpy()
    out["decoded_stream"] = codec.decode(out["codes_stream"])
    out["dec_upsampled_stream"] = codec.stage("upsample")
    out["dec_transformer_stream"] = codec.stage("decoder_transformer")
    return {f"mimi.{k}": v for k, v in out.items()}


def code_margin(latent: np.ndarray, codes: np.ndarray, w: Tensors) -> np.ndarray:
    """[Q, T]: gap of the squared distance to the runner-up, relative to the nearest one's."""
    margins = np.zeros(codes.shape, np.float32)
    for part, rows in (("rvq_first", range(1)), ("rvq_rest", range(1, len(codes)))):
        residual = w[f"quantizer.{part}.input_proj.weight"][..., 0].astype(np.float64) @ latent
        for level, row in enumerate(rows):
            book = reference.codebook(w, part, level)
            squared = np.sort(np.sum((residual.T[:, None] - book[None]) ** 2, axis=-1), axis=1)
            margins[row] = squared[:, 1] / squared[:, 0] - 1
            residual = residual - book[codes[row]].T
    return margins


def fit_codebooks(latent: np.ndarray, kwargs: dict, seed: int, shapes: weights.Shapes) -> dict[str, list[list[float]]]:
    """Mean and deviation of what each level has to quantize, so that random codewords lie where the residuals are."""
    fit: dict[str, list[list[float]]] = {}
    for part, levels in (("rvq_first", 1), ("rvq_rest", kwargs["quantizer"]["n_q"] - 1)):
        key = f"quantizer.{part}.input_proj.weight"
        residual = weights.mimi_weight(seed, key, shapes[key], {})[..., 0] @ latent
        for level in range(levels):
            key = f"quantizer.{part}.vq.layers.{level}._codebook.embedding_sum"
            fit[key] = [[float(f"{x:.3g}") for x in v] for v in (residual.mean(1), residual.std(1) + 1e-3)]
            book_keys = {k: shapes[k] for k in (key, key.replace("embedding_sum", "cluster_usage"))}
            book = reference.codebook(weights.make(seed, book_keys, fit), part, level)
            nearest = np.argmin(np.sum((residual.T[:, None] - book[None]) ** 2, axis=-1), axis=1)
            residual = residual - book[nearest].T
    return fit


def temporal_group(lm: LMModel, tokens: np.ndarray) -> Tensors:
    rows = []
    with lm.streaming(1):
        for column in torch.from_numpy(tokens.astype(np.int64)).split(1, -1):
            hidden, logits = lm.forward_text(column[None])
            rows.append((embedding(lm, column[:, 0]), hidden[0, 0].numpy(), logits[0, 0, 0].numpy()))
    names = ("embeddings", "hidden", "text_logits")
    out = {name: np.stack(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    return {"temporal.tokens": tokens} | {f"temporal.{k}": v for k, v in out.items()}


def depformer_group(lm: LMModel, hidden: np.ndarray, text: np.ndarray, given: np.ndarray) -> Tensors:
    logits = [
        depformer_frame(lm, torch.from_numpy(hidden[i])[None, None], int(text[i]), dict(enumerate(map(int, given[i]))))[
            1
        ]
        for i in range(len(hidden))
    ]
    names = ("hidden", "text", "given", "logits")
    return {f"depformer.{k}": v for k, v in zip(names, (hidden, text, given, np.stack(logits)), strict=True)}


class Generator:
    """Greedy generation, logging every transformer step as the golden format wants it."""

    def __init__(self, lm: LMModel) -> None:
        self.lm, self.log = lm, []
        self.grid = reference.Grid(lm.delays, lm.text_card, lm.card)

    def step(self, phase: int, user, agent=None, text: int | None = None, embedded=None) -> np.ndarray | None:
        grid = self.grid
        stale = grid.ring()[0][:, grid.t % grid.slots]  # what the ring's cell held one turn ago
        grid.put(user, agent, text)
        column, (target, forced) = grid.column, grid.target
        target = np.where(target == reference.UNGENERATED, stale, target)
        row = {"phase": phase, "offset": grid.t, "input": column, "target": target, "provided": forced.astype(np.uint8)}
        if embedded is None:
            hidden, logits = self.lm.forward_text(torch.from_numpy(column)[None, :, None])
        else:
            hidden = self.lm.out_norm(self.lm.transformer(torch.from_numpy(embedded).reshape(1, 1, -1)))
            logits = self.lm.text_linear(hidden)[:, None]
        row |= {"hidden": hidden[0, 0].numpy(), "text_logits": logits[0, 0, 0].numpy()}
        row["text_next"] = int(target[0]) if forced[0] else int(row["text_logits"].argmax())
        kept = {k: int(target[1 + k]) for k in range(self.lm.dep_q) if forced[1 + k]}
        tokens, row["audio_logits"] = depformer_frame(self.lm, hidden, row["text_next"], kept)
        row["sampled_audio"] = row["audio_logits"].argmax(-1)
        grid.finish([row["text_next"], *tokens])
        row["cache"], row["provided_after"] = grid.ring()
        self.log.append(row)
        return grid.output()


def lmgen_group(lm: LMModel, codec: Codec, inputs: Tensors) -> Tensors:
    """Voice, silence, text, silence, user: the voice fed once as codes to make the preset, then replayed from it."""
    silence, sine = inputs["lmgen.silence_tokens"], inputs["lmgen.sine_tokens"]
    out = {k: v for k, v in inputs.items() if k.startswith(("lmgen.", "voice."))}
    out["lmgen.user_codes"] = codec.encode(inputs["lmgen.user_pcm"])

    fed = Generator(lm)
    with lm.streaming(1):
        embeddings = []
        for codes in inputs["voice.codes"].T[1:]:  # frame 0 belongs to call 0 and never reaches the model
            embeddings.append(embedding(lm, torch.from_numpy(fed.grid.column)))
            fed.step(VOICE, sine, codes, PAD)
        cache = fed.grid.ring()[0]
        fed_rows = after_voice(fed, out, silence, sine)
    out["voice.embeddings"] = np.stack(embeddings)[:, None, None]
    out["voice.cache"] = cache[None].astype(np.int32)

    replayed = Generator(lm)
    dummy = [lm.card] * (lm.n_q // 2)
    with lm.streaming(1):
        for e in out["voice.embeddings"]:
            replayed.step(VOICE, dummy, dummy, PAD, embedded=e)
        replayed.grid.load_ring(cache)
        out["lmgen.cache_after_voice"] = cache.astype(np.int32)
        rows = after_voice(replayed, out, silence, sine)
    if not np.array_equal(rows, fed_rows):
        raise SystemExit("the replayed preset and the fed voice disagree")

    log = {k: np.stack([row[k] for row in replayed.log]) for k in replayed.log[0]}
    audio_logits = log.pop("audio_logits")
    log = {k: v if v.dtype in (np.float32, np.uint8) else v.astype(np.int32) for k, v in log.items()}
    out |= {f"lmgen.{k}": v for k, v in log.items()}
    out["lmgen.text_margin"] = top_margin(log["text_logits"])
    out["lmgen.audio_margin"] = top_margin(audio_logits)
    out["lmgen.audio_logits_user"] = audio_logits[log["phase"] == USER]
    out["lmgen.out"] = rows.astype(np.int32)
    out["lmgen.agent_pcm"] = codec.decode(np.clip(rows[:, 1 : 1 + lm.n_q // 2].T, 0, inputs["bins"] - 1))
    return out


def after_voice(gen: Generator, out: Tensors, silence: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """The phases behind the voice; [U, rows] of the user phase."""
    for phase, texts in (
        (SILENCE, [PAD] * SPACER_FRAMES),
        (TEXT, out["lmgen.text_prompt"]),
        (SILENCE_AGAIN, [PAD] * SPACER_FRAMES),
    ):
        for text in texts:
            gen.step(phase, sine, silence, int(text))
    return np.stack([gen.step(USER, codes) for codes in out["lmgen.user_codes"].T])


def top_margin(logits: np.ndarray) -> np.ndarray:
    top = np.sort(logits, axis=-1)
    return top[..., -1] - top[..., -2]


def sampling_group(rng: np.random.Generator, card: int, text_card: int) -> Tensors:
    out: Tensors = {}
    for name, n, temperature, top_k in (
        ("audio", card, 0.8, min(250, card)),
        ("text", text_card, 0.7, min(25, text_card)),
    ):
        logits = (3 * rng.standard_normal((16, n))).astype(np.float32)
        q = rng.exponential(size=(16, top_k)).astype(np.float32)
        p, place = torch.softmax(torch.from_numpy(logits) / temperature, -1).topk(top_k, dim=-1)
        best = (p / torch.from_numpy(q)).argmax(-1, keepdim=True)
        token = place.gather(-1, best)[:, 0].numpy().astype(np.int32)
        out |= {f"sampling.{name}.logits": logits, f"sampling.{name}.q": q, f"sampling.{name}.token": token}
    return out


def produce(lm_kwargs: dict, mimi_kwargs: dict, lm_state: Tensors, mimi_state: Tensors, inputs: Tensors) -> Tensors:
    """Every tensor of a golden directory, except `sampling.*`, from weights and inputs alone."""
    q = lm_kwargs["n_q"] // 2
    lm, codec = load_lm(lm_kwargs, lm_state, lm_kwargs["dep_q"]), Codec(mimi_kwargs, mimi_state, q)
    out = mimi_group(codec, inputs["mimi.pcm"])
    out["mimi.code_margin"] = code_margin(out["mimi.latent_stream"], out["mimi.codes_stream"], mimi_state)
    out |= temporal_group(lm, inputs["temporal.tokens"])
    hidden = inputs.get("depformer.hidden", out["temporal.hidden"][:: max(1, len(out["temporal.hidden"]) // 4)][:4])
    out |= depformer_group(
        lm, hidden, inputs["depformer.text"][: len(hidden)], inputs["depformer.given"][: len(hidden)]
    )
    inputs = inputs | {"bins": mimi_kwargs["quantizer"]["bins"]}
    out |= lmgen_group(lm, codec, inputs)
    out.pop("bins", None)
    agent_only = lmgen_group(load_lm(lm_kwargs, lm_state, q), codec, inputs)
    if not np.array_equal(agent_only["lmgen.out"], out["lmgen.out"]):
        raise SystemExit("half of the depformer steps gives other tokens than all of them")
    return out


def random_inputs(preset: Preset, frame: int) -> Tensors:
    rng = np.random.default_rng([preset.seed, 1])
    kw, q = preset.lm, preset.lm["n_q"] // 2
    card, text_card = kw["card"], kw["text_card"]

    def pcm(frames: int) -> np.ndarray:
        """Swept tones under noise, with one silent stretch."""
        t = np.arange(frames * frame) / 24000
        tones = sum(
            np.sin(2 * np.pi * f * (1 + t) * t + a)
            for f, a in zip(rng.uniform(90, 3000, 4), rng.uniform(0, 6, 4), strict=True)
        )
        wave = (0.06 * tones + 0.05 * rng.standard_normal(len(t))) * np.interp(
            np.arange(len(t)) % (4 * frame), [0, 3 * frame, 3 * frame + 1], [0.3, 1, 0]
        )
        return (np.round(wave * 32768) / 32768).astype(np.float32)

    def codes(n: int) -> np.ndarray:
        return rng.integers(0, card, (q, n)).astype(np.int32)

    tokens = np.concatenate(
        [rng.integers(0, text_card, (1, preset.columns)), rng.integers(0, card, (2 * q, preset.columns))]
    )
    tokens[rng.random(tokens.shape) < 0.05] = -1
    tokens[:, 0] = [text_card] + [card] * 2 * q
    return {
        "mimi.pcm": pcm(preset.mimi_frames),
        "temporal.tokens": tokens.astype(np.int32),
        "depformer.text": rng.integers(0, text_card, 4).astype(np.int32),
        "depformer.given": rng.integers(0, card, (4, 2 * q)).astype(np.int32),
        "lmgen.silence_tokens": codes(1)[:, 0],
        "lmgen.sine_tokens": codes(1)[:, 0],
        "lmgen.text_prompt": rng.integers(4, text_card, preset.text_tokens).astype(np.int32),
        "lmgen.user_pcm": pcm(preset.user_frames),
        "voice.codes": codes(preset.voice_frames),
    }


def make(preset: Preset, folder: Path) -> None:
    mimi = new_mimi(preset.mimi)
    shapes = {"lm": weights.lm_shapes(preset.lm), "mimi": {k: list(v.shape) for k, v in mimi.state_dict().items()}}
    inputs, frame = random_inputs(preset, mimi.frame_size), mimi.frame_size
    q = preset.lm["n_q"] // 2
    codec = Codec(preset.mimi, weights.make(preset.seed, shapes["mimi"], {}), q)
    codec.encode(inputs["mimi.pcm"])  # only for the latents: the codebooks are not fitted yet
    fit = fit_codebooks(codec.stage("downsample"), preset.mimi, preset.seed, shapes["mimi"])
    lm_state = {k: tensors.as_bfloat16(v) for k, v in weights.make(preset.seed, shapes["lm"]).items()}
    mimi_state = weights.make(preset.seed, shapes["mimi"], fit)
    out = produce(preset.lm, preset.mimi, lm_state, mimi_state, inputs)
    out |= sampling_group(np.random.default_rng([preset.seed, 2]), preset.lm["card"], preset.lm["text_card"])
    user = out["lmgen.phase"] == USER
    stats = {
        "frame_samples": frame,
        "smallest code margin": float(out["mimi.code_margin"].min()),
        "smallest text margin, user phase": float(out["lmgen.text_margin"][user].min()),
        "smallest audio margin, user phase": float(out["lmgen.audio_margin"][user][:, :q].min()),
        "distinct codes per level": [len(np.unique(r)) for r in out["mimi.codes_stream"]],
        "distinct agent tokens": len(np.unique(out["lmgen.out"][:, 1 : 1 + q])),
    }
    print(preset.name, json.dumps(stats))
    if min(value for key, value in stats.items() if key.startswith("smallest")) < 2e-3:
        raise SystemExit(f"{preset.name}: a decision is too close to call in float32; take another seed")
    folder.mkdir(parents=True, exist_ok=True)
    tensors.write(folder / "golden.safetensors", out)
    voice = {
        "embeddings": torch.from_numpy(out["voice.embeddings"]),
        "cache": torch.from_numpy(out["voice.cache"].astype(np.int64)),
    }
    torch.save(voice, folder / "voice.pt")
    manifest = {
        "preset": preset.name,
        "seed": preset.seed,
        "reference": "PyPI moshi 0.2.13 (PyTorch, CPU), generation loop of tools/make_goldens.py",
        "weights_rule": "tests/golden/weights.py",
        "tensors": {
            k: {"shape": list(v.shape), "dtype": str(v.dtype), "meaning": MEANINGS[k]} for k, v in sorted(out.items())
        },
        "stats": stats,
        "mimi_kwargs": preset.mimi,
        "lm_kwargs": preset.lm,
        "codebooks": fit,
        "weights": {
            f: {k: [s, "bfloat16" if f == "lm" else "float32"] for k, s in keys.items()} for f, keys in shapes.items()
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, separators=(",", ":")) + "\n")


def compare(folder: Path) -> int:
    """This script's method on somebody else's golden directory: relative differences, worst first."""
    manifest, golden = json.loads((folder / "manifest.json").read_text()), tensors.read(folder / "golden.safetensors")
    state = [tensors.read(folder / f"{name}.safetensors") for name in ("lm", "mimi")]
    out = produce(manifest["lm_kwargs"], manifest["mimi_kwargs"], *state, golden)
    rows = []
    for key in sorted(set(out) & set(golden)):
        a, b = out[key].astype(np.float64), golden[key].astype(np.float64)
        if golden[key].dtype == np.float32:
            rows.append((float(np.linalg.norm(a - b) / np.linalg.norm(b)), key))
        elif not np.array_equal(a, b):
            rows.append((float("inf"), key))
    for error, key in sorted(rows, reverse=True)[:12]:
        print(f"{error:9.2e}  {key}")
    worst = max(rows)[0]
    print(
        f"{len(set(out) & set(golden))} tensors, integers equal: {worst < float('inf')}, largest difference {worst:.2e}"
    )
    return int(worst > 1e-5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", help=f"of {', '.join(PRESETS)} (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "golden" / "data")
    parser.add_argument("--compare", type=Path, metavar="DIR", help="check this script against DIR instead of writing")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)  # one thread: the same bits on every run
    if args.compare:
        return compare(args.compare)
    for name in args.presets or PRESETS:
        make(PRESETS[name], args.out / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
