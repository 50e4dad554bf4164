"""The two functions most callers need: load a model, and answer a recording with the default one."""

import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from personaplex import _core, hub, nvrtc
from personaplex.audio import AudioLike
from personaplex.cache_dir import cache_dir as cache_folder
from personaplex.errors import WeightsError
from personaplex.model import Model
from personaplex.prompt_cache import MODES
from personaplex.response import Response
from personaplex.text import Tokenizer

logger = logging.getLogger(__name__)

_SHOWN = 4  # names in a warning; info["kept_16bit"] has all of them

_kept: dict[str, Model] = {}  # what respond() loaded, by name
_kept_lock = threading.Lock()


def load(
    model: str | os.PathLike[str] = hub.DEFAULT_MODEL,
    *,
    device: str = "auto",
    engine: str = "auto",
    dtype: str = "auto",
    bits: int | None = None,
    temporal_bits: int | None = None,
    depformer_bits: int | None = None,
    head_bits: int | None = None,
    embedding_bits: int | None = None,
    group_size: int | None = None,
    depformer_steps: int | None = None,
    context: int | None = None,
    kv_bits: int | None = None,
    threads: int | None = None,
    compile: bool = False,
    revision: str | None = None,
    prompt_cache: str = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
) -> Model:
    """Loads a model.

    Args:
        model: a checkpoint directory; a hub id `owner/name[@revision]`; "tiny", the small trained model that comes with
            this package (docs/tiny.md); "random:tiny" or "random:7b" (random weights: they speak noise). All but hub
            ids need no download.
        device: "cpu", "metal", "cuda", "gpu" (of the two the one that is there), or "auto": the GPU where there is one
            that can be used, else the CPU. info["device_note"] says why an NVIDIA GPU was not taken.
        engine: "fused" (own kernels, tens of times faster; on CPUs, and on NVIDIA GPUs with the extra `cuda` of this
            package), "graph" (plain MLX operations, wherever MLX runs), or "auto": fused where it can.
            info["engine_note"] says why it could not.
        dtype: of the graph engine's activations: "auto", "float32" or "bfloat16".
        bits: 4, 8 or 16 for the temporal transformer and the depformer; None as stored. What is stored in 4 or 8 bits
            can be given more, for comparison: precision that was lost does not come back. Heads and embeddings stay as
            they are stored unless their own argument is given.
        temporal_bits, depformer_bits: for one of the two, over `bits`.
        head_bits, embedding_bits: 4, 8 or 16 for the output heads, for the embeddings.
        group_size: weights that share a scale, 32 or 64; None for the larger one that divides the sizes.
        depformer_steps: 8 (default) or 16; the result is the same, 16 takes longer.
        context: positions that the temporal transformer sees, 2 or more; None as the model says (3000).
        kv_bits: 16 or 8 for what the temporal transformer remembers, fused engine only; None for 16. With 8 a context
            of 3000 takes 0.8 GB instead of 1.6.
        threads: of the fused engine on a CPU, which "auto" then takes; None for all cores that this process may use.
        compile: compile the graph engine's frame with mx::compile: between 7 % faster and 3 % slower, for about 13 s at
            every start on a CPU (up to 70 s on an H200, kernels cold). The fused engine has nothing to compile; there,
            and where it is not possible, the model runs without and info["compile_note"] says why.
        revision: of a hub model: branch, tag or commit.
        prompt_cache: where the state after a prompt is kept: "auto" (memory, and disk when it took over a second),
            "memory", "disk", "off".
        cache_dir: folder for it and for kernels compiled for an NVIDIA GPU; default $PERSONAPLEX_CACHE, else the
            platform's cache folder.

    What was asked for and could not be done (compiling, quantizing a matrix) is logged as a warning.

    Raises:
        TypeError: `model` is neither a string nor a path.
        ValueError: an argument out of range.
        HubError: not found, no access, no network, unfinished download.
        WeightsError: files missing, malformed, or not of this model.
        DeviceError: the device is not there, something that it needs is not, or its memory is too small.
    """
    for name, value in (
        ("bits", bits),
        ("temporal_bits", temporal_bits),
        ("depformer_bits", depformer_bits),
        ("head_bits", head_bits),
        ("embedding_bits", embedding_bits),
    ):
        _check(name, value, (None, 4, 8, 16))
    _check("group_size", group_size, (None, 32, 64))
    _check("depformer_steps", depformer_steps, (None, 8, 16))
    _check("kv_bits", kv_bits, (None, 8, 16))
    _check_threads(threads)
    _check("prompt_cache", prompt_cache, MODES)
    check_context(context)
    source = hub.resolve(model, revision)
    started = time.perf_counter()
    core = _core.Model(
        source.core_source,
        device=device,
        engine=engine,
        dtype=dtype,
        temporal_bits=temporal_bits or bits or 0,
        depformer_bits=depformer_bits or bits or 0,
        head_bits=head_bits or 0,
        embedding_bits=embedding_bits or 0,
        group_size=group_size or 0,
        depformer_steps=depformer_steps or 0,
        context=context or 0,
        kv_bits=kv_bits or 0,
        threads=threads or 0,
        compile=compile,
        nvrtc=nvrtc.folders(),
        kernel_cache=str(cache_folder(cache_dir) / "kernels"),
    )
    try:
        tokenizer = _tokenizer(source, core.config)
    except BaseException:
        core.unload()
        raise
    _warn(core.info)
    return Model(
        core,
        source,
        tokenizer,
        prompt_cache=prompt_cache,
        cache_dir=Path(cache_dir) if cache_dir else None,
        load_seconds=time.perf_counter() - started,
    )


