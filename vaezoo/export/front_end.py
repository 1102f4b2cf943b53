"""The front end of sound as a module: from waveforms to scaled log-mel spectrograms, as a convolution."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.data.sound.spectrogram import FLOOR, frame_size, hann, mel_filters, to_sound
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError

ITERATIONS = 4  # of Griffin and Lim


class FrontEnd(nn.Module):
    """`log_mel` of waveforms, scaled as the data of a model.

    The real and imaginary parts of a Fourier transform of frames are a strided convolution. Its kernels are cosines and
    sines under the window.

    Args:
        data: The data of a model of sound.

    Raises:
        UnsupportedDataError: If the data are not spectrograms of sound.
    """

    kernels: Tensor
    filters: Tensor

    def __init__(self, data: DataSpec) -> None:
        super().__init__()
        if not data.sample_rate or len(data.shape) != 3:
            raise UnsupportedDataError(
                f"the model was trained on data of shape {data.shape}, not on spectrograms", "leave out --waveform-in"
            )
        self.data = data
        self.size = frame_size(data.sample_rate)
        angle = 2 * math.pi * np.outer(np.arange(self.size // 2 + 1), np.arange(self.size)) / self.size
        kernels = np.concatenate([np.cos(angle), np.sin(angle)]) * hann(self.size)
        self.register_buffer("kernels", torch.from_numpy(kernels[:, None]).float(), persistent=False)
        filters = torch.from_numpy(mel_filters(data.sample_rate, self.size)).float()
        self.register_buffer("filters", filters, persistent=False)

    @property
    def samples(self) -> int:
        """The samples of a waveform whose spectrogram is an example: the last frame is centred at its end."""
        return (self.data.shape[2] - 1) * self.size // 4

    def forward(self, x: Tensor) -> Tensor:
        """Returns spectrograms `(B, *shape)` of waveforms `(B, samples)`."""
        padded = F.pad(x.unsqueeze(1), (self.size // 2, self.size // 2))
        real, imaginary = F.conv1d(padded, self.kernels, stride=self.size // 4).chunk(2, dim=1)
        magnitude = (real.square() + imaginary.square()).sqrt()
        log = (self.filters @ magnitude).clamp(min=FLOOR).log().unsqueeze(1)
        offset, factor = self.data.offset or (0.0,), self.data.factor or (1.0,)
        return (log - offset[0]) / factor[0]

    def waveforms(self, x: Tensor) -> Tensor:
        """Returns waveforms `(B, samples)` whose spectrograms are like those of examples, always the same for one.

        A few iterations of Griffin and Lim are enough for a comparison of two front ends on them.
        """
        values = self.data.scaling.invert(x.cpu().numpy())
        sounds = [to_sound(value[0], self.data.sample_rate, iterations=ITERATIONS) for value in values]
        return torch.from_numpy(np.stack(sounds)).float().clamp(-1, 1)
