"""The sentence VAE: a VAE of texts whose decoder sees the ids before (Bowman et al. 2016, arXiv 1511.06349).

Encoder and decoder of the paper are LSTMs. Here the encoder is a small transformer, and so is the decoder by default.
`-o decoder=gru` and `-o decoder=lstm` make it recurrent.

A decoder that sees the ids before can do without z. Four remedies are here. Word dropout hides some of these ids in
training, and `--kl-warmup` begins with a small weight of the KL, as in the paper. `--free-bits` grants each latent some
information, and `-o decoder_window=K` lets the decoder see the last K ids alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from vaezoo.composition import ComposedConfig, Parts, check_parts, composed_objective
from vaezoo.core.tokenizer import end_id
from vaezoo.data.base import LABELS_HINT, Batch, given
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.nn.labels import with_labels
from vaezoo.nn.mlp import unflatten
from vaezoo.nn.sequence import RecurrentDecoder, SequenceConfig, TextEncoder, make_decoder
from vaezoo.objectives.base import Objective
from vaezoo.posteriors.base import Head, Posterior
from vaezoo.priors.base import Autoregressive
from vaezoo.spec import ModelSpec
from vaezoo.vae import VAE, Graph


@dataclass(frozen=True, kw_only=True)
class Config(Parts, SequenceConfig):
    """The options of sentence-vae."""


class SentenceVAE(VAE):
    """A VAE of token ids `(B, T)`. A text ends with the id 1 if its symbol is a line break. Padding follows the end.

    Args:
        config: The options.
        data: The data to model.
        head: The last part of the encoder.
        classes: How many values each label has that encoder and decoder are given. Empty: they are given none.
        latent_scale: As `PosteriorPart.decoder_scale`.
    """

    decoder_inputs: tuple[str, ...] = ("x",)

    def __init__(
        self, config: Config, data: DataSpec, head: Head, classes: tuple[int, ...], latent_scale: float = 1.0
    ) -> None:
        super().__init__(data, (config.latent_dim,))
        (length,), vocabulary = data.shape, data.vocabulary
        self.classes = classes
        self.latent_scale = latent_scale
        if classes:
            self.encoder_inputs = self.decoder_inputs = ("x", "y")
        self.encoder = TextEncoder(vocabulary, length, config.hidden, config.layers)
        self.features = nn.Sequential(
            nn.Linear(config.hidden + sum(classes), math.prod(head.inputs)), *unflatten(head.inputs)
        )
        self.head = head
        self.decoder = make_decoder(vocabulary, length, config.latent_dim + sum(classes), config)
        self.autoregressive = Autoregressive(length, end_id(data.symbols))
        if isinstance(self.decoder, RecurrentDecoder) and not config.decoder_window:
            start, size = self.decoder.start_id, self.decoder.recurrent.state_size
            self.autoregressive = self.autoregressive._replace(start_id=start, state_size=size)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Overridden: texts may be shorter than those of the data, down to a single id."""
        (length,) = self.data.shape
        return tuple(dict.fromkeys(((length,), (max(1, length // 2),), (1,))))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Posterior:
        posterior: Posterior = self.head(self.features(with_labels(self.encoder(x), y, self.classes)))
        return posterior

    def decode(self, z: Tensor, x: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Returns the logits of each id given the ids before it, `(B, T, vocabulary)`, for ids `(B, T)`."""
        z = z if self.latent_scale == 1 else self.latent_scale * z
        logits: Tensor = self.decoder(with_labels(z, y, self.classes), x)
        return logits

    def step(self, before: Tensor, state: Tensor, z: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Returns the logits of the next id and the states behind it; see `RecurrentDecoder.step`."""
        decoder = cast("RecurrentDecoder", self.decoder)
        z = z if self.latent_scale == 1 else self.latent_scale * z
        logits, state = decoder.step(with_labels(z, y, self.classes), before, state)
        return {"logits": logits, "state": state}

    def graphs(self) -> dict[str, Graph]:
        """Overridden: a recurrent decoder has a graph of a single step, so that a text takes one step for each id.

        The graph `greedy` repeats it, and gives whole texts.
        """
        graphs = super().graphs()
        if self.autoregressive is None or self.autoregressive.start_id is None:
            return graphs
        start_id, size = self.autoregressive.start_id, self.autoregressive.state_size
        labels = self.decoder_inputs[1:]

        def inputs(batch: Batch, before: Tensor) -> tuple[Tensor, ...]:
            z = self.infer(batch).mode()
            state = torch.tanh(z[:, :1].repeat(1, size) + torch.linspace(-1, 1, size, device=z.device))
            return before, state, z, *given(labels, batch)

        return graphs | {
            "step": Graph(
                ("id", "state", "z", *labels),
                self.step,
                lambda batch: inputs(batch, batch.x[:, 0]),
                (lambda batch: inputs(batch, torch.full_like(batch.x[:, 0], start_id)),),
            ),
            "greedy": Graph(
                ("z", *labels),
                lambda z, y=None: {"x": self.point_estimate(z, Batch(z, y))},
                lambda batch: (self.infer(batch).mode(), *given(labels, batch)),
                repeats="step",
            ),
        }

    def inference_parameters(self) -> list[nn.Parameter]:
        """Overridden: the layer between encoder and head is among them."""
        return [*super().inference_parameters(), *self.features.parameters()]


def build(config: Config, data: DataSpec) -> SentenceVAE:
    """Builds the model.

    Raises:
        UnsupportedDataError: If the data are not texts, or labels are asked for and there are none.
        VaezooError: If two of the parts cannot be combined.
    """
    if data.kind != "tokens" or len(data.shape) != 1:
        raise UnsupportedDataError(
            f"data set '{data.name}' is of kind {data.kind} and shape {data.shape}, but sentence-vae needs texts",
            "give tokens of shape (length,), such as --data names, or use mlp-vae",
        )
    if config.condition == "inferred":
        raise VaezooError("condition=inferred does not go together with sentence-vae", "use condition=labels")
    if config.condition == "labels" and not data.classes:
        raise UnsupportedDataError(f"data set '{data.name}' has no labels 0, 1, 2 ...", LABELS_HINT)
    posterior, prior, _ = check_parts(cast("ComposedConfig", config))
    if posterior.follows_joint:
        raise VaezooError(
            f"posterior={posterior.part} takes gradients of the decoder, which sentence-vae does not give",
            "use another posterior, or mlp-vae",
        )
    head, scale = posterior.head((config.latent_dim,)), posterior.decoder_scale((config.latent_dim,))
    vae = SentenceVAE(config, data, head, data.classes if config.condition == "labels" else (), scale)
    vae.prior = prior.build(vae)
    return vae


def objective(config: Config, data: DataSpec) -> Objective:
    """Returns the objective. Raises as `build` does."""
    return composed_objective(cast("ComposedConfig", config), data)


SPEC = ModelSpec(
    config=Config(),
    build=build,
    objective=objective,
    summary="Transformer encoder and a transformer, GRU or LSTM that sees the ids before, for texts",
    reference="Bowman et al. 2016, arXiv 1511.06349",
)
