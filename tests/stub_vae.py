"""A model whose reconstructions and samples a test chooses."""

from __future__ import annotations

from torch import Tensor, nn

from vaezoo import DataSpec, GaussianVAE


class StubVAE(GaussianVAE):
    """Returns given reconstructions and samples, in order."""

    def __init__(
        self, reconstructions: Tensor | None = None, samples: Tensor | None = None, shape: tuple[int, ...] = (1, 16, 16)
    ) -> None:
        super().__init__(DataSpec(name="fixed", shape=shape), 1, nn.Linear(1, 2), nn.Identity())
        self.reconstructions, self.samples, self.done = reconstructions, samples, 0

    def reconstruct(self, x, y=None):
        assert not self.training  # dropout would be active
        self.done += len(x)
        return self.reconstructions[self.done - len(x) : self.done]

    def sample(self, n):
        assert not self.training
        self.done += n
        return self.samples[self.done - n : self.done]
