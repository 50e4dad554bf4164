"""A whole load from a directory, in each layout, up to the answer; and what a load warns of."""

import logging

import checkpoints
import numpy as np
import pytest

import personaplex

# A full config.json as kyutai/personaplex-rl-seamless has it: names of files and options of other programs as well.
SEAMLESS = {
    "model_type": "personaplex",
    "moshi_name": "model.safetensors",
    "mimi_name": checkpoints.MIMI,
    "tokenizer_name": "tokenizer_spm_32k_3.model",
    "lm_gen_config": {"temp": 0.8, "temp_text": 0.7, "top_k": 250, "top_k_text": 25},
    "depformer_dim_feedforward": None,
    "depformer_causal": True,
}
USER = np.random.default_rng(5).uniform(-0.3, 0.3, 8 * 1920).astype(np.float32), 24000


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "nvidia": checkpoints.nvidia(folder / "nvidia"),
        "seamless": checkpoints.nvidia(folder / "seamless", **SEAMLESS),
        "mlx": checkpoints.mlx(folder / "mlx"),
    }


def answer(directory, voice="NATM0", **options):
    model = personaplex.load(directory, device="cpu", **options)
    try:
        response = model.respond(USER, voice=voice, system_prompt="You sell fish.", max_steps=3, seed=1)
        return response, model.info, model.voices()
    finally:
        model.unload()


@pytest.mark.parametrize("layout", ["nvidia", "seamless", "mlx"])
def test_a_directory_answers_with_its_own_voice(directories, layout):
    response, info, voices = answer(directories[layout])
    assert response.tokens.shape == (11, 17)
    assert response.audio.samples.shape == (11 * 1920,)
    assert np.abs(response.audio.samples).max() > 0
    assert voices == ["NATM0"]
    assert response.metadata["voice"] == "NATM0"
    assert response.metadata["model"]["name"] == str(directories[layout])
    expected = {"temporal": 4, "depformer": 4} if layout == "mlx" else {"temporal": 16, "depformer": 16}
    assert {name: info["bits"][name] for name in expected} == expected
    without, _, _ = answer(directories[layout], voice="none")
    assert not np.array_equal(without.tokens, response.tokens)


def test_the_layouts_hold_the_same_model(directories):
    """Kyutai's config describes NVIDIA's files; NVIDIA's files quantized at load are the MLX files."""
    nvidia, seamless = (answer(directories[name])[0] for name in ("nvidia", "seamless"))
    assert np.array_equal(nvidia.audio.samples, seamless.audio.samples)
    stored = answer(directories["mlx"])[0]
    quantized = answer(directories["nvidia"], bits=4, group_size=checkpoints.GROUP)[0]
    assert np.array_equal(stored.tokens, quantized.tokens)
    assert np.array_equal(stored.audio.samples, quantized.audio.samples)
    assert not np.array_equal(stored.tokens, nvidia.tokens)


def test_a_size_that_does_not_fit_its_weights_is_refused(directories):
    """The null of the full config stands for a number, and the number counts."""
    assert checkpoints.KWARGS["hidden_scale"] * checkpoints.KWARGS["depformer_dim"] == 96
    folder = checkpoints.nvidia(directories["nvidia"].parent / "wrong", **SEAMLESS | {"depformer_dim_feedforward": 192})
    with pytest.raises(personaplex.WeightsError, match=r"depformer\.layers\.0\.gating\.0\.linear_in"):
        personaplex.load(folder, device="cpu")


