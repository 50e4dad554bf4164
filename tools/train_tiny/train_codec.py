"""Trains the codec: `python train_codec.py CORPUS OUT --seconds N [--resume FILE] [--begin F] [--end F]`.

One schedule can run in several calls: each covers the part from `begin` to `end` of it, and a later call resumes from
the file of the one before. The files written to OUT are `codec.pt` (moving average of the weights: what ships, the
quantizer's sums and the critics, about 11 MB) and `codec.log`.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mimi
import shards
import torch
from critics import Critics
from losses import Spectra
from pool import Pool, uniform
from quantizer import Quantizer
from replay import Replayed
from rooms import microphone
from torch import Tensor, nn
from torch.nn import functional

PEAK = 1e-3  # learning rate
CRITICS_FROM = 0.3  # of the schedule
AGENTS = 2 / 3  # of a batch: the presets, which must sound well; users only have to be understood by the model
WEIGHTS = {"mel": 8.0, "linear": 5.0, "pitch": 4.0, "envelopes": 2.0, "wave": 2.0, "commit": 0.5}
GAN, MATCH = 0.25, 1.0
TERMS = (*WEIGHTS, "judge", "match")


@dataclass
class Run:
    """All that is trained, and the moving average of the codec."""

    config: dict
    codec: nn.Module
    quantizer: Quantizer
    critics: Critics
    average: dict[str, Tensor]
    step: int = 0

    def save(self, path: Path) -> None:
        """The averaged codec with its codebooks in place; a file that is there is whole."""
        live = {name: p.detach().clone() for name, p in self.codec.named_parameters()}
        with torch.no_grad():
            for name, p in self.codec.named_parameters():
                p.copy_(self.average[name])
            if self.quantizer.active:
                self.quantizer.export()
            state = {
                "config": self.config,
                "step": self.step,
                "quantized": self.quantizer.active,
                "codec": {name: t.cpu().clone() for name, t in self.codec.state_dict().items()},
                "quantizer": {name: t.cpu() for name, t in self.quantizer.state_dict().items()},
                "critics": {name: t.half().cpu() for name, t in self.critics.state_dict().items()},
            }
            for name, p in self.codec.named_parameters():
                p.copy_(live[name])
        unfinished = path.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.rename(path)


def start(config: dict, device: str, resume: Path | None) -> Run:
    state = torch.load(resume, map_location=device, weights_only=True) if resume else None
    config = state["config"] if state else config
    codec = mimi.build(config, device)
    sizes = config["quantizer"]
    run = Run(
        config,
        codec,
        Quantizer(codec.quantizer, sizes["n_q"], sizes["bins"], sizes["dimension"]).to(device),
        Critics().to(device),
        {},
    )
    if state:
        codec.load_state_dict(state["codec"])
        run.quantizer.load_state_dict(state["quantizer"])
        run.critics.load_state_dict({name: t.float() for name, t in state["critics"].items()})
        run.quantizer.active, run.step = state["quantized"], state["step"]
    run.average = {name: p.detach().clone() for name, p in codec.named_parameters()}
    return run


def batch(agents: Pool, users: Pool, size: int, samples: int) -> tuple[Tensor, Tensor]:
    """(what to decode, what the encoder hears): users come through a microphone, some rows are silent."""
    n = round(size * AGENTS)
    clean = torch.cat([agents.streams(n, samples), users.streams(size - n, samples)])
    clean = (clean * 10 ** (uniform((size, 1), -6, 3, agents.device) / 20)).clamp(-1, 1)
    clean = clean * (torch.rand(size, 1, device=agents.device) > 0.02)
    heard = clean.clone()
    heard[n:] = microphone(clean[n:])
    return clean, heard


class Step:
    """One step of training, all of it on the device: what changes with time comes in as tensors."""

    def __init__(self, run: Run, agents: Pool, users: Pool, size: int, frames: int, half: bool) -> None:
        self.run, self.agents, self.users, self.size = run, agents, users, size
        self.device = agents.device
        self.samples = frames * mimi.FRAME
        self.half = half
        self.spectra = Spectra().to(self.device)
        self.ramp = torch.zeros((), device=self.device)  # how much the critics count
        self.rates = [torch.tensor(PEAK, device=self.device) for _ in range(2)]
        self.codes: Tensor | None = None
        cuda = self.device != "cpu"
        self.optimizer, self.judges = (
            torch.optim.AdamW(
                [p for p in part.parameters() if p.requires_grad],
                rate,
                betas=(0.8, 0.95),
                weight_decay=decay,
                fused=cuda,
                capturable=cuda,
            )
            for part, rate, decay in zip((run.codec, run.critics), self.rates, (1e-3, 1e-2), strict=True)
        )

    def set(self, rate: float, ramp: float) -> None:
        self.rates[0].fill_(PEAK * rate)
        self.rates[1].fill_(PEAK / 2 * rate)
        self.ramp.fill_(ramp)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu" if self.device == "cpu" else "cuda", torch.bfloat16, self.half, cache_enabled=False)

    def latents(self, sound: Tensor) -> Tensor:
        codec = self.run.codec
        with self.autocast():
            inner = codec.encoder(sound[:, None])
        return codec.downsample(codec.encoder_transformer(inner.float())[0])

    def decode(self, quantized: Tensor) -> Tensor:
        """The last convolution keeps 32 bits: 16 would be a noise floor of their own."""
        codec = self.run.codec
        inner = codec.decoder_transformer(codec.upsample(quantized))[0]
        with self.autocast():
            for layer in codec.decoder.model[:-1]:
                inner = layer(inner)
        return codec.decoder.model[-1](inner.float())[:, 0]

    @torch.no_grad()
    def start_codebooks(self) -> None:
        many = [self.latents(batch(self.agents, self.users, self.size, self.samples)[1]) for _ in range(8)]
        self.run.quantizer.start(torch.cat(many))

    def __call__(self, critics: bool) -> Tensor:
        """Trains once; the values of TERMS."""
        run, spectra = self.run, self.spectra
        clean, heard = batch(self.agents, self.users, self.size, self.samples)
        quantized, commit, self.codes = run.quantizer(self.latents(heard))
        coded = self.decode(quantized)[:, : self.samples]
        terms = {
            "mel": spectra.mel(clean, coded),
            "linear": spectra.linear(clean, coded),
            "pitch": spectra.pitch(clean, coded),
            "envelopes": spectra.envelopes(clean, coded),
            "wave": functional.l1_loss(coded, clean),
            "commit": commit,
        }
        loss = sum(WEIGHTS[name] * term for name, term in terms.items())
        if critics:
            part = torch.rand(self.size, device=self.device).argsort()[: max(1, self.size // 3)]  # they are dear
            real, made = clean[part], coded[part]
            with self.autocast():
                terms["judge"] = run.critics.judge(real, made)
            self.judges.zero_grad(set_to_none=True)
            terms["judge"].backward()
            self.judges.step()
            run.critics.requires_grad_(False)
            with self.autocast():
                score, terms["match"] = run.critics.fool(real, made)
            run.critics.requires_grad_(True)
            loss = loss + self.ramp * (GAN * score + MATCH * terms["match"])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in run.codec.parameters() if p.requires_grad], 5.0)
        self.optimizer.step()
        return torch.stack([terms.get(name, loss).detach().float() for name in TERMS])


def freeze_codes(codec: nn.Module) -> None:
    """Leaves what comes after the codes to be trained."""
    codec.requires_grad_(False)
    for part in (codec.upsample, codec.decoder_transformer, codec.decoder):
        part.requires_grad_(True)


def train(run: Run, agents: Pool, users: Pool, options: argparse.Namespace, out: Path) -> None:
    if options.decoder:
        freeze_codes(run.codec)
    step = Step(run, agents, users, options.batch, options.frames, options.half)
    parameters, average = [p.detach() for p in run.codec.parameters()], list(run.average.values())
    began = saved = time.monotonic()
    first, replayed, phase = run.step, None, None
    run.codec.train()
    run.quantizer.train(not options.decoder)
    while (passed := (time.monotonic() - began) / options.seconds) < 1:
        progress = options.begin + (options.end - options.begin) * passed
        rate = min(1, (run.step - first + 1) / 200) * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))
        step.set(rate, min(1.0, max(0.0, (progress - CRITICS_FROM) / 0.05)))
        if not run.quantizer.active and run.step >= options.unquantized:
            step.start_codebooks()
        now = (run.quantizer.active, progress > CRITICS_FROM)
        if options.graph and now != phase:
            del replayed
            replayed, phase = Replayed(partial(step, now[1]), (step.optimizer, step.judges)), now
        values = replayed() if options.graph else step(now[1])
        torch._foreach_lerp_(average, parameters, 1 - min(0.999, (run.step + 1) / (run.step + 50)))
        run.step += 1
        if step.device != "cpu" and run.step % 8 == 0:
            torch.cuda.synchronize()  # the clock counts work done, not work queued
        if run.step % options.report == 0:
            found = dict(zip(TERMS, values.tolist(), strict=True))
            used = [] if step.codes is None else [len(c.unique()) for c in step.codes.unbind(1)]
            passed = time.monotonic() - began
            speed = (run.step - first) / passed
            told = " ".join(f"{name} {value:.4f}" for name, value in found.items())
            line = f"step {run.step} {passed:.0f} s {speed:.1f}/s rate {rate:.3f} {told} used {used}"
            print(line, flush=True)
            with (out / "codec.log").open("a") as log:
                log.write(line + "\n")
            if not all(map(math.isfinite, found.values())):
                raise FloatingPointError(f"[train_codec] the loss is not finite at step {run.step}; resume with less")
        if time.monotonic() - saved > 120:
            run.save(out / "codec.pt")
            saved = time.monotonic()
    run.save(out / "codec.pt")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, required=True, help="of training, loading included")
    parser.add_argument("--begin", type=float, default=0.0)
    parser.add_argument("--end", type=float, default=1.0)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--bins", type=int, default=256)
    parser.add_argument("--codebooks", type=int, default=12)
    parser.add_argument("--decoder", action="store_true", help="train the decoder alone: the codes stay what they are")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--unquantized", type=int, default=500, help="steps before the codebooks start")
    parser.add_argument("--report", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--graph", action="store_true", help="record the step as a CUDA graph")
    parser.add_argument("--half", action="store_true", help="convolutions in bfloat16")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    agents, users = (
        Pool([clip.samples for clip in shards.read(options.corpus, g)], device) for g in ("agents", "users")
    )
    hours = [float(pool.lengths.sum()) / mimi.RATE / 3600 for pool in (agents, users)]
    run = start(mimi.sizes(options.bins, options.codebooks), device, options.resume)
    count = sum(p.numel() for p in run.codec.parameters())
    print(f"presets {hours[0]:.2f} h, users {hours[1]:.2f} h, {count} parameters, step {run.step}", flush=True)
    options.seconds = max(1.0, options.seconds - (time.monotonic() - began))
    train(run, agents, users, options, options.out)


if __name__ == "__main__":
    main()
