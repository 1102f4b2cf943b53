"""Residual blocks that keep the size of an image."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))), the block of the VQ-VAE (van den Oord et al. 2017, section 4.1).

    Args:
        channels: Channels of input and output.
        hidden_channels: Channels between the two convolutions.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, hidden_channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden_channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, channels, H, W)` to the same shape."""
        y: Tensor = x + self.layers(x)
        return y


def residual_layers(channels: int, hidden_channels: int, blocks: int) -> list[nn.Module]:
    """Returns residual blocks with a rectifier behind the last one. Without blocks it is the rectifier alone."""
    return [*(ResidualBlock(channels, hidden_channels) for _ in range(blocks)), nn.ReLU()]
