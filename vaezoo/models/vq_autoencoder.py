"""The autoencoder of VQGAN (Esser et al. 2021, arXiv 2012.09841): a grid of codes of images of free size.

Encoder and decoder are those of latent diffusion, which took them from VQGAN and also uses this model. The architecture
and the names of the parameters are those of diffusers' VQModel, so that its weights can be imported. Only the codebook
has another name here. Pixels lie between -1 and 1 in the networks; see `vaezoo.nn.latent_diffusion`.

Training minimises the negative log-likelihood and the losses of the codebook. `objective=latent-diffusion` adds the
perceptual and adversarial losses of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from torch import Tensor, nn

from vaezoo.core.option_values import PartOf
from vaezoo.data.base import Split
from vaezoo.data.spec import DataSpec
from vaezoo.nn.codes import CODE_FORMULAS, GridVAE
from vaezoo.nn.free_sizes import check_images, check_latent_scaling, check_sides, free_shapes
from vaezoo.nn.latent_diffusion import (
    Decoder,
    Encoder,
    LatentDiffusionConfig,
    init_signed_bias,
    require_objective,
    signed_features,
    unsigned_params,
)
from vaezoo.nn.quantizers.base import QuantizerPart
from vaezoo.nn.quantizers.vq import VQPart
from vaezoo.objectives.base import Objective, ObjectivePart
from vaezoo.objectives.vq import VQLossPart
from vaezoo.spec import ModelSpec

OBJECTIVES = ("vq", "latent-diffusion")


@dataclass(frozen=True, kw_only=True)
class Config(LatentDiffusionConfig):
    """The options of vq-autoencoder.

    Attributes:
        latent_channels: Channels behind the encoder and before the decoder. Between them the quantizer has its own.
        quantizer: How features become codes.
        objective: What training minimises: vq, or latent-diffusion for the losses of VQGAN.
        scaling_factor: Latent diffusion multiplies the features by it. Nothing here does.

    Raises:
        VaezooError: If a value is out of range, the groups do not divide the channels, or the objective is another one.
    """

    latent_channels: int = 16
    quantizer: Annotated[object, PartOf("vaezoo.quantizers")] = VQPart(code_dim=8)
    objective: Annotated[object, PartOf("vaezoo.objectives")] = VQLossPart()
    scaling_factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_objective("vq-autoencoder", self.objective, OBJECTIVES)
        check_latent_scaling(self.scaling_factor, 0.0)


class VQAutoencoder(GridVAE):
    """An autoencoder with a grid of codes. It takes any image whose sides are multiples of `config.factor`.

    `latent_shape` and samples have the size of the data. `encode` and `decode` take other sizes too.

    Args:
        config: The options.
        data: The images to model.

    Attributes:
        factor: How many times larger the sides of images are than those of the grid.
        scaling_factor: As in Config.

    Raises:
        UnsupportedDataError: If the data are not such images.
    """

    def __init__(self, config: Config, data: DataSpec) -> None:
        check_images(data, config.factor, "vq-autoencoder")
        channels, height, width = data.shape
        part = cast("QuantizerPart", config.quantizer)
        super().__init__(data, part, (height // config.factor, width // config.factor))
        self.factor, self.scaling_factor = config.factor, config.scaling_factor
        self.encoder = Encoder(config, channels, config.latent_channels)
        self.quant_conv = nn.Conv2d(config.latent_channels, part.dim, 1)
        self.codebook = part.build()
        self.post_quant_conv = nn.Conv2d(part.dim, config.latent_channels, 1)
        self.decoder = Decoder(config, data.params_shape[0])

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Overridden: height and width are free."""
        return free_shapes(self.data.shape, self.factor)

    def inference_parameters(self) -> list[nn.Parameter]:
        """Overridden: q(z|x) has a convolution behind the encoder."""
        return [*self.encoder.parameters(), *self.quant_conv.parameters()]

    def init_from_data(self, train: Split) -> None:
        """Overridden: initialises the decoder's output bias, and the codebook with features of the data."""
        init_signed_bias(self, self.decoder.conv_out, train)
        self.init_codebook(train)

    def grid_features(self, x: Tensor) -> Tensor:
        check_sides(x.shape[2:], self.factor)
        features: Tensor = self.quant_conv(self.encoder(signed_features(self.data, x)))
        return features

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        return unsigned_params(self, self.decoder(self.post_quant_conv(vectors)))


def objective(config: Config, data: DataSpec) -> Objective:
    """Returns the objective."""
    return cast("ObjectivePart", config.objective).build(data, (config.latent_channels,))


SPEC = ModelSpec(
    config=Config(),
    build=VQAutoencoder,
    objective=objective,
    summary="A grid of discrete codes for images of free height and width, the autoencoder of VQGAN",
    reference="Esser et al. 2021, arXiv 2012.09841",
    parts={"posterior": "codes", "prior": "uniform codes"},
    formulas=CODE_FORMULAS,
)
