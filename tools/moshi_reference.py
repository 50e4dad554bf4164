# tools/moshi_reference.py: PersonaPlex's three models on Kyutai's `moshi`, one frame at a time.
from __future__ import annotations

import os

os.environ["NO_TORCH_COMPILE"] = os.environ["NO_CUDA_GRAPH"] = "1"
import numpy as np
import torch
from moshi.models.compression import MimiModel
from moshi.models.lm import LMModel
from moshi.modules import SEANetDecoder, SEANetEncoder, transformer
from moshi.quantization import SplitResidualVectorQuantizer

Tensors = dict[str, np.ndarray]


def as_torch(values: Tensors) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(np.array(v)) for k, v in values.items()}


def load_lm(kwargs: dict, state: Tensors, steps: int) -> LMModel:
    """The model with the first `steps` depformer steps."""
    if steps < kwargs["dep_q"]:
        kwargs, state = dict(kwargs, dep_q=steps), first_steps(state, kwargs["dep_q"], steps)
    # PersonaPlex's ring hides its oldest slot once it is full, so `context` - 1 keys are seen; moshi's does not.
    own = {k: v for k, v in kwargs.items() if k != "depformer_causal"} | {"context": kwargs["context"] - 1}
    lm = LMModel(device="cpu", dtype=torch.float32, **own).eval()
    lm.load_state_dict(as_torch(state), strict=True)
    for layer in lm.depformer.layers:  # the same rule on the depformer's ring of n_q slots
        layer.self_attn.context = kwargs["n_q"] - 1
    return lm


def first_steps(state: Tensors, dep_q: int, steps: int) -> Tensors:
    """Leaves depformer steps `steps`.. out of a state dict."""
    kept = {}
    for key, value in state.items():
        part = key.split(".")
        if part[0] in ("depformer_in", "linears") and int(part[1]) >= steps:
            continue
        if part[0] == "depformer_emb" and int(part[1]) >= steps - 1:
            continue
        if part[0] == "depformer" and part[3] == "gating" and int(part[4]) >= steps:
            continue
        if part[0] == "depformer" and part[3] == "self_attn":
            value = value[: value.shape[0] // dep_q * steps]
        kept[key] = value
    return kept


def new_mimi(kwargs: dict) -> MimiModel:
    t = kwargs["transformer"] | {"context": kwargs["transformer"]["context"] - 1}  # as in load_lm
    encoder, decoder = SEANetEncoder(**kwargs["seanet"]), SEANetDecoder(**kwargs["seanet"])
    rate = 24000 / encoder.hop_length
    return MimiModel(
        encoder,
        decoder,
        SplitResidualVectorQuantizer(**kwargs["quantizer"]),
        channels=1,
        sample_rate=24000,
        frame_rate=rate / 2,
        encoder_frame_rate=rate,
        causal=True,
        resample_method="conv",
        encoder_transformer=transformer.ProjectedTransformer(**t),
        decoder_transformer=transformer.ProjectedTransformer(**t),
    ).eval()


class Codec:
    """Mimi, one frame at a time, remembering what every stage gave."""

    def __init__(self, kwargs: dict, state: Tensors, codebooks: int) -> None:
        self.mimi, self.stages = new_mimi(kwargs), {}
        self.mimi.load_state_dict(as_torch(state), strict=True)
        self.mimi.set_num_codebooks(codebooks)
        for name in ("encoder", "encoder_transformer", "downsample", "upsample", "decoder_transformer"):
            getattr(self.mimi, name).register_forward_hook(self._recorder(name))

    def _recorder(self, name: str):
        def record(module, args, output):
            value = output[0] if isinstance(output, (list, tuple)) else output
            self.stages.setdefault(name, []).append(value[0].numpy().copy())

        return record

    def stage(self, name: str) -> np.ndarray:
        return np.concatenate(self.stages[name], axis=-1)

    def encode(self, pcm: np.ndarray) -> np.ndarray:
        """[n * frame] -> [Q, n], from a fresh state."""
        self.stages.clear()
        with self.mimi.streaming(1):
            frames = torch.from_numpy(pcm).reshape(-1, 1, 1, self.mimi.frame_size)
            return torch.cat([self.mimi.encode(f) for f in frames], -1)[0].numpy().astype(np.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """[Q, n] -> [n * frame], from a fresh state."""
        self.stages.clear()
        with self.mimi.streaming(1):
            columns = torch.from_numpy(codes.astype(np.int64))[None].split(1, -1)
            return torch.cat([self.mimi.decode(c) for c in columns], -1)[0, 0].numpy()


def embedding(lm: LMModel, column: torch.Tensor) -> np.ndarray:
    """[dim] sum of the embeddings of a column, audio rows first, text last: the reference's order of addition."""
    parts = [lm.emb[k](column[None, 1 + k]) for k in range(lm.num_audio_codebooks)] + [lm.text_emb(column[None, 0])]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total[0].numpy()


def depformer_frame(lm: LMModel, hidden: torch.Tensor, text: int, forced: dict[int, int]) -> tuple[list[int], Tensors]:
    """Greedy: (tokens, logits [steps, card]). `forced`: step -> token that is kept, also as the next step's input."""
    tokens, logits, previous = [], [], text
    with lm.depformer.streaming(1):
        for k in range(lm.dep_q):
            logits.append(lm.forward_depformer(k, torch.tensor([[[previous]]]), hidden)[0, 0, 0].numpy())
            previous = forced.get(k, int(logits[-1].argmax()))
            tokens.append(previous)
    return tokens, np.stack(logits)
