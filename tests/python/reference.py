# tests/python/reference.py: the model's rules in plain numpy, written for reading; the tests hold the core against it.
from __future__ import annotations

import numpy as np

UNGENERATED = -2


class Grid:
    """Tokens of one conversation as an endless table tok[row, position]; the core keeps a ring of the same cells.

    Call t of `put` + `finish` reads column t - 1 and predicts column t. What is given in call t for a row with delay d
    lands at t + d and is forced: a prediction never replaces it. Positions p <= d hold the start token.
    """

    def __init__(self, delays: list[int], text_card: int, card: int) -> None:
        self.delays = list(delays)
        self.rows, self.codebooks, self.max_delay = len(delays), (len(delays) - 1) // 2, max(delays)
        self.slots = self.max_delay + 3
        self.start = [text_card] + [card] * (self.rows - 1)
        self.tok = np.full((self.rows, 64), UNGENERATED, np.int64)
        self.forced = np.zeros((self.rows, 64), bool)
        self.t = 0  # the call to come
        self.put([card] * self.codebooks, [card] * self.codebooks, text_card)  # call 0 only sets the start column
        self.t = 1

    def _force(self, row: int, position: int, token: int) -> None:
        while position >= self.tok.shape[1]:
            self.tok = np.concatenate([self.tok, np.full_like(self.tok, UNGENERATED)], axis=1)
            self.forced = np.concatenate([self.forced, np.zeros_like(self.forced)], axis=1)
        self.tok[row, position], self.forced[row, position] = token, True

    def put(self, user=None, agent=None, text: int | None = None) -> None:
        """What is known of call t: codes [Q] of the user and of the agent, a text token."""
        for first, codes in ((1, agent), (1 + self.codebooks, user)):
            for k in range(self.codebooks if codes is not None else 0):
                self._force(first + k, self.t + self.delays[first + k], int(codes[k]))
        if text is not None:
            self._force(0, self.t + self.delays[0], text)
        for row, delay in enumerate(self.delays):
            if self.t <= delay:
                self._force(row, self.t, self.start[row])

    @property
    def column(self) -> np.ndarray:
        """[rows] tokens that call t embeds."""
        return self.tok[:, self.t - 1].copy()

    @property
    def target(self) -> tuple[np.ndarray, np.ndarray]:
        """([rows] cells that call t predicts, [rows] which of them are forced)."""
        return self.tok[:, self.t].copy(), self.forced[:, self.t].copy()

    def finish(self, predicted) -> None:
        """Ends call t: predictions (text, then audio rows; may be fewer than rows) fill the cells nobody forced."""
        for row, token in enumerate(predicted):
            if not self.forced[row, self.t]:
                self.tok[row, self.t] = token
        self.t += 1

    def output(self) -> np.ndarray | None:
        """[rows] codes of one and the same frame after a call; None while the delays still hold it back."""
        last = self.t - 1
        if last <= self.max_delay:
            return None
        return np.array([self.tok[row, last - self.max_delay + delay] for row, delay in enumerate(self.delays)])

    def ring(self) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, forced flags), both [rows, slots]: cell j is the newest written position p with p % slots == j."""
        tokens = np.full((self.rows, self.slots), UNGENERATED, np.int64)
        flags = np.zeros((self.rows, self.slots), np.uint8)
        last = self.t - 1
        for row in range(self.rows):
            for p in range(last + self.max_delay, -1, -1):
                slot = p % self.slots
                if tokens[row, slot] == UNGENERATED and self.tok[row, p] != UNGENERATED:
                    tokens[row, slot] = self.tok[row, p]
                    flags[row, slot] = self.forced[row, p] and p >= last  # read columns are no longer forced
                if p < last - self.slots:
                    break
        return tokens, flags

    def load_ring(self, cache: np.ndarray) -> None:
        """Replaces the tokens by a voice preset's ring [rows, slots]; which cells are forced stays."""
        for row, delay in enumerate(self.delays):
            newest = self.t - 1 + delay
            for p in range(max(0, newest - self.slots + 1), newest + 1):
                self.tok[row, p] = cache[row, p % self.slots]


# Sampling.


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3")."""
    c, k, mask = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & mask, (a >> 32) ^ c[3] ^ k[1], a & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c[0], c[1], c[2], c[3]


