"""Trains the language model: `python train_lm.py CORPUS OUT codec.pt --seconds N [--resume OUT] [--frames T]`.

First the corpus becomes codes, then talks are made on the device all the while. OUT receives `lm.0.pt`, `lm.1.pt` ...
(16-bit weights in files below 15 MB) and `lm.log`. A later call with `--resume` and longer talks (`--frames 1500
--skip 1500`) teaches the model to stay itself after the prompt has left its context.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import lines
import mimi
import shards
import tokenizer
import torch
from hearing import NOTHING, Vocabulary
from lm import PAD, Sizes, TinyLM
from replay import Replayed
from talks import Maker, Talks
from torch import Tensor, nn
from torch.nn import functional

PEAK, RESUMED = 2e-3, 6e-4  # learning rates
DROP = 0.08
SPOKEN, UNSPOKEN = 4.0, 0.4  # weights of text tokens: words, padding
FIRST_BOOKS = (4.0, 1.5, 1.2)  # weights of the first codebooks; the others 1
HEARD_WRONG, SAID_WRONG = 0.05, 0.02  # shares of codes replaced in what the model sees
COARSE, SURE_BOOKS = 0.3, 3  # of the talks: the user's later codebooks are noise, these first ones never
LOST = 0.015  # of the user's frames: nothing is heard
HEARING = 0.5  # weight of naming the user's words
SILENT_WORD = 0.1  # weight of a frame without one
DEPTH_SHARE = 0.45  # of the frames that the depformer is trained on: all speech and some silence
PART = 14_000_000  # bytes of a file
STATISTICS = ("loss", "text", "audio", "words", "padding", "first book", "last book", "hearing", "heard")


def save(out: Path, state: dict[str, Any]) -> None:
    """The tensors of `state["model"]` in files of at most PART bytes, the rest in the first."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in state["model"].items():
        half = tensor.detach().half().cpu().clone()
        if size + half.nbytes > PART:
            parts.append({})
            size = 0
        parts[-1][name] = half
        size += half.nbytes
    for number, part in enumerate(parts):
        content = {**state, "model": part, "parts": len(parts)} if number == 0 else {"model": part}
        unfinished = out / f"lm.{number}.part"
        torch.save(content, unfinished)
        unfinished.rename(out / f"lm.{number}.pt")


def load(folder: Path) -> dict[str, Any]:
    """What `save` wrote; the model's tensors as float32."""
    state = torch.load(folder / "lm.0.pt", map_location="cpu", weights_only=True)
    for number in range(1, state["parts"]):
        state["model"].update(torch.load(folder / f"lm.{number}.pt", map_location="cpu", weights_only=True)["model"])
    state["model"] = {name: tensor.float() for name, tensor in state["model"].items()}
    return state


def corrupted(sizes: Sizes, tokens: Tensor) -> Tensor:
    """Some codes replaced by others: the agent's evenly; the user's more in some talks than in others, whole frames
    of his now and then, and in some talks all his later codebooks, which tell more of a voice than of its words."""
    batch, _, steps = tokens.shape
    books, device = sizes.codebooks, tokens.device
    often = 2 * HEARD_WRONG * torch.rand(batch, 1, 1, device=device)
    rate = torch.cat([torch.full_like(often, SAID_WRONG).expand(-1, books, -1), often.expand(-1, books, -1)], 1)
    wrong = torch.rand(batch, 2 * books, steps, device=device) < rate
    last = SURE_BOOKS + torch.rand(batch, 1, 1, device=device) * (books - SURE_BOOKS)
    coarse = (torch.rand(batch, 1, 1, device=device) < COARSE) & (torch.arange(books, device=device)[:, None] >= last)
    wrong[:, books:] |= coarse | (torch.rand(batch, 1, steps, device=device) < LOST)
    noise = torch.randint(0, sizes.card, wrong.shape, device=device)
    return torch.cat([tokens[:, :1], torch.where(wrong, noise, tokens[:, 1:])], 1)


