"""Models that are composed of parts: a family of networks, with any posterior, prior and objective.

A named model chooses defaults: `composed(MLPParts(prior=...), ...)` is its ModelSpec. Users choose other parts with
options, such as `-o prior=vamp -o prior.components=500`. Packages add parts through the entry-point groups
`vaezoo.posteriors`, `vaezoo.priors` and `vaezoo.objectives`, and families of networks as models of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, TypeVar, cast

from torch import Tensor, nn

from vaezoo.core.option_values import PartOf
from vaezoo.core.precision import to_float32
from vaezoo.data.base import LABELS_HINT, Batch, Split, given
from vaezoo.data.spec import DataSpec
from vaezoo.errors import PluginError, UnsupportedDataError, VaezooError, format_error
from vaezoo.gaussian_vae import init_output_bias
from vaezoo.nn.conv import ConvConfig
from vaezoo.nn.conv1d import Conv1dConfig
from vaezoo.nn.labels import InferredLabelVAE, with_labels
from vaezoo.nn.mlp import MLPConfig
from vaezoo.objectives.base import Objective, ObjectivePart, check_batch_prior, check_no_codes
from vaezoo.objectives.elbo import ELBOPart
from vaezoo.posteriors.base import Density, Head, Posterior, PosteriorPart, Shape
from vaezoo.posteriors.gaussian import DiagonalGaussianPart
from vaezoo.priors.base import PriorPart
from vaezoo.priors.standard_normal import StandardNormalPart
from vaezoo.spec import ModelSpec, no_data_defaults
from vaezoo.vae import VAE

DENSITIES: tuple[Density, ...] = ("none", "of draws", "everywhere")  # each includes the ones before


class Family(Protocol):
    """A family of networks: a config that makes an encoder and a decoder between shapes."""

    @property
    def latent_dim(self) -> int:
        """Number of latent dimensions."""

    def input_shape(self, data: DataSpec) -> Shape:
        """Returns the shape in which the encoder takes the features of one example."""

    def make_encoder(self, data: DataSpec, inputs: Shape, outputs: Shape) -> nn.Module:
        """Returns a network from features `(B, *inputs)` to `(B, *outputs)`."""

    def make_decoder(self, data: DataSpec, inputs: Shape, outputs: Shape) -> nn.Module:
        """Returns a network from latents `(B, *inputs)` to the parameters of p(x|z), `(B, *outputs)`."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The options that all composed models have.

    Attributes:
        posterior: The family of q(z|x).
        prior: The family of p(z).
        objective: What training minimises.
        condition: What encoder and decoder are given besides: nothing, the labels, or labels that the model infers.
    """

    posterior: Annotated[object, PartOf("vaezoo.posteriors")] = DiagonalGaussianPart()
    prior: Annotated[object, PartOf("vaezoo.priors")] = StandardNormalPart()
    objective: Annotated[object, PartOf("vaezoo.objectives")] = ELBOPart()
    condition: Literal["none", "labels", "inferred"] = "none"


class ComposedVAE(VAE):
    """An encoder, a head that makes q(z|x) from its output, and a decoder.

    Args:
        data: The data to model.
        latent_shape: Shape of one latent z.
        input_shape: Shape in which the encoder takes the features of one example.
        encoder: From features, and labels, to the inputs of the head.
        head: From there to q(z|x).
        decoder: From z, and labels, to the parameters of p(x|z).
        classes: How many values each label has that encoder and decoder are given. Empty: they are given none.
        latent_scale: As `PosteriorPart.decoder_scale`.
    """

    def __init__(
        self,
        data: DataSpec,
        latent_shape: Shape,
        input_shape: Shape,
        encoder: nn.Module,
        head: Head,
        decoder: nn.Module,
        classes: tuple[int, ...] = (),
        latent_scale: float = 1.0,
    ) -> None:
        super().__init__(data, latent_shape)
        self.input_shape = input_shape
        self.encoder = encoder
        self.head = head
        self.left_out = head.left_out
        self.decoder = decoder
        self.classes = classes
        self.latent_scale = latent_scale
        if classes:
            self.encoder_inputs, self.decoder_inputs = ("x", "y"), ("y",)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Posterior:
        features = self.features(x).reshape(-1, *self.input_shape)
        posterior: Posterior = self.head(self.encoder(with_labels(features, y, self.classes)))
        return posterior

    def features(self, x: Tensor) -> Tensor:
        """Returns examples as the encoder takes them, `(B, ...)`, floats."""
        return self.data.features(x)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        params: Tensor = self.decoder(self.decoder_input(z, y))
        return params

    def decoder_input(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Returns latents and labels as the decoder takes them."""
        z = z if self.latent_scale == 1 else self.latent_scale * z
        return with_labels(z, y, self.classes)

    def infer(self, batch: Batch) -> Posterior:
        """Overridden: q(z|x) may follow p(x, z), which `encode`, a function of x alone, does not know."""
        return self.head.follow(super().infer(batch), self, *batch)

    def log_joint(self, z: Tensor, x: Tensor, y: Tensor | None) -> Tensor:
        batch = Batch(x, y)
        params = to_float32(self.generate(z, batch))
        return self.likelihood.log_prob(params, x) + self.prior.log_prob(z, *given(self.prior.inputs, batch))

    def init_from_data(self, train: Split) -> None:
        """Overridden: initialises the decoder's output bias, as GaussianVAE does."""
        init_output_bias(self.decoder, self.likelihood, train)


