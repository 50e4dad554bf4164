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
from pathlib import Path

import mimi
import shards
import torch
from critics import Critics
from losses import Spectra
from pool import Pool, microphone, uniform
from quantizer import Quantizer
from torch import Tensor, nn
from torch.nn import functional

PEAK = 1e-3  # learning rate
CRITICS_FROM = 0.3  # of the schedule
AGENTS = 2 / 3  # of a batch: the presets, which must sound well; users only have to be understood by the model
WEIGHTS = {"mel": 8.0, "linear": 5.0, "pitch": 4.0, "envelopes": 2.0, "wave": 2.0, "commit": 0.5}
GAN, MATCH = 0.1, 0.5


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
                "codec": {name: t.cpu().clone() for name, t in self.codec.state_dict().items()},
                "quantizer": {name: t.cpu() for name, t in self.quantizer.state_dict().items()},
                "critics": {name: t.half().cpu() for name, t in self.critics.state_dict().items()},
            }
            for name, p in self.codec.named_parameters():
                p.copy_(live[name])
        partial = path.with_suffix(".part")
        torch.save(state, partial)
        partial.rename(path)


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
        run.step = state["step"]
    run.average = {name: p.detach().clone() for name, p in codec.named_parameters()}
    return run


def latents(codec: nn.Module, sound: Tensor) -> Tensor:
    return codec.downsample(codec.encoder_transformer(codec.encoder(sound[:, None]))[0])


def decode(codec: nn.Module, quantized: Tensor) -> Tensor:
    return codec.decoder(codec.decoder_transformer(codec.upsample(quantized))[0])[:, 0]


def batch(agents: Pool, users: Pool, size: int, samples: int) -> tuple[Tensor, Tensor]:
    """(what to decode, what the encoder hears): users come through a microphone, some rows are silent."""
    n = round(size * AGENTS)
    clean = torch.cat([agents.streams(n, samples), users.streams(size - n, samples)])
    clean = (clean * 10 ** (uniform((size, 1), -6, 3, agents.device) / 20)).clamp(-1, 1)
    clean = clean * (torch.rand(size, 1, device=agents.device) > 0.02)
    heard = clean.clone()
    heard[n:] = microphone(clean[n:])
    return clean, heard


def train(run: Run, agents: Pool, users: Pool, options: argparse.Namespace, out: Path) -> None:
    device = agents.device
    samples = options.frames * mimi.FRAME
    spectra = Spectra().to(device)
    parameters = list(run.codec.parameters())
    fused = device != "cpu"
    optimizer = torch.optim.AdamW(parameters, PEAK, betas=(0.8, 0.95), weight_decay=1e-3, fused=fused)
    judges = torch.optim.AdamW(run.critics.parameters(), PEAK / 2, betas=(0.8, 0.95), fused=fused)
    began, first, saved = time.monotonic(), run.step, time.monotonic()
    run.codec.train()
    run.quantizer.train()
    while (passed := (time.monotonic() - began) / options.seconds) < 1:
        progress = options.begin + (options.end - options.begin) * passed
        rate = min(1, (run.step - first + 1) / 200) * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))
        for group, scale in ((optimizer, 1.0), (judges, 0.5)):
            group.param_groups[0]["lr"] = PEAK * rate * scale
        clean, heard = batch(agents, users, options.batch, samples)
        if not run.quantizer.active and run.step >= options.unquantized:
            with torch.no_grad():
                many = [latents(run.codec, batch(agents, users, options.batch, samples)[1]) for _ in range(8)]
                run.quantizer.start(torch.cat(many))
        quantized, commit, codes = run.quantizer(latents(run.codec, heard))
        coded = decode(run.codec, quantized)[:, :samples]
        terms = {
            "mel": spectra.mel(clean, coded),
            "linear": spectra.linear(clean, coded),
            "pitch": spectra.pitch(clean, coded),
            "envelopes": spectra.envelopes(clean, coded),
            "wave": functional.l1_loss(coded, clean),
            "commit": commit,
        }
        loss = sum(WEIGHTS[name] * term for name, term in terms.items())
        if progress > CRITICS_FROM:
            third = min(3, options.batch)
            part = slice(run.step % third, None, third)  # of the rows: the critics cost as much as the codec
            terms["judge"] = run.critics.judge(clean[part], coded[part])
            judges.zero_grad(set_to_none=True)
            terms["judge"].backward()
            judges.step()
            run.critics.requires_grad_(False)
            score, match = run.critics.fool(clean[part], coded[part])
            run.critics.requires_grad_(True)
            terms["match"] = match
            loss = loss + min(1.0, (progress - CRITICS_FROM) / 0.05) * (GAN * score + MATCH * match)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        keep = min(0.999, (run.step + 1) / (run.step + 50))
        torch._foreach_lerp_(list(run.average.values()), [p.detach() for p in parameters], 1 - keep)
        run.step += 1
        if run.step % options.report == 0:
            values = " ".join(f"{name} {float(term.detach()):.4f}" for name, term in terms.items())
            used = "" if codes is None else " used " + " ".join(str(len(c.unique())) for c in codes.unbind(1))
            line = f"step {run.step} {time.monotonic() - began:.0f} s rate {rate:.3f} {values}{used}"
            print(line, flush=True)
            with (out / "codec.log").open("a") as log:
                log.write(line + "\n")
            if not math.isfinite(float(loss.detach())):
                raise FloatingPointError(f"[train_codec] the loss is not finite at step {run.step}; resume with less")
        if time.monotonic() - saved > 120:
            run.save(out / "codec.pt")
            saved = time.monotonic()
    run.save(out / "codec.pt")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, required=True, help="of training, without loading")
    parser.add_argument("--begin", type=float, default=0.0)
    parser.add_argument("--end", type=float, default=1.0)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--bins", type=int, default=512)
    parser.add_argument("--codebooks", type=int, default=8)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--unquantized", type=int, default=500, help="steps before the codebooks start")
    parser.add_argument("--report", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
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
    train(run, agents, users, options, options.out)


if __name__ == "__main__":
    main()