def losses(model: TinyLM, ear: nn.Module, talks: Talks, mask: Tensor | None, training: bool) -> Tensor:
    """The values of STATISTICS; the first is what to minimise."""
    tokens, live, speaking = talks.tokens.long(), talks.live[:, 1:], talks.speaking
    books, device = model.sizes.codebooks, tokens.device
    seen, wanted = tokens[:, :, :-1], tokens[:, :, 1:]
    hidden, middle = model.states(corrupted(model.sizes, seen) if training else seen, mask)
    text = wanted[:, 0]
    logits = model.text(hidden).float()
    words = live & (text != PAD)
    weight = live * torch.where(text != PAD, SPOKEN, UNSPOKEN)
    by_token = functional.cross_entropy(logits.transpose(1, 2), text, reduction="none")
    text_loss = (by_token * weight).sum() / weight.sum().clamp(min=1)

    voiced = (speaking[:, 1:] | speaking[:, :-1]) & live
    urgency = torch.rand(live.shape, device=device) + voiced.float() - 10.0 * ~live
    chosen = urgency.flatten().topk(int(DEPTH_SHARE * live.numel())).indices
    # where too little is live, frames without weight fill up; they may hold start tokens, which no head can name
    codes = wanted[:, 1 : 1 + books].transpose(1, 2).reshape(-1, books)[chosen].clamp(max=model.sizes.card - 1)
    depth = model.depth(hidden.flatten(0, 1)[chosen], text.flatten()[chosen], codes).float()
    by_code = functional.cross_entropy(depth.flatten(0, 1), codes.T.flatten(), reduction="none").view(books, -1)
    audible = voiced.flatten()[chosen]
    weight = live.flatten()[chosen] * torch.where(audible, 1.0, 0.5)
    by_book = (by_code * weight).sum(1) / weight.sum().clamp(min=1)
    importance = by_book.new_ones(books)
    for book, value in enumerate(FIRST_BOOKS[:books]):
        importance[book].fill_(value)
    audio_loss = (by_book * importance).sum() / importance.sum()

    named, said = ear(middle).float(), talks.words[:, :-1]
    weight = live * torch.where(said == NOTHING, SILENT_WORD, 1.0)
    by_word = functional.cross_entropy(named.transpose(1, 2), said, reduction="none")
    word_loss = (by_word * weight).sum() / weight.sum().clamp(min=1)

    hit, padding = logits.argmax(-1) == text, live & (text == PAD)
    share = lambda right, of: (right & of).sum() / of.sum().clamp(min=1)  # noqa: E731
    right = depth.detach().argmax(-1) == codes.T
    loss = text_loss + audio_loss + HEARING * word_loss
    found = [loss, text_loss, audio_loss, share(hit, words), share(hit, padding)]
    found += [share(right[0], audible), share(right[-1], audible)]
    return torch.stack([*found, word_loss, share(named.argmax(-1) == said, live & (said != NOTHING))])


def windowed(frames: int, context: int, device: str) -> Tensor | None:
    """Who sees whom [frames, frames] where the context is shorter than a talk, else None."""
    if frames < context:
        return None
    at = torch.arange(frames, device=device)
    behind = at[:, None] - at[None]
    return (behind >= 0) & (behind < context - 1)