def respond(audio: AudioLike, model: Model | str | os.PathLike[str] | None = None, **options: Any) -> Response:
    """Answers a recording with `model`: one from load(), or a name that load() takes (None for the default one), loaded
    at its first use and kept.

    Takes the options of Model.respond() and raises the same; a name can raise what load() does.
    """
    if model is None:
        model = hub.DEFAULT_MODEL
    if isinstance(model, (str, os.PathLike)):
        model = _kept_model(os.fspath(model))
    if not isinstance(model, Model):
        raise TypeError(
            f"[respond] expected a model of personaplex.load() or the name of one, got {type(model).__name__}."
        )
    return model.respond(audio, **options)


def _kept_model(name: str) -> Model:
    with _kept_lock:
        if name not in _kept or not _kept[name].loaded:
            _kept[name] = load(name)
        return _kept[name]


def check_context(context: int | None) -> None:
    """ValueError for a context in which no position would see another."""
    if context is not None and (isinstance(context, bool) or not isinstance(context, int) or context < 2):
        raise ValueError(f"[load] expected a context of 2 or more positions, got {context!r}.")


def _check_threads(threads: int | None) -> None:
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise ValueError(f"[load] expected threads of 1 or more, got {threads!r}.")


def _warn(info: Mapping[str, Any]) -> None:
    """Tells of what was asked for and not done."""
    if note := info.get("device_note"):
        logger.warning("[load] the CPU runs, which is slower than the GPU: %s.", note)
    if note := info.get("engine_note"):
        logger.warning("[load] the graph engine runs, which is slower: %s.", note)
    if note := info.get("compile_note"):
        logger.warning("[load] not compiled: %s", note)
    if kept := info.get("kept_16bit"):
        more = f" and {len(kept) - _SHOWN} more" if len(kept) > _SHOWN else ""
        shown = ", ".join(kept[:_SHOWN])
        logger.warning("[load] kept at 16 bits, because no group size divides their rows: %s%s.", shown, more)


def _tokenizer(source: hub.ModelSource, config: Any) -> Tokenizer:
    padding_id = int(config["text_padding_id"])
    if source.directory is None:
        return Tokenizer.of_random(padding_id)
    tokenizer = Tokenizer.of_directory(source.directory, padding_id)
    if tokenizer.size > int(config["text_card"]):
        raise WeightsError(
            f"[tokenizer] it has {tokenizer.size} pieces, the model {config['text_card']}; it belongs to another model."
        )
    return tokenizer


def _check(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed or isinstance(value, bool):
        choices = ", ".join(str(item) for item in allowed if item is not None)
        raise ValueError(f"[load] expected {name} {choices}, got {value!r}.")