class ComposedConfig(Family, Protocol):
    """The config of a composed model: that of a family, and `Parts`."""

    @property
    def posterior(self) -> object: ...
    @property
    def prior(self) -> object: ...
    @property
    def objective(self) -> object: ...
    @property
    def condition(self) -> str: ...


ConfigT = TypeVar("ConfigT", bound=ComposedConfig)


def compose(
    config: ComposedConfig, data: DataSpec, vae_class: type[ComposedVAE] = ComposedVAE
) -> ComposedVAE | InferredLabelVAE:
    """Builds a composed model.

    Args:
        config: Its options.
        data: The data to model.
        vae_class: Class of the model, unless it infers labels.

    Raises:
        UnsupportedDataError: If the networks do not support the data, or labels are asked for and there are none.
        VaezooError: If two of the parts cannot be combined.
    """
    posterior, prior, _ = check_parts(config)
    if config.condition != "none" and not data.classes:
        raise UnsupportedDataError(f"data set '{data.name}' has no labels 0, 1, 2 ...", LABELS_HINT)
    if config.condition == "inferred" and len(data.classes) > 1:
        raise UnsupportedDataError("condition=inferred needs data with one label per example", "use condition=labels")
    classes = data.classes if config.condition != "none" else ()
    latent_shape = (config.latent_dim,)
    with part_errors(f"posterior={posterior.part}"):
        head, latent_scale = posterior.head(latent_shape), posterior.decoder_scale(latent_shape)
        outputs = head.inputs
    input_shape = config.input_shape(data)
    encoder = config.make_encoder(data, wider(input_shape, classes), outputs)
    decoder = config.make_decoder(data, wider(latent_shape, classes), data.params_shape)
    if config.condition == "inferred":
        classifier = config.make_encoder(data, input_shape, classes)
        return InferredLabelVAE(data, config.latent_dim, input_shape, encoder, head, classifier, decoder)
    vae = vae_class(data, latent_shape, input_shape, encoder, head, decoder, classes, latent_scale)
    with part_errors(f"prior={prior.part}"):
        vae.prior = prior.build(vae)
    return vae


@contextmanager
def part_errors(name: str) -> Iterator[None]:
    """Turns unexpected errors of a part, which may be that of a package, into a PluginError that names the part."""
    try:
        yield
    except VaezooError:
        raise
    except Exception as e:
        raise PluginError(f"{name} cannot be built: {format_error(e)}", "fix the part, or choose another one") from e


def wider(shape: Shape, classes: tuple[int, ...]) -> Shape:
    """Returns a shape with room for one-hot labels in its first dimension."""
    return (shape[0] + sum(classes), *shape[1:])


