"""Encoder and decoder of texts. A text may be shorter than those of the data, so that it can grow id by id."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.errors import VaezooError
from vaezoo.likelihoods.categorical import PADDING
from vaezoo.transformer import Transformer, require_heads

NEVER = -10_000.0  # the logit of padding. Its probability is 0 in float32, and float16 can hold the logit.


@dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """The options of a model of texts.

    Attributes:
        latent_dim: Number of latent dimensions.
        hidden: Features of each position inside encoder and decoder, a multiple of 16. Each 16 have an attention head.
        layers: Number of layers of the encoder, and of the decoder.
        word_dropout: Probability with which training hides a preceding id from the decoder, so that it needs z.

    Raises:
        VaezooError: If a value is out of range.
    """

    latent_dim: int = 16
    hidden: int = 64
    layers: int = 2
    word_dropout: float = 0.4

    def __post_init__(self) -> None:
        require_positive("latent_dim", self.latent_dim)
        require_positive("hidden", self.hidden)
        require_positive("layers", self.layers)
        require_heads(self.hidden)
        if not 0 <= self.word_dropout <= 1:
            raise VaezooError(f"option 'word_dropout' is {self.word_dropout:g}", "give 'word_dropout' from 0 to 1")


class TextEncoder(nn.Module):
    """From texts to features. A position of its own, before the text, gathers them.

    Padding is not visible, so its amount does not change the features.

    Args:
        vocabulary: Number of ids, padding included.
        length: The largest number of ids of a text.
        width: Number of features.
        layers: Number of layers.
    """

    def __init__(self, vocabulary: int, length: int, width: int, layers: int) -> None:
        super().__init__()
        self.transformer = Transformer(vocabulary, length, width, layers)
        self.summary = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Returns features `(B, width)` for ids `(B, T)`."""
        summary = self.summary.expand(len(x), 1, -1)
        h = torch.cat([summary, self.transformer.embed(x)], 1)
        # The summary is always visible. A text of padding alone would otherwise be an average over nothing, NaN.
        visible = F.pad(x != PADDING, (1, 0), value=True).unsqueeze(1).unsqueeze(1)  # (B, 1, 1, T + 1)
        features: Tensor = self.transformer(h, visible)[:, 0]
        return features


class TextDecoder(nn.Module):
    """From latents and texts to the logits of each id, given the ids before it.

    Args:
        vocabulary: Number of ids, padding included.
        length: The largest number of ids of a text.
        latents: Number of latent dimensions, and of labels.
        width: Features of a position.
        layers: Number of layers.
        word_dropout: Probability with which a preceding id is replaced in training mode.
    """

    def __init__(
        self, vocabulary: int, length: int, latents: int, width: int, layers: int, word_dropout: float
    ) -> None:
        super().__init__()
        self.start_id, self.hidden_id = vocabulary, vocabulary + 1
        self.word_dropout = word_dropout
        self.transformer = Transformer(vocabulary + 2, length, width, layers)
        self.latents = nn.Linear(latents, width)
        self.output = nn.Linear(width, vocabulary - 1)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Returns logits `(B, T, vocabulary)`.

        Args:
            z: Latents `(B, latents)`. Each position gets them.
            x: Ids `(B, T)`. The logits at t depend on those before t alone.
        """
        before = x[:, :-1]
        if self.training and self.word_dropout:
            hide = torch.rand(before.shape, device=x.device) < self.word_dropout
            before = torch.where(hide, self.hidden_id, before)
        before = F.pad(before, (1, 0), value=self.start_id)
        position = torch.arange(x.shape[1], device=x.device)
        visible = position.unsqueeze(1) >= position  # (T, T)
        h = self.transformer(self.transformer.embed(before) + self.latents(z).unsqueeze(1), visible)
        # Padding follows the end, and no draw may put it in front.
        return F.pad(self.output(h), (1, 0), value=NEVER)
