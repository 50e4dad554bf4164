# tools/golden_presets.py: the small models of tools/make_goldens.py, and what each golden tensor means.
from __future__ import annotations

from dataclasses import dataclass

SEANET = {
    "channels": 1,
    "causal": True,
    "activation": "ELU",
    "compress": 2,
    "dilation_base": 2,
    "disable_norm_outer_blocks": 0,
    "kernel_size": 7,
    "residual_kernel_size": 3,
    "last_kernel_size": 3,
    "norm": "none",
    "pad_mode": "constant",
    "true_skip": True,
}
CODEC_TRANSFORMER = {
    "causal": True,
    "layer_scale": 0.01,
    "conv_layout": True,
    "max_period": 10000,
    "gating": "none",
    "norm": "layer_norm",
    "positional_embedding": "rope",
}
LM = {
    "hidden_scale": 4.125,
    "causal": True,
    "layer_scale": None,
    "max_period": 10000,
    "gating": "silu",
    "norm": "rms_norm_f32",
    "positional_embedding": "rope",
    "existing_text_padding_id": 3,
    "depformer_causal": True,
    "depformer_layer_scale": None,
    "depformer_multi_linear": True,
    "depformer_context": 8,
    "depformer_max_period": 10000,
    "depformer_gating": "silu",
    "depformer_pos_emb": "none",
    "depformer_weights_per_step": True,
}


@dataclass(frozen=True)
class Preset:
    """One small model and how much of everything its golden data holds."""

    name: str
    seed: int
    lm: dict
    mimi: dict
    mimi_frames: int  # enough to wrap the codec's context
    columns: int  # of the teacher-forced temporal group; more than its context
    voice_frames: int
    text_tokens: int
    user_frames: int


def mimi_kwargs(dimension: int, seanet: dict, transformer: dict, quantizer: dict) -> dict:
    ends = {"input_dimension": dimension, "output_dimensions": [dimension]}
    return {
        "seanet": SEANET | {"dimension": dimension} | seanet,
        "quantizer": {"input_dimension": dimension, "output_dimension": dimension} | quantizer,
        "transformer": CODEC_TRANSFORMER | {"d_model": dimension} | ends | transformer,
    }


PRESETS = {
    # The real model's proportions and frame size, shrunk; both contexts wrap.
    "nano": Preset(
        name="nano",
        seed=2,
        lm=LM
        | {"n_q": 16, "dep_q": 16, "delays": [0, 0, *[1] * 7, 0, *[1] * 7], "card": 64, "text_card": 48}
        | {"dim": 64, "num_heads": 2, "num_layers": 2, "context": 16}
        | {"depformer_dim": 32, "depformer_num_heads": 2, "depformer_num_layers": 2, "depformer_dim_feedforward": 96},
        mimi=mimi_kwargs(
            32,
            {"n_filters": 2, "n_residual_layers": 1, "ratios": [8, 6, 5, 4]},
            {"num_heads": 2, "num_layers": 1, "context": 8, "dim_feedforward": 64},
            {"dimension": 8, "n_q": 10, "bins": 64},
        ),
        mimi_frames=7,
        columns=24,
        voice_frames=8,
        text_tokens=5,
        user_frames=8,
    ),
    # Everything else than usual: 12 streams, delays up to 2, odd contexts, sizes that no group of 32 divides, short
    # frames (96 samples), two residual layers, three codec layers.
    "odd": Preset(
        name="odd",
        seed=5,
        lm=LM
        | {"n_q": 12, "dep_q": 12, "delays": [0, 0, 1, 1, 2, 2, 2, 0, 1, 1, 2, 2, 2], "card": 60, "text_card": 37}
        | {"dim": 96, "num_heads": 3, "num_layers": 3, "context": 13, "hidden_scale": 3.5}
        | {"depformer_dim": 40, "depformer_num_heads": 2, "depformer_num_layers": 1, "depformer_dim_feedforward": 102},
        mimi=mimi_kwargs(
            24,
            {"n_filters": 2, "n_residual_layers": 2, "ratios": [4, 3, 2, 2]},
            {"num_heads": 2, "num_layers": 3, "context": 9, "dim_feedforward": 56},
            {"dimension": 6, "n_q": 7, "bins": 60},
        ),
        mimi_frames=30,
        columns=30,
        voice_frames=6,
        text_tokens=3,
        user_frames=20,
    ),
}