class Step:
    """One step on random talks of a pool that stays where it is in memory."""

    def __init__(self, model: TinyLM, ear: nn.Module, pool: Talks, size: int, mask: Tensor | None, peak: float) -> None:
        self.model, self.ear, self.pool, self.size, self.mask, self.peak = model, ear, pool, size, mask, peak
        device = pool.tokens.device
        self.cuda = device.type == "cuda"
        self.rate = torch.tensor(peak, device=device)
        self.parameters = [*model.parameters(), *ear.parameters()]
        groups = [
            {"params": [p for p in self.parameters if p.dim() > 1], "weight_decay": 0.05},
            {"params": [p for p in self.parameters if p.dim() == 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, self.rate, betas=(0.9, 0.95), fused=self.cuda, capturable=self.cuda)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cuda" if self.cuda else "cpu", torch.bfloat16, self.cuda, cache_enabled=False)

    def __call__(self) -> Tensor:
        pool = self.pool
        chosen = torch.randint(len(pool), (self.size,), device=pool.tokens.device)
        with self.autocast():
            values = losses(self.model, self.ear, pool.rows(chosen), self.mask, True)
        self.optimizer.zero_grad(set_to_none=True)
        values[0].backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return values.detach()

    def learned(self) -> dict[str, Any]:
        ear = {name: tensor.detach().half().cpu().clone() for name, tensor in self.ear.state_dict().items()}
        return {"model": self.model.state_dict(), "ear": ear}

    @torch.no_grad()
    def judged(self, talks: Talks) -> Tensor:
        """STATISTICS on talks that are not trained on."""
        self.model.eval()
        found = []
        for at in range(0, len(talks), self.size):
            with self.autocast():
                part = talks.rows(slice(at, at + self.size))
                found.append(losses(self.model, self.ear, part, self.mask, False))
        self.model.train()
        return torch.stack(found).mean(0)


def told(values: Tensor) -> str:
    return " ".join(f"{name} {value:.4f}" for name, value in zip(STATISTICS, values.tolist(), strict=True))


def train(
    step: Step, maker: Maker, test: Talks, options: argparse.Namespace, end: float, state: dict[str, Any]
) -> None:
    began = saved = time.monotonic()
    span = max(1.0, end - began)
    first, cursor, taken = state["step"], 0, None
    step.model.train()
    while (passed := (time.monotonic() - began) / span) < 1:
        warm = min(1, (state["step"] - first + 1) / 300)
        step.rate.fill_(step.peak * warm * (0.01 + 0.495 * (1 + math.cos(math.pi * passed))))
        if options.graph and taken is None:
            taken = Replayed(step, [step.optimizer])
        values = taken() if taken else step()
        state["step"] += 1
        if step.cuda and state["step"] % 8 == 0:
            torch.cuda.synchronize()  # the clock counts work done, not work queued
        if options.fresh and state["step"] % options.every == 0:  # new talks take the place of the oldest
            fresh = maker.make(options.fresh, options.frames, options.skip)
            at = (torch.arange(options.fresh, device=step.pool.tokens.device) + cursor) % len(step.pool)
            step.pool.write(at, fresh)
            cursor = (cursor + options.fresh) % len(step.pool)
        if state["step"] % options.report == 0:
            line = (
                f"step {state['step']} {time.monotonic() - began:.0f} s | trained on: {told(values)} | "
                f"others: {told(step.judged(test))}"
            )
            print(line, flush=True)
            with (options.out / "lm.log").open("a") as log:
                log.write(line + "\n")
            if not math.isfinite(float(values[0])):
                raise FloatingPointError(f"[train_lm] the loss is not finite at step {state['step']}")
        if time.monotonic() - saved > 120:
            save(options.out, {**state, **step.learned()})
            saved = time.monotonic()
    save(options.out, {**state, **step.learned()})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("codec", type=Path)
    parser.add_argument("--seconds", type=float, required=True, help="of everything but the start of Python")
    parser.add_argument("--resume", type=Path, help="folder of an earlier call")
    parser.add_argument("--frames", type=int, default=480)
    parser.add_argument("--skip", type=int, default=0, help="how much later than its prompt a talk may begin")
    parser.add_argument("--context", type=int, default=1500, help="frames that the model may look back")
    parser.add_argument("--batch", type=int, default=56)
    parser.add_argument("--pool", type=int, default=6144, help="talks held ready")
    parser.add_argument("--fresh", type=int, default=384, help="talks made at a time")
    parser.add_argument("--every", type=int, default=128, help="steps between")
    parser.add_argument("--report", type=int, default=500)
    parser.add_argument("--rate", type=float, help=f"learning rate; {PEAK} or, resumed, {RESUMED}")
    parser.add_argument("--agents", type=Path, help="what encode_agents.py wrote, instead of the group `agents`")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--graph", action="store_true", help="record the step as a CUDA graph")
    options = parser.parse_args(arguments)
    end = time.monotonic() + options.seconds
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.allow_tf32 = False  # codes must be those of the package
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    codec, config = mimi.load(options.codec, device)
    earlier = load(options.resume) if options.resume else None
    pieces = bytes(earlier["tokenizer"].numpy()) if earlier else tokenizer.train()
    processor = tokenizer.load(pieces)
    quantizer = config["quantizer"]
    sizes = Sizes(**earlier["sizes"]) if earlier else Sizes(codebooks=quantizer["n_q"], card=quantizer["bins"])
    if options.agents:
        agents = lines.kept(options.agents)
    else:
        agents = lines.coded(shards.read(options.corpus, "agents"), codec, device)
    said = lines.AgentLines(agents, codec, processor, device)
    clips = shards.read(options.corpus, "users")
    vocabulary = Vocabulary(clip.text for clip in clips)
    known = lines.Users([c for c in clips if c.speaker not in lines.HELD_BACK], vocabulary, device)
    others = lines.Users([c for c in clips if c.speaker in lines.HELD_BACK] or clips, vocabulary, device)
    remaining = lambda: f"{end - time.monotonic():.0f} s left"  # noqa: E731
    print(f"{len(said.said)} lines, {len(known.pool)} questions of {len(known.names)} users; {remaining()}", flush=True)
    maker = Maker(sizes, said, known, processor, codec, device, options.seed)
    size = min(512, options.pool)
    pool = Talks.join([maker.make(size, options.frames, options.skip) for _ in range(options.pool // size)])
    judge = Maker(sizes, said, others, processor, codec, device, 0, plain=True)
    test = judge.make(min(256, options.pool), options.frames, options.skip)
    model = TinyLM(sizes, DROP).to(device)
    if earlier:
        model.load_state_dict(earlier["model"])
    ear = nn.Sequential(nn.LayerNorm(sizes.dim), nn.Linear(sizes.dim, len(vocabulary))).to(device)
    if earlier and earlier.get("words") == vocabulary.words:
        ear.load_state_dict(earlier["ear"])
    count = sum(p.numel() for p in model.parameters())
    print(
        f"{len(pool)} talks, {pool.speaking.float().mean():.3f} speech, {count} parameters; {remaining()}", flush=True
    )
    mask = windowed(options.frames - 1, options.context, device)
    step = Step(model, ear, pool, options.batch, mask, options.rate or (RESUMED if earlier else PEAK))
    state = {
        "sizes": sizes.saved(),
        "context": options.context,
        "step": earlier["step"] if earlier else 0,
        "words": vocabulary.words,
        "tokenizer": torch.frombuffer(bytearray(pieces), dtype=torch.uint8),
        "silence": torch.from_numpy(said.silence.copy()),
        "sine": torch.from_numpy(said.sine.copy()),
        "voices": {name: torch.from_numpy(said.introductions[name, 0].copy()) for name in said.voices},
    }
    train(step, maker, test, options, end, state)


if __name__ == "__main__":
    main()