def test_what_cannot_be_quantized_is_warned_of_once(tmp_path, caplog):
    folder = checkpoints.nvidia(tmp_path / "narrow", checkpoints.KWARGS | {"depformer_dim": 40})
    with caplog.at_level(logging.WARNING, logger="personaplex"):
        model = personaplex.load(folder, device="cpu", depformer_bits=4)
        kept = model.info["kept_16bit"]
        model.respond(USER, voice="none", system_prompt="", max_steps=0)
        model.unload()
    assert "depformer.layers.0.self_attn.in_proj_weight" in kept
    assert len(kept) > 4
    (record,) = caplog.records
    assert record.getMessage() == (
        "[load] kept at 16 bits, because no group size divides their rows: "
        f"{', '.join(kept[:4])} and {len(kept) - 4} more."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "quick"}, r"expected engine auto, fused or graph, got 'quick'"),
        ({"engine": "fused", "dtype": "float32"}, r"engine='fused' does not fit: dtype='float32'.*leave dtype"),
        ({"engine": "graph", "kv_bits": 8}, r"kv_bits=8 is an option of the fused engine"),
        ({"engine": "graph", "threads": 2}, r"threads=2 is an option of the fused engine"),
        ({"dtype": "bfloat16", "threads": 2}, r"threads=2 is an option of the fused engine.*dtype='bfloat16'"),
        ({"kv_bits": 4}, r"expected kv_bits 8, 16, got 4"),
        ({"kv_bits": True}, r"expected kv_bits 8, 16, got True"),
        ({"threads": 0}, r"expected threads of 1 or more, got 0"),
        ({"threads": 1 << 20}, r"expected threads from 1 to 1024"),
    ],
)
def test_engine_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        personaplex.load("random:tiny", device="cpu", **options)


def test_frame_bytes_are_counted_from_the_weight_table(directories):
    """Everything but the embedding tables is read, and of those a row; a position of the ring is 2 x layers x dim."""
    model = personaplex.load(directories["mlx"], device="cpu", engine="graph")
    try:
        info, config = model.info, model.config
    finally:
        model.unload()
    counted = info["frame_bytes"]
    kwargs = checkpoints.KWARGS
    dim, narrow = kwargs["dim"], kwargs["depformer_dim"]
    tables = config["text_card"] + 1 + config["n_q"] * (config["card"] + 1)
    narrow_tables = config["text_card"] + 1 + (config["depformer_steps"] - 1) * (config["card"] + 1)
    embeddings = 2 * (tables * dim + narrow_tables * narrow)
    rows = 2 * (config["rows"] * dim + config["depformer_steps"] * narrow)
    norms = counted["temporal"] + counted["depformer"] - (info["weight_bytes"] - embeddings + rows)
    assert 0 < norms <= 4 * ((2 * config["num_layers"] + 1) * dim + 2 * kwargs["depformer_num_layers"] * narrow)
    assert counted["temporal_kv"] == 2 * config["num_layers"] * dim * 4
    assert counted["mimi_encode"] > 0
    assert counted["mimi_decode"] > 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"engine": "fused", "dtype": "float32", "kv_dtype": "bfloat16"}),
        ({"kv_bits": 8, "threads": 1}, {"engine": "fused", "kv_dtype": "int8", "threads": 1}),
        ({"engine": "graph"}, {"engine": "graph", "kv_dtype": "float32", "threads": None, "instruction_set": ""}),
        ({"engine": "graph", "dtype": "bfloat16"}, {"engine": "graph", "dtype": "bfloat16", "engine_note": ""}),
    ],
)
def test_info_says_which_engine_runs(options, expected):
    model = personaplex.load("random:tiny", device="cpu", **options)
    info, calls = model.info, model._core.calls
    model.unload()
    assert {name: info[name] for name in expected} == expected
    assert (info["instruction_set"] != "") == (info["engine"] == "fused")
    assert calls is None or info["engine"] == "fused"


def test_auto_says_why_it_did_not_take_the_fused_engine(caplog):
    with caplog.at_level(logging.WARNING, logger="personaplex"):
        model = personaplex.load("random:tiny", device="cpu", dtype="float32")
    model.unload()
    assert model.info["engine"] == "graph"
    assert "leave dtype at 'auto'" in model.info["engine_note"]
    assert [record.getMessage() for record in caplog.records] == [
        f"[load] the graph engine runs, which is slower: {model.info['engine_note']}."
    ]