MEANINGS = {
    "mimi.pcm": "test input, mono 24 kHz, whole frames",
    "mimi.enc_seanet": "SEANet encoder output [dim, 2T]",
    "mimi.enc_transformer_stream": "encoder transformer output, streaming, 2 positions a frame [dim, 2T]",
    "mimi.latent_stream": "after the stride-2 conv, before quantization, streaming [dim, T]",
    "mimi.codes_stream": "codes, frame by frame [Q, T]; row 0 = semantic",
    "mimi.code_margin": "gap of the squared distance to the runner-up, relative to the nearest one's [Q, T]",
    "mimi.dec_quantized": "sum of the de-quantized codes after output_proj [dim, T]",
    "mimi.dec_upsampled_stream": "after the depthwise transposed conv [dim, 2T]",
    "mimi.dec_transformer_stream": "decoder transformer output, streaming [dim, 2T]",
    "mimi.decoded_stream": "decoded PCM frame by frame [T * frame]",
    "temporal.tokens": "teacher-forced tokens [rows, S], fed as they are; -1 = zero embedding, column 0 = start tokens",
    "temporal.embeddings": "sum of the embeddings [S, dim]",
    "temporal.hidden": "after out_norm, one step at a time [S, dim]",
    "temporal.text_logits": "[S, text_card]",
    "depformer.hidden": "temporal hidden fed to depformer_in [n, dim]",
    "depformer.text": "text token, input of step 0 [n]",
    "depformer.given": "token k is the input of step k + 1 [n, n_q]",
    "depformer.logits": "[n, n_q, card]; the last step does not see step 0",
    "lmgen.silence_tokens": "agent codes of a silent frame [Q]",
    "lmgen.sine_tokens": "user codes used during prompts [Q]",
    "lmgen.text_prompt": "system prompt tokens",
    "lmgen.user_pcm": "user audio [U * frame]",
    "lmgen.user_codes": "its codes [Q, U]",
    "lmgen.phase": "0 voice 1 silence 2 text 3 silence 4 user; one row per transformer step",
    "lmgen.offset": "call number (first is 1); the KV position is one less",
    "lmgen.input": "[N, rows] tokens embedded at this step (voice phase: not what is embedded, the saved embedding is)",
    "lmgen.target": "[N, rows] cells to predict, before the step",
    "lmgen.provided": "[N, rows] 1 = target is forced",
    "lmgen.cache": "[N, rows, slots] ring after the step (voice: before the preset's ring is copied over it)",
    "lmgen.provided_after": "[N, rows, slots] forced flags after the step",
    "lmgen.cache_after_voice": "[rows, slots] ring once the preset's is copied in",
    "lmgen.hidden": "[N, dim]",
    "lmgen.text_logits": "[N, text_card]",
    "lmgen.text_next": "[N] text token given to the depformer (forced or argmax)",
    "lmgen.sampled_audio": "[N, n_q] depformer argmax, even where then overridden",
    "lmgen.audio_logits_user": "[U, n_q, card] depformer logits in the user phase",
    "lmgen.audio_margin": "[N, n_q] top1 - top2 of the depformer logits",
    "lmgen.text_margin": "[N] top1 - top2 of the text logits",
    "lmgen.out": "[U, rows] what a step returns: every row of one and the same frame",
    "lmgen.agent_pcm": "[U * frame] Mimi decode of the agent's codes in lmgen.out, frame by frame, fresh state",
    "voice.codes": "voice prompt as agent codes [Q, V + 1]",
    "voice.embeddings": "the preset's embeddings [V, 1, 1, dim] (frame 0 never reaches the model)",
    "voice.cache": "the preset's ring of tokens after the voice [1, rows, slots]",
    "sampling.audio.logits": "[n, card], temperature 0.8, top_k min(250, card)",
    "sampling.audio.q": "[n, k] Exp(1) noise, one per top-k place (sorted by probability)",
    "sampling.audio.token": "top-k place with the largest softmax(logits / temperature) / q, as a token id",
    "sampling.text.logits": "[n, text_card], temperature 0.7, top_k min(25, text_card)",
    "sampling.text.q": "[n, k] Exp(1) noise, one per top-k place (sorted by probability)",
    "sampling.text.token": "top-k place with the largest softmax(logits / temperature) / q, as a token id",
}
