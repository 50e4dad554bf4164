"""A training step recorded once as a CUDA graph: thousands of small kernels are launched faster that way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM = 4  # steps taken before recording, so that libraries have chosen their algorithms


class Replayed:
    """Calls `step` a few times as it is, then repeats its kernels. It must not look at values on the device."""

    def __init__(self, step: Callable[[], Tensor], optimizers: Sequence[torch.optim.Optimizer]) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                step()
        torch.cuda.current_stream().wait_stream(side)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.values = step()

    def __call__(self) -> Tensor:
        self.graph.replay()
        return self.values
