# Type stub of the C++ extension (csrc/bindings). Arrays are numpy; no MLX array crosses this line.
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

MLX_VERSION: str  # the MLX this extension was built against

class PersonaplexError(Exception): ...
class WeightsError(PersonaplexError): ...
class StreamError(PersonaplexError): ...
class DeviceError(PersonaplexError): ...
class CancelledError(PersonaplexError): ...

class Sampling:
    """How tokens are drawn. Temperature 0 is greedy."""

    def __init__(
        self,
        text_temperature: float = 0.7,
        text_top_k: int = 25,
        audio_temperature: float = 0.8,
        audio_top_k: int = 250,
    ) -> None: ...
    @property
    def text_temperature(self) -> float: ...
    @property
    def text_top_k(self) -> int: ...
    @property
    def audio_temperature(self) -> float: ...
    @property
    def audio_top_k(self) -> int: ...

class StepOutput:
    """One frame of the agent."""

    @property
    def audio(self) -> NDArray[np.float32]: ...  # [1920], 24 kHz
    @property
    def text_token(self) -> int: ...
    @property
    def tokens(self) -> NDArray[np.int32]: ...  # [rows]: text, agent codes, user codes of the same frame
    @property
    def index(self) -> int: ...  # 0 for the first step after the prompt
    @property
    def step_ms(self) -> float: ...
    # Parts of step_ms, while set_timing(True); None otherwise, when they are not run apart.
    @property
    def encode_ms(self) -> float | None: ...  # 0 where codes came in
    @property
    def temporal_ms(self) -> float | None: ...  # with the text head and the text token
    @property
    def depformer_ms(self) -> float | None: ...
    @property
    def decode_ms(self) -> float | None: ...  # 0 where no audio went out

class Snapshot:
    """The state of a session as an immutable value; restoring it shares memory until written."""

    @property
    def nbytes(self) -> int: ...
    def save(self, path: str, key: str) -> None: ...

