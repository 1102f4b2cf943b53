"""Blocks of the deep compression autoencoder (Chen et al. 2024, arXiv 2410.10733), and linear attention.

Attention is that of EfficientViT (Cai et al. 2023, arXiv 2205.14756). Layers and names of the parameters are those of
diffusers' AutoencoderDC, so that its weights can be imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.precision import to_float32

Norm = Literal["rms", "batch"]
BlockActivation = Literal["silu", "relu", "gelu", "mish"]

NORM_EPS = 1e-5
MIN_WEIGHT = 1e-15  # keeps 0 / 0 apart, where no key resembles a query
WIDENING = 4  # channels inside a gated convolution, as a multiple of those outside
BLOCK_ACTIVATIONS: dict[BlockActivation, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "mish": nn.Mish,
}


class RMSNorm(nn.Module):
    """Divides a pixel by the root of the mean square of its channels, then scales and shifts each channel.

    Zhang and Sennrich 2019, arXiv 1910.07467, equation 4. The mean is float32.

    Args:
        channels: Channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(to_float32(x).square().mean(1, keepdim=True) + NORM_EPS)
        return x * scale * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """Returns a normalisation of images with so many channels."""
    return RMSNorm(channels) if kind == "rms" else nn.BatchNorm2d(channels, eps=NORM_EPS)


