# tests/python/test_quantize.py: 8 and 4 bits against the same weights, quantized with MLX and computed in numpy.
import mlx.core as mx
import numpy as np
import pytest
import reference
from goldens import GREEDY, golden, lm_kwargs, lm_weights, load, model, prompted, relative_error, talk, user_codes

ALL_PARTS = ("temporal_bits", "depformer_bits", "head_bits", "embedding_bits")


def part_of(key: str) -> str | None:
    """Which option quantizes a tensor; None for norms."""
    if key.endswith("alpha"):
        return None
    if key.startswith("transformer."):
        return "temporal_bits"
    if key.startswith(("depformer.", "depformer_in.")):
        return "depformer_bits"
    return "head_bits" if key.startswith(("text_linear.", "linears.")) else "embedding_bits"


def group_for(columns: int, wanted: int = 0) -> int | None:
    """The largest group that divides K; None keeps the tensor at 16 bits."""
    return next((g for g in ([wanted] if wanted else [64, 32]) if columns % g == 0), None)


def rounded(name: str, parts: dict[str, int], group: int = 0) -> dict[str, np.ndarray]:
    """The weights of a golden model after quantization, as float32."""
    out = {}
    for key, value in lm_weights(name).items():
        size = group_for(value.shape[-1], group)
        bits = parts.get(part_of(key) or "", 16)
        if bits == 16 or size is None:
            out[key] = value
        else:
            stored = mx.quantize(mx.array(value).astype(mx.bfloat16), group_size=size, bits=bits)
            whole = mx.dequantize(
                *(part.astype(mx.float32) if part.dtype != mx.uint32 else part for part in stored),
                group_size=size,
                bits=bits,
            )
            out[key] = np.array(whole)
    return out


def hidden_of(of, name: str) -> np.ndarray:
    return of.probe_temporal(golden(name)["temporal.tokens"])["hidden"]


def naive_hidden(name: str, weights: dict[str, np.ndarray]) -> np.ndarray:
    return reference.temporal(weights, lm_kwargs(name), reference.embed(weights, golden(name)["temporal.tokens"]))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ["nano", "odd"])
def test_dequantized_weights_are_mlx_s(name, bits):
    parts = dict.fromkeys(ALL_PARTS, bits)
    exact = model(name, dequantize=True, **parts)
    weights = rounded(name, parts)
    assert relative_error(hidden_of(exact, name), naive_hidden(name, weights)) < 5e-6
    data = golden(name)
    given = np.ascontiguousarray(data["depformer.given"][:, : exact.config["depformer_steps"]])
    logits = exact.probe_depformer(data["depformer.hidden"], data["depformer.text"], given)
    expected = [
        reference.depformer(weights, lm_kwargs(name), hidden, data["depformer.text"][i], given[i], given.shape[1])
        for i, hidden in enumerate(data["depformer.hidden"])
    ]
    assert relative_error(logits, np.stack(expected)) < 5e-6


@pytest.mark.parametrize("part", ALL_PARTS)
def test_each_part_by_itself(part):
    """Quantizing one part changes what it feeds and nothing else."""
    quantized = model("nano", **{part: 4})
    hidden, plain = hidden_of(quantized, "nano"), hidden_of(model("nano"), "nano")
    if part in ("temporal_bits", "embedding_bits"):
        assert relative_error(hidden, plain) > 1e-3
    else:
        assert np.array_equal(hidden, plain)
    names = {"head_bits": "heads", "embedding_bits": "embeddings"}
    named = names.get(part, part.removesuffix("_bits"))
    assert {key: bits for key, bits in quantized.info["bits"].items() if bits < 16} == {named: 4}


def test_fewer_bits_are_smaller_and_farther_off():
    plain = hidden_of(model("nano"), "nano")
    errors = {bits: relative_error(hidden_of(model("nano", temporal_bits=bits), "nano"), plain) for bits in (8, 4)}
    assert 1e-4 < errors[8] < 0.05
    assert errors[8] * 4 < errors[4] < 0.6
    sizes = [
        model("nano", **options).info["weight_bytes"] for options in ({}, {"temporal_bits": 8}, {"temporal_bits": 4})
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


@pytest.mark.parametrize("group", [64, 32])
def test_group_sizes(group):
    quantized = model("nano", temporal_bits=4, group_size=group)
    assert quantized.info["group_size"] == group
    weights = rounded("nano", {"temporal_bits": 4}, group)
    assert relative_error(hidden_of(quantized, "nano"), naive_hidden("nano", weights)) < 5e-6


def test_tensors_that_no_group_divides_stay_and_are_reported():
    """In `odd`, K is 96 (group 32), 224 (group 32), 40 and 68 (none)."""
    parts = dict.fromkeys(ALL_PARTS, 4)
    quantized = model("odd", **parts)
    undivided = {key for key, value in lm_weights("odd").items() if part_of(key) and group_for(value.shape[-1]) is None}
    steps = quantized.config["depformer_steps"]
    kept = quantized.info["kept_16bit"]
    assert kept
    assert quantized.info["group_size"] == 32
    assert any("depformer_emb" in key for key in kept)
    assert not any(key.startswith("transformer.") for key in kept)
    assert len(kept) <= len(undivided)
    assert steps == 6


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantized_conversation_equals_the_dequantized_one(bits):
    parts = dict.fromkeys(ALL_PARTS, bits)
    runs = [
        talk(prompted(model("nano", **parts, dequantize=exact), "nano"), user_codes("nano")) for exact in (False, True)
    ]
    assert np.array_equal(*runs)


def test_16_bits_are_the_checkpoint():
    kept = model("nano", **dict.fromkeys(ALL_PARTS, 16))
    assert np.array_equal(hidden_of(kept, "nano"), hidden_of(model("nano"), "nano"))
    assert np.array_equal(talk(prompted(kept, "nano", GREEDY), user_codes("nano")), golden("nano")["lmgen.out"])


@pytest.mark.parametrize("options", [{"temporal_bits": 3}, {"head_bits": -4}, {"group_size": 48, "temporal_bits": 4}])
def test_other_widths_are_refused(options):
    with pytest.raises(ValueError, match=r"bits|group"):
        load("nano", **options)


def test_bfloat16_stays_near():
    half = model("nano", dtype="bfloat16")
    assert half.info["dtype"] == "bfloat16"
    assert relative_error(hidden_of(half, "nano"), hidden_of(model("nano"), "nano")) < 0.03
