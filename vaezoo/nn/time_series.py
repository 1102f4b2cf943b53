"""The decoder of TimeVAE (Desai et al. 2021, arXiv 2111.08095): trend, seasons and what they leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.likelihoods.base import Shape
from vaezoo.nn.conv1d import Conv1dEncoderConfig, conv1d_decoder
from vaezoo.nn.mlp import flatten


@dataclass(frozen=True, kw_only=True)
class TimeConfig(Conv1dEncoderConfig):
    """The options of TimeVAE.

    Attributes:
        trend_degree: Degree of the polynomial over time that is the trend. 0: a constant level.
        seasons: Number of seasons of each seasonal pattern, such as 7 for the days of a week. Empty: no pattern.
        season_steps: Steps that a season of each pattern lasts, such as 24 for days in hourly data. Empty: 1 each.
        residual: Whether transposed convolutions add what trend and seasons leave.

    Raises:
        VaezooError: If a value is out of range, or two options do not fit together.
    """

    trend_degree: int = 2
    seasons: tuple[int, ...] = ()
    season_steps: tuple[int, ...] = ()
    residual: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("seasons", *self.seasons)
        require_positive("season_steps", *self.season_steps)
        if self.trend_degree < 0:
            raise VaezooError(f"option 'trend_degree' is {self.trend_degree}", "give 0 or more")
        if self.season_steps and len(self.season_steps) != len(self.seasons):
            raise VaezooError(
                f"option 'season_steps' has {len(self.season_steps)} values, but 'seasons' has {len(self.seasons)}",
                "give one number of steps for each pattern",
            )

    def make_decoder(self, data: DataSpec, inputs: Shape, outputs: Shape) -> TimeDecoder:
        """Returns a network from `(B, *inputs)` to unbounded `(B, *outputs)`."""
        patterns = [*zip(self.seasons, self.season_steps or (1,) * len(self.seasons), strict=True)]
        residual = conv1d_decoder(self, data, inputs, outputs) if self.residual else None
        return TimeDecoder(inputs, outputs, self.trend_degree, patterns, residual)


class TimeDecoder(nn.Module):
    """A sum of series that can be told apart: a trend, seasonal patterns and a residual.

    Args:
        inputs: Shape of the latents.
        outputs: Shape of a series, `(channels, time)`.
        degree: Degree of the trend.
        patterns: The number of seasons of each seasonal pattern, and the steps that a season lasts.
        residual: From latents to a series. None: no residual.
    """

    def __init__(
        self,
        inputs: Shape,
        outputs: Shape,
        degree: int,
        patterns: Sequence[tuple[int, int]],
        residual: nn.Module | None,
    ) -> None:
        super().__init__()
        channels, steps = outputs
        size, width = math.prod(inputs), channels * (degree + 1)
        self.trend = nn.Sequential(
            *flatten(inputs),
            nn.Linear(size, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.Unflatten(1, (channels, -1)),
        )
        self.register_buffer("powers", polynomial_basis(degree, steps), persistent=False)
        self.seasons = nn.ModuleList()
        for i, (count, season_steps) in enumerate(patterns):
            layers = nn.Linear(size, channels * count), nn.Unflatten(1, (channels, count))
            self.seasons.append(nn.Sequential(*flatten(inputs), *layers))
            self.register_buffer(f"season{i}", season_basis(count, season_steps, steps), persistent=False)
        self.residual = residual

    def components(self, z: Tensor) -> dict[str, Tensor]:
        """Returns the series whose sum the decoder returns, `(B, channels, time)` each.

        Their names are `trend`, `season_0`, `season_1` ... and `residual`.
        """
        parts = {"trend": self.trend(z) @ self.get_buffer("powers")}
        for i, season in enumerate(self.seasons):
            parts[f"season_{i}"] = season(z) @ self.get_buffer(f"season{i}")
        return parts if self.residual is None else parts | {"residual": self.residual(z)}

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack([*self.components(z).values()]).sum(0)


def polynomial_basis(degree: int, steps: int) -> Tensor:
    """Returns the powers 0 to `degree` of time, which runs from 0 to before 1, `(degree + 1, steps)`."""
    time = torch.arange(steps, dtype=torch.float64) / steps
    return torch.stack([time**power for power in range(degree + 1)]).float()


def season_basis(count: int, season_steps: int, steps: int) -> Tensor:
    """Returns which of `count` seasons each step is in, one-hot, `(count, steps)`. The first step begins a cycle."""
    season = torch.arange(steps) // season_steps % count
    return (torch.arange(count).unsqueeze(1) == season).float()