def check_parts(config: ComposedConfig) -> tuple[PosteriorPart, PriorPart, ObjectivePart]:
    """Returns the parts of a config.

    Raises:
        VaezooError: If two of them cannot be combined. The message names both.
    """
    posterior = cast("PosteriorPart", config.posterior)
    prior, objective = cast("PriorPart", config.prior), cast("ObjectivePart", config.objective)
    q, p, loss = f"posterior={posterior.part}", f"prior={prior.part}", f"objective={objective.part}"
    for name, density in ((q, posterior.density), (loss, objective.density)):
        if density not in DENSITIES:
            raise PluginError(f"{name} has density '{density}'", f"declare one of {', '.join(DENSITIES)}")
    if posterior.space != prior.space:
        raise VaezooError(
            f"{q} lies in the space '{posterior.space}', but {p} in '{prior.space}'", "choose two parts of one space"
        )
    for name, needed in ((p, prior.needs_diagonal_gaussian), (loss, objective.needs_diagonal_gaussian)):
        if needed and not posterior.is_diagonal_gaussian:
            raise VaezooError(f"{name} needs posterior=diagonal, not {q}", "change one of the two")
    if objective.permutes_latents and posterior.space != "real":
        raise VaezooError(
            f"{loss} mixes the latents of examples, which leaves the space of {q}",
            "use objective=elbo, or another one",
        )
    check_no_codes(objective)
    check_batch_prior(prior, objective)
    _check_inferred(config.condition, prior, objective)
    if prior.needs_density and posterior.density == "none":
        raise VaezooError(
            f"{p} needs a density of q(z|x), and {q} has none", "use prior=zero-kl, or posterior=diagonal"
        )
    if not prior.needs_density and posterior.density != "none":
        raise VaezooError(
            f"{p} leaves out the KL, but {q} has a density and so a KL", "use prior=normal, or posterior=delta"
        )
    if objective.needs_point and posterior.density != "none":
        raise VaezooError(f"{loss} needs posterior=delta, not {q}", "use both posterior=delta and prior=zero-kl")
    if DENSITIES.index(objective.density) > DENSITIES.index(posterior.density):
        where = "" if objective.density == "of draws" else " at any z"
        raise VaezooError(f"{loss} needs a density of q(z|x){where}, and {q} has none", "change one of the two")
    return posterior, prior, objective


def _check_inferred(condition: str, prior: PriorPart, objective: ObjectivePart) -> None:
    """Raises VaezooError unless the label is inferred by a model that is trained for it, with p(y) p(z)."""
    loss, inferred = f"objective={objective.part}", condition == "inferred"
    if objective.infers_labels and not inferred:
        raise VaezooError(f"{loss} needs condition=inferred, not condition={condition}", "use both, as m2-vae does")
    if inferred and not objective.infers_labels:
        raise VaezooError(f"condition=inferred needs objective=m2, not {loss}", "use both, as m2-vae does")
    if inferred and prior.part != "normal":
        raise VaezooError(f"condition=inferred needs prior=normal, not prior={prior.part}", "change one of the two")


def composed_objective(config: ComposedConfig, data: DataSpec) -> Objective:
    """Builds the objective of a composed model."""
    objective = check_parts(config)[2]
    with part_errors(f"objective={objective.part}"):
        return objective.build(data, (config.latent_dim,))


def composed(
    config: ConfigT,
    summary: str,
    reference: str,
    data_defaults: Callable[[DataSpec], Mapping[str, object]] = no_data_defaults,
    build: Callable[[ConfigT, DataSpec], VAE] = compose,
) -> ModelSpec[ConfigT]:
    """Returns the ModelSpec of a composed model."""
    return ModelSpec(
        config=config,
        build=build,
        objective=composed_objective,
        summary=summary,
        reference=reference,
        data_defaults=data_defaults,
    )


@dataclass(frozen=True, kw_only=True)
class MLPParts(Parts, MLPConfig):
    """The options of a composed model of dense layers."""


@dataclass(frozen=True, kw_only=True)
class ConvParts(Parts, ConvConfig):
    """The options of a composed convolutional model."""


@dataclass(frozen=True, kw_only=True)
class Conv1dParts(Parts, Conv1dConfig):
    """The options of a composed model of convolutions over time."""
