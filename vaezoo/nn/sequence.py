"""Encoder and decoder of texts. A text may be shorter than those of the data, so that it can grow id by id."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.errors import VaezooError
from vaezoo.likelihoods.categorical import PADDING
from vaezoo.nn.recurrent import Cell, Recurrent
from vaezoo.transformer import EMBEDDING_STD, Transformer, require_heads

NEVER = -10_000.0  # the logit of padding. Its probability is 0 in float32, and float16 can hold the logit.


@dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """The options of a model of texts.

    Attributes:
        latent_dim: Number of latent dimensions.
        hidden: Features of each position inside encoder and decoder, a multiple of 16. Each 16 have an attention head.
        layers: Number of layers of the encoder, and of the decoder.
        word_dropout: Probability with which training hides a preceding id from the decoder, so that it needs z.
        decoder: The network of the decoder: transformer, gru or lstm.
        decoder_window: How many preceding ids the decoder sees, so that it needs z for the others. 0 means all.

    Raises:
        VaezooError: If a value is out of range.
    """

    latent_dim: int = 16
    hidden: int = 64
    layers: int = 2
    word_dropout: float = 0.4
    decoder: Literal["transformer", "gru", "lstm"] = "transformer"
    decoder_window: int = 0

    def __post_init__(self) -> None:
        require_positive("latent_dim", self.latent_dim)
        require_positive("hidden", self.hidden)
        require_positive("layers", self.layers)
        require_heads(self.hidden)
        if self.decoder_window < 0:
            raise VaezooError(f"option 'decoder_window' is {self.decoder_window}", "give 0 for all, or at least 1")
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


class TextDecoder(nn.Module, ABC):
    """From latents and texts to the logits of each id, given the ids before it.

    Args:
        vocabulary: Number of ids, padding included.
        word_dropout: Probability with which a preceding id is replaced in training mode.
        window: How many of the ids before a position it sees. 0: all.
    """

    output: nn.Module  # from features to the logits of all ids but padding

    def __init__(self, vocabulary: int, word_dropout: float, window: int) -> None:
        super().__init__()
        self.start_id, self.hidden_id = vocabulary, vocabulary + 1
        self.word_dropout, self.window = word_dropout, window

    @abstractmethod
    def features(self, z: Tensor, before: Tensor) -> Tensor:
        """Returns features `(B, T, width)` of positions, of which each sees the ids `before` up to its own place.

        Args:
            z: Latents `(B, latents)`.
            before: Ids `(B, T)`, the first of them the start.
        """

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
        h = self.windows(z, before) if self.window else self.features(z, before)
        # Padding follows the end, and no draw may put it in front.
        return F.pad(self.output(h), (1, 0), value=NEVER)

    def windows(self, z: Tensor, before: Tensor) -> Tensor:
        """Returns the features of each position as those at the end of a text of the last ids alone."""
        size = self.window
        padded = F.pad(before, (size - 1, 0), value=self.start_id)
        place = torch.arange(before.shape[1], device=before.device)
        index = place.unsqueeze(1) + torch.arange(size, device=before.device)  # (T, window)
        texts = padded[:, index].flatten(0, 1)
        rows = z.unsqueeze(1).expand(-1, before.shape[1], -1).flatten(0, 1)
        return self.features(rows, texts)[:, -1].reshape(*before.shape, -1)


class TransformerDecoder(TextDecoder):
    """A transformer whose positions see those before.

    Args:
        vocabulary: As in `TextDecoder`.
        length: The largest number of ids of a text.
        latents: Number of latent dimensions, and of labels.
        config: The other options.
    """

    def __init__(self, vocabulary: int, length: int, latents: int, config: SequenceConfig) -> None:
        super().__init__(vocabulary, config.word_dropout, config.decoder_window)
        self.transformer = Transformer(vocabulary + 2, self.window or length, config.hidden, config.layers)
        self.latents = nn.Linear(latents, config.hidden)
        self.output = nn.Linear(config.hidden, vocabulary - 1)

    def features(self, z: Tensor, before: Tensor) -> Tensor:
        position = torch.arange(before.shape[1], device=before.device)
        visible = position.unsqueeze(1) >= position  # (T, T)
        return self.transformer(self.transformer.embed(before) + self.latents(z).unsqueeze(1), visible)  # type: ignore[no-any-return]


class RecurrentDecoder(TextDecoder):
    """A GRU or an LSTM, whose first states follow from z.

    Args:
        vocabulary: As in `TextDecoder`.
        latents: Number of latent dimensions, and of labels.
        cell: The kind of layer.
        config: The other options.
    """

    def __init__(self, vocabulary: int, latents: int, cell: Cell, config: SequenceConfig) -> None:
        super().__init__(vocabulary, config.word_dropout, config.decoder_window)
        self.embedding = nn.Embedding(vocabulary + 2, config.hidden)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        self.recurrent = Recurrent(cell, config.hidden, config.layers)
        self.first = nn.Linear(latents, self.recurrent.state_size)
        self.latents = nn.Linear(latents, config.hidden)
        self.output = nn.Linear(config.hidden, vocabulary - 1)

    def features(self, z: Tensor, before: Tensor) -> Tensor:
        inputs = self.embedding(before) + self.latents(z).unsqueeze(1)
        output: Tensor = self.recurrent(inputs, torch.tanh(self.first(z)))[0]
        return output

    def step(self, z: Tensor, before: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the logits of the next id, `(B, vocabulary)`, and the states behind it.

        Args:
            z: Latents `(B, latents)`.
            before: The id before, `(B,)`. The start id begins a text.
            state: The states behind that id, `(B, state_size)`. They count for nothing at the start.
        """
        begins = (before == self.start_id).unsqueeze(1)
        state = torch.where(begins, torch.tanh(self.first(z)), state)
        inputs = (self.embedding(before) + self.latents(z)).unsqueeze(1)
        h, state = self.recurrent(inputs, state)
        return F.pad(self.output(h[:, 0]), (1, 0), value=NEVER), state


def make_decoder(vocabulary: int, length: int, latents: int, config: SequenceConfig) -> TextDecoder:
    """Returns the decoder that the options choose."""
    if config.decoder == "transformer":
        return TransformerDecoder(vocabulary, length, latents, config)
    return RecurrentDecoder(vocabulary, latents, config.decoder, config)