class Session:
    """One conversation. Made by Model.session(); not to be used from two threads at once."""

    @property
    def ready(self) -> bool: ...  # prompt done, step() allowed
    @property
    def poisoned(self) -> bool: ...  # a step failed half way; reset() or restore() first
    @property
    def frames(self) -> int: ...  # step() calls since the prompt
    @property
    def position(self) -> int: ...  # temporal positions in the KV ring since the start
    sampling: Sampling
    seed: int
    def prompt(
        self,
        voice_embeddings: NDArray[np.float32] | None = None,  # [V, dim]
        voice_cache: NDArray[np.int64] | None = None,  # [rows, max_delay + 3]
        voice_codes: NDArray[np.int32] | None = None,  # [Q, frames]: fed instead of replayed
        text_tokens: Sequence[int] = (),
        chunk: int = 32,  # columns per prefill pass, 1..32
        progress: Callable[[int, int], None] | None = None,  # (columns done, columns in all)
    ) -> None:
        """Runs voice, silence, text, silence from a fresh state; Ctrl-C stops it between chunks."""

    def step(self, pcm: NDArray[np.float32], text_token: int | None = None) -> StepOutput:
        """[1920] float32 of the user in, one frame of the agent out. `text_token` forces the agent's text."""

    def step_codes(self, user_codes: NDArray[np.int32], decode: bool = True) -> StepOutput: ...
    def reset(self, seed: int | None = None) -> None:
        """Back to the moment after the prompt; clears poison."""

    def clone(self, seed: int | None = None) -> Session: ...
    def snapshot(self) -> Snapshot: ...
    def restore(self, snapshot: Snapshot) -> None:
        """Becomes the snapshot, which is also what reset() returns to."""

    def close(self) -> None: ...
    def voice_preset(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(embeddings [V, dim], cache [rows, max_delay + 3]) of the voice given as codes to prompt()."""

    def set_timing(self, on: bool) -> None:
        """Whether steps say how their time divides between temporal and depformer; slows the graph engine a little."""

    # For tests.
    def grid_ring(
        self,
    ) -> tuple[NDArray[np.int32], NDArray[np.uint8]]: ...  # tokens and forced flags, [rows, max_delay + 3]
    def probe(self) -> dict[str, NDArray[np.float32]]:
        """Of the last step, when probing is on: hidden [dim], text_logits [text_card], audio_logits [steps, card]."""

    def set_probing(self, on: bool) -> None: ...

class Model:
    """A loaded model. `source` is a checkpoint directory, "random:7b" or "random:tiny"."""

    def __init__(
        self,
        source: str,
        *,
        device: str = "auto",  # auto, cpu, gpu, metal, cuda
        engine: str = "auto",  # auto, fused, graph
        dtype: str = "auto",  # of the graph engine: auto, float32, bfloat16
        temporal_bits: int = 0,
        depformer_bits: int = 0,
        head_bits: int = 0,
        embedding_bits: int = 0,
        group_size: int = 0,
        depformer_steps: int = 0,
        context: int = 0,
        kv_bits: int = 0,  # fused engine: 16, 8; 0 = 16
        threads: int = 0,  # fused engine on a CPU; 0 = all usable cores
        compile: bool = False,
        dequantize: bool = False,
        weights_seed: int = 0,  # random models only
        nvrtc: str = "",  # CUDA's compiler or its folder; "": where the system looks
        kernel_cache: str = "",  # folder for kernels compiled for an NVIDIA GPU; "": none is kept
    ) -> None: ...
    @property
    def config(self) -> dict[str, object]: ...
    # config keys: dim, num_layers, num_heads, n_q, codebooks, rows, card, text_card, context, delays, text_padding_id,
    # depformer_steps, frame_samples, mimi_context, silence_codes, sine_codes, spacer_frames
    @property
    def info(self) -> dict[str, object]: ...
    # info keys: source, device, device_name, device_note (str), engine, engine_note (str), dtype (of the activations),
    # kv_dtype (float32, bfloat16, int8), instruction_set (str), threads (int or None), weights_seed,
    # bits {component: int}, group_size, weight_bytes, frame_bytes {mimi_encode, temporal, depformer, mimi_decode: a
    # frame; temporal_kv, mimi_kv: a visible position}, kept_16bit [str], compiled (bool), compile_note (str),
    # mlx_version
    @property
    def calls(self) -> int | None: ...  # operations dispatched so far; None where they are not counted
    def session(self, sampling: Sampling | None = None, seed: int = 0) -> Session: ...
    def load_snapshot(self, path: str, key: str) -> Snapshot:
        """WeightsError when the file is broken or its key is another one."""

    def encode(self, pcm: NDArray[np.float32]) -> NDArray[np.int32]:
        """[n * 1920] -> [Q, n] codes, from a fresh encoder."""

    def decode(self, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """[Q, n] -> [n * 1920], from a fresh decoder."""

    def unload(self) -> None:
        """Frees the weights and every session's state; using them afterwards raises DeviceError."""

    @property
    def loaded(self) -> bool: ...
    # For tests.
    def probe_mimi(self, pcm: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """[T * 1920] through a fresh encoder and decoder, frame by frame, with every stage: enc_seanet [D, 2T],
        enc_transformer [D, 2T], latent [D, T], codes [Q, T], dec_quantized [D, T], dec_upsampled [D, 2T],
        dec_transformer [D, 2T], decoded [T * 1920]. All float32."""

    def probe_temporal(self, tokens: NDArray[np.int32], chunk: int = 1) -> dict[str, NDArray[np.float32]]:
        """tokens [rows, S], fed as they are -> embeddings [S, dim], hidden [S, dim], text_logits [S, text_card]."""

    def probe_depformer(
        self, hidden: NDArray[np.float32], text: NDArray[np.int32], given: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """hidden [n, dim], text [n], given [n, >= steps - 1] -> [n, steps, card]; given[:, k] feeds step k + 1."""

def read_tensors(path: str) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    """A safetensors file as numpy: floats become float32, integers and bools int64. WeightsError when malformed."""

def write_tensors(
    path: str, tensors: dict[str, NDArray[np.float32] | NDArray[np.int64] | NDArray[np.int32]], metadata: dict[str, str]
) -> None:
    """Writes a safetensors file atomically."""

def sample(logits: NDArray[np.float32], temperature: float, top_k: int, seed: int, stream: int, frame: int) -> int:
    """One token by the engines' sampling rule (Philox noise)."""

def sample_with_noise(
    logits: NDArray[np.float32], noise: NDArray[np.float32], temperature: float, top_k: int
) -> int: ...
def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """The four words of Philox 4x32-10."""

def read_bandwidth(threads: int = 0, megabytes: int = 512, passes: int = 5) -> dict[str, list[float]]:
    """GB/s of each pass over fresh memory by the pool's threads, by name of the loop that reads."""

def read_gpu_bandwidth(
    megabytes: int = 1024, passes: int = 5, nvrtc: str = "", kernel_cache: str = ""
) -> dict[str, list[float]]:
    """GB/s of each pass over memory of the NVIDIA GPU, by name of the kernel that reads. DeviceError without one."""

class KernelCase:
    """One operation at one size, as bench/kernels.py times it."""

    @property
    def op(self) -> str: ...
    @property
    def name(self) -> str: ...  # where a frame does it
    @property
    def per_frame(self) -> int: ...  # calls a frame
    @property
    def columns(self) -> int: ...
    @property
    def bits(self) -> int: ...
    @property
    def shape(self) -> str: ...
    @property
    def bytes(self) -> int: ...  # of weights, keys and values that a call reads

def frame_cases(bits: int = 4, kv_bits: int = 16, context: int = 250, columns: int = 1) -> list[KernelCase]:
    """The operations of a full-size frame; those of a prefill where columns is more than 1."""

def tuning_cases(bits: int = 4, kv_bits: int = 16, context: int = 250, columns: int = 1) -> list[KernelCase]:
    """Those whose work a GPU can share out in several ways, each size once."""

def ragged_cases() -> list[KernelCase]:
    """The small odd sizes of the tests."""

def time_case(case: KernelCase, instruction_set: str = "", threads: int = 0, repeats: int = 50) -> list[float]:
    """Microseconds of each call on this processor; "" is the fastest instruction set."""

class Tile:
    """How an operation is shared out on a GPU; see kernels/README.md."""

    @property
    def tile(self) -> str: ...
    @property
    def simdgroups(self) -> int: ...
    @property
    def split(self) -> int: ...
    @property
    def passes(self) -> int: ...

class CaseTuner:
    """A case on a GPU, with more weights than its cache holds. `job` and `chosen` are None where there is no choice."""

    @property
    def job(self) -> dict[str, str | int] | None: ...  # op, bits, n, k, columns, whole
    @property
    def tiles(self) -> list[Tile]: ...  # that it could have; the first is the rule's
    @property
    def chosen(self) -> Tile | None: ...  # by the table in use
    @property
    def copies(self) -> int: ...  # sets of weights
    def time(self, tile: Tile | None = None, repeats: int = 5) -> list[float]:
        """Microseconds of a call in each run of a list of calls; None is the table's tile. ValueError for a tile that
        the GPU cannot run."""

    def distance(self, tile: Tile) -> float:
        """||a - b|| / ||b|| of its result and the one with the rule's tile."""

class GpuBench:
    """A GPU to be timed: auto, gpu, metal or cuda. DeviceError where there is none."""

    def __init__(self, device: str = "auto", nvrtc: str = "", kernel_cache: str = "") -> None: ...
    @property
    def kind(self) -> str: ...  # metal, cuda
    @property
    def device_name(self) -> str: ...
    @property
    def family(self) -> str: ...  # whose table it uses
    def read_bandwidth(self, megabytes: int = 1024, passes: int = 5) -> dict[str, list[float]]:
        """GB/s of each pass over its memory, by name of the kernel that reads."""

    def prepare(self, bits: Sequence[int]) -> None:
        """Compiles the kernels that products with weights of these bits choose among."""

    def tuner(self, case: KernelCase) -> CaseTuner:
        """WeightsError where PERSONAPLEX_TUNING names no table."""

def check_tuning(text: str, where: str) -> int:
    """How many jobs a table of tiles has. WeightsError, with every key that is wrong, where it is none."""

def devices() -> dict[str, bool]:
    """Which of cpu, metal, cuda there are here: for MLX, or an NVIDIA GPU with its driver."""