class ResBlock(nn.Module):
    """x + f(x), where f is a 3x3 convolution, an activation, a 3x3 convolution and a normalisation.

    Args:
        channels: Channels of input and output.
        norm: The normalisation.
        activation: The activation.
    """

    def __init__(self, channels: int, norm: Norm, activation: BlockActivation) -> None:
        super().__init__()
        self.nonlinearity = BLOCK_ACTIVATIONS[activation]()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = make_norm(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.norm(self.conv2(self.nonlinearity(self.conv1(x))))
        return y


class MixedScale(nn.Module):
    """Queries, keys and values of larger surroundings: a convolution of each channel, then one inside each group.

    Args:
        channels: Channels of the queries.
        heads: Number of heads. Each of them has three groups.
        kernel_size: Sides of the first convolution, an odd number.
    """

    def __init__(self, channels: int, heads: int, kernel_size: int) -> None:
        super().__init__()
        n = 3 * channels
        self.proj_in = nn.Conv2d(n, n, kernel_size, padding=kernel_size // 2, groups=n, bias=False)
        self.proj_out = nn.Conv2d(n, n, 1, groups=3 * heads, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj_out(self.proj_in(x))
        return y


class LinearAttention(nn.Module):
    """x + f(x), where f is attention of all pixels whose cost grows with their number, and not with its square.

    The weight of pixel j for pixel i is relu(q_i) relu(k_j), divided by its sum over j (Cai et al. 2023, equation 2).
    So the sum over j of relu(k_j) v_j^T is the same for all i. Further heads see queries, keys and values of larger
    surroundings.

    Args:
        channels: Channels of input and output, at least `head_dim`.
        head_dim: Channels of a head.
        kernel_sizes: Of the surroundings, odd numbers. Each adds as many heads as there are without it.
        norm: The normalisation of f.
    """

    def __init__(self, channels: int, head_dim: int, kernel_sizes: Sequence[int], norm: Norm) -> None:
        super().__init__()
        heads = channels // head_dim
        inner, self.head_dim = heads * head_dim, head_dim
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, inner, bias=False) for _ in range(3))
        self.to_qkv_multiscale = nn.ModuleList(MixedScale(inner, heads, size) for size in kernel_sizes)
        self.to_out = nn.Linear(inner * (1 + len(kernel_sizes)), channels, bias=False)
        self.norm_out = make_norm(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.movedim(1, -1)
        qkv = torch.cat([layer(pixels) for layer in (self.to_q, self.to_k, self.to_v)], -1).movedim(-1, 1)
        scales = torch.cat([qkv, *(layer(qkv) for layer in self.to_qkv_multiscale)], 1)
        with torch.autocast(x.device.type, enabled=False):  # sums over all pixels
            # Each run of 3 head_dim channels is a head, as in the code of EfficientViT.
            heads = to_float32(scales).flatten(2).unflatten(1, (-1, 3 * self.head_dim))  # type: ignore[no-untyped-call]
            attended = linear_attention(*heads.chunk(3, 2)).flatten(1, 2).unflatten(2, x.shape[2:])  # type: ignore[no-untyped-call]
        y: Tensor = x + self.norm_out(self.to_out(attended.movedim(1, -1)).movedim(-1, 1))
        return y


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Returns the mean of the values for each pixel i, weighted by relu(q_i) relu(k_j), `(B, heads, dim, pixels)`.

    Args:
        query: `(B, heads, dim, pixels)`, as the others.
        key: See `query`.
        value: See `query`.
    """
    query, key = torch.relu(query), torch.relu(key)
    total = value @ key.transpose(2, 3) @ query
    weight = key.sum(3, keepdim=True).transpose(2, 3) @ query  # the sum over j
    # diffusers adds the minimum instead. PyTorch's exporter leaves out a sum with so small a number.
    return total / weight.clamp(min=MIN_WEIGHT)


class GatedConv(nn.Module):
    """x + f(x), where f widens, convolves each channel, gates one half by the other, narrows and normalises.

    Args:
        channels: Channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = WIDENING * channels
        self.conv_inverted = nn.Conv2d(channels, 2 * wide, 1)
        self.conv_depth = nn.Conv2d(2 * wide, 2 * wide, 3, padding=1, groups=2 * wide)
        self.conv_point = nn.Conv2d(wide, channels, 1, bias=False)
        self.norm = RMSNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        h, gate = self.conv_depth(F.silu(self.conv_inverted(x))).chunk(2, 1)
        y: Tensor = x + self.norm(self.conv_point(h * F.silu(gate)))
        return y


class EfficientViTBlock(nn.Module):
    """Linear attention, then a gated convolution.

    Args:
        channels: As in LinearAttention, like the others.
        head_dim: See there.
        kernel_sizes: See there.
        norm: See there.
    """

    def __init__(self, channels: int, head_dim: int, kernel_sizes: Sequence[int], norm: Norm) -> None:
        super().__init__()
        self.attn = LinearAttention(channels, head_dim, kernel_sizes, norm)
        self.conv_out = GatedConv(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_out(self.attn(x))
        return y


class Down(nn.Module):
    """Halves an image. With a shortcut, the layer learns what differs from means of channels.

    A pixel-unshuffle puts the four pixels of a square into channels. The shortcut does so with the input, and takes the
    mean of each group of channels that lie side by side (Chen et al. 2024, section 3.2).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        unshuffle: Whether the convolution keeps the size, and a pixel-unshuffle follows it. Otherwise it has stride 2.
        shortcut: Whether there is a shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, unshuffle: bool, shortcut: bool) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        self.group = 4 * in_channels // out_channels if shortcut else 0
        inner, stride = (out_channels // 4, 1) if unshuffle else (out_channels, 2)
        self.conv = nn.Conv2d(in_channels, inner, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.unshuffle:
            y = F.pixel_unshuffle(y, 2)
        return y + group_means(F.pixel_unshuffle(x, 2), self.group) if self.group else y


class Up(nn.Module):
    """Doubles an image, the reverse of Down: the shortcut repeats channels instead of taking their means.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        shuffle: Whether the convolution makes four channels for each, which a pixel-shuffle puts side by side.
            Otherwise pixels are repeated before it.
        shortcut: Whether there is a shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, shuffle: bool, shortcut: bool) -> None:
        super().__init__()
        self.shuffle = shuffle
        self.repeats = 4 * out_channels // in_channels if shortcut else 0
        self.conv = nn.Conv2d(in_channels, 4 * out_channels if shuffle else out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x if self.shuffle else F.interpolate(x, scale_factor=2.0, mode="nearest"))
        if self.shuffle:
            y = F.pixel_shuffle(y, 2)
        return y + F.pixel_shuffle(repeat_channels(x, self.repeats), 2) if self.repeats else y


def group_means(x: Tensor, size: int) -> Tensor:
    """Returns the means of so many channels that lie side by side."""
    means: Tensor = x.unflatten(1, (-1, size)).mean(2)  # type: ignore[no-untyped-call]
    return means


def repeat_channels(x: Tensor, times: int) -> Tensor:
    """Returns each channel so many times, side by side."""
    return x.unsqueeze(2).expand(-1, -1, times, -1, -1).flatten(1, 2)