def exponential_noise(n: int, seed: int, stream: int, frame: int) -> np.ndarray:
    """[n] float64 draws of Exp(1), one a token id, for one stream of one frame."""
    key, mask = (seed & 0xFFFFFFFF, seed >> 32), 0xFFFFFFFF
    words = [philox((block, stream, frame & mask, frame >> 32), key) for block in range((n + 3) // 4)]
    return -np.log(((np.array(words).reshape(-1)[:n] >> 8) + 0.5) * 2.0**-24)


def sample_with_noise(logits: np.ndarray, noise: np.ndarray, temperature: float, top_k: int) -> int:
    """argmax p / q over the top k; ties, also those at the edge of the top k, go to the lowest index."""
    logits = np.asarray(logits, np.float64)
    if temperature <= 0:
        return int(np.argmax(logits))
    order = np.argsort(-logits, kind="stable")
    order = np.sort(order[:top_k]) if 0 < top_k < len(logits) else np.arange(len(logits))
    p = np.exp((logits[order] - logits.max()) / temperature)
    return int(order[np.argmax(p / noise[order])])


def sample(logits: np.ndarray, temperature: float, top_k: int, seed: int, stream: int, frame: int) -> int:
    return sample_with_noise(logits, exponential_noise(len(logits), seed, stream, frame), temperature, top_k)


# The language model in float64.

Weights = dict[str, np.ndarray]


def rms_norm(x: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-8) * alpha.reshape(-1)


def rope(x: np.ndarray, max_period: float = 10000.0) -> np.ndarray:
    """[heads, S, Dh], interleaved pairs, positions 0..S-1."""
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[1])[:, None] * max_period ** (-np.arange(half) / half)
    re, im, cos, sin = x[..., 0::2], x[..., 1::2], np.cos(angle), np.sin(angle)
    return np.stack([re * cos - im * sin, re * sin + im * cos], axis=-1).reshape(x.shape)


def attention(qkv: np.ndarray, heads: int, visible: np.ndarray, rotate: bool) -> np.ndarray:
    """qkv [S, 3D] -> [S, D]; visible [S, S] is the explicit mask (query, key)."""
    q, k, v = qkv.reshape(len(qkv), 3, heads, -1).transpose(1, 2, 0, 3)
    if rotate:
        q, k = rope(q), rope(k)
    scores = np.where(visible, q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]), -np.inf)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (p / p.sum(axis=-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(qkv), -1)


def gated(x: np.ndarray, linear_in: np.ndarray, linear_out: np.ndarray) -> np.ndarray:
    gate, value = np.split(x @ linear_in.T, 2, axis=-1)
    return (gate / (1 + np.exp(-gate)) * value) @ linear_out.T


def embed(w: Weights, tokens: np.ndarray) -> np.ndarray:
    """tokens [rows, S] -> [S, D]; -1 contributes nothing."""
    total = 0.0
    for row, ids in enumerate(tokens):
        table = w["text_emb.weight"] if row == 0 else w[f"emb.{row - 1}.weight"]
        total = total + np.where(ids[:, None] < 0, 0.0, table[np.maximum(ids, 0)].astype(np.float64))
    return total


def temporal(w: Weights, kwargs: dict, x: np.ndarray) -> np.ndarray:
    """Embeddings [S, D] -> hidden [S, D]. The window is context - 1 keys: the ring that the model was made with hides
    its oldest slot once it is full."""
    i, j = np.arange(len(x))[:, None], np.arange(len(x))[None, :]
    visible = (j <= i) & (i - j < kwargs["context"] - 1)
    for n in range(kwargs["num_layers"]):
        p = f"transformer.layers.{n}."
        y = rms_norm(x, w[p + "norm1.alpha"])
        y = attention(y @ w[p + "self_attn.in_proj_weight"].T, kwargs["num_heads"], visible, rotate=True)
        x = x + y @ w[p + "self_attn.out_proj.weight"].T
        y = rms_norm(x, w[p + "norm2.alpha"])
        x = x + gated(y, w[p + "gating.linear_in.weight"], w[p + "gating.linear_out.weight"])
    return rms_norm(x, w["out_norm.alpha"])


def depformer(w: Weights, kwargs: dict, hidden: np.ndarray, text: int, given: np.ndarray, steps: int) -> np.ndarray:
    """hidden [D], text token, given [>= steps - 1] audio tokens -> logits [steps, card].

    Every step has weights of its own and no positions. With all n_q steps the last one does not see step 0 (the same
    ring rule as in the temporal transformer, on a ring of n_q slots)."""
    small, dep_q = kwargs["depformer_dim"], kwargs["dep_q"]
    x = np.zeros((steps, small))
    for k in range(steps):
        token = w["depformer_text_emb.weight"][text] if k == 0 else w[f"depformer_emb.{k - 1}.weight"][given[k - 1]]
        x[k] = w[f"depformer_in.{k}.weight"] @ hidden + token
    i, j = np.arange(steps)[:, None], np.arange(steps)[None, :]
    visible = (j <= i) & (i - j < kwargs["n_q"] - 1)
    for n in range(kwargs["depformer_num_layers"]):
        p = f"depformer.layers.{n}."
        in_proj = w[p + "self_attn.in_proj_weight"].reshape(dep_q, 3 * small, small)
        out_proj = w[p + "self_attn.out_proj.weight"].reshape(dep_q, small, small)
        y = rms_norm(x, w[p + "norm1.alpha"])
        qkv = np.einsum("kij,kj->ki", in_proj[:steps], y)
        y = attention(qkv, kwargs["depformer_num_heads"], visible, rotate=False)
        x = x + np.einsum("kij,kj->ki", out_proj[:steps], y)
        y = rms_norm(x, w[p + "norm2.alpha"])
        for k in range(steps):
            step = f"{p}gating.{k}.linear_"
            x[k] += gated(y[k], w[step + "in.weight"], w[step + "out.weight"])
    return np.stack([w[f"linears.{k}.weight"] @ x[k] for k in range(steps)])


# The codec's quantizer.


def rvq_codes(latent: np.ndarray, w: Weights, codebooks: int) -> np.ndarray:
    """latent [D, T] -> codes [codebooks, T]: level 0 and the chain of levels 1.. both start from the same latent."""
    codes = []
    for part, levels in (("rvq_first", 1), ("rvq_rest", codebooks - 1)):
        residual = w[f"quantizer.{part}.input_proj.weight"][..., 0].astype(np.float64) @ latent
        for n in range(levels):
            book = codebook(w, part, n)
            nearest = np.argmin(np.sum((residual.T[:, None] - book[None]) ** 2, axis=-1), axis=1)
            residual = residual - book[nearest].T
            codes.append(nearest)
    return np.stack(codes)


def codebook(w: Weights, part: str, level: int) -> np.ndarray:
    """[bins, d] codewords."""
    p = f"quantizer.{part}.vq.layers.{level}._codebook."
    return w[p + "embedding_sum"].astype(np.float64) / np.maximum(w[p + "cluster_usage"], np.float32(1e-5))[:, None]
