"""The deep compression autoencoder, DC-AE (Chen et al. 2024, arXiv 2410.10733): few latents for images of free size.

Shortcuts around each change of the resolution rearrange pixels into channels, and back. So networks learn that halve
the image five times and more. Coarse resolutions have linear attention. The architecture and the names of the
parameters are those of diffusers' AutoencoderDC, so that its weights can be imported. Pixels lie between -1 and 1 in
the networks; see `vaezoo.nn.latent_diffusion`.

It encodes to a point. Training minimises the reconstruction term alone. `objective=latent-diffusion` adds a perceptual
and an adversarial loss, as the paper does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, cast

from torch import Tensor, nn

from vaezoo.core.option_values import PartOf
from vaezoo.core.options import require_positive
from vaezoo.core.precision import to_float32
from vaezoo.data.base import Split
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.nn.deep_compression import (
    BlockType,
    Decoder,
    Encoder,
    Settings,
    Stage,
    check_stages,
    check_unshuffled,
    kernel_sizes,
    spread,
)
from vaezoo.nn.efficient_vit import BlockActivation, Norm
from vaezoo.nn.free_sizes import (
    check_images,
    check_latent_scaling,
    check_sides,
    free_shapes,
    resolutions_that_fit,
)
from vaezoo.nn.latent_diffusion import init_signed_bias, require_objective, signed_features, unsigned_params
from vaezoo.objectives.base import Objective, ObjectivePart
from vaezoo.objectives.elbo import ELBOPart
from vaezoo.posteriors.delta import Delta
from vaezoo.priors.standard_normal import ZeroKLPrior
from vaezoo.spec import ModelSpec
from vaezoo.vae import VAE

OBJECTIVES = ("elbo", "latent-diffusion")
CHANNELS = (32, 64, 128, 128)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of autoencoder-dc.

    Options of each resolution, from fine to coarse, may have fewer values than there are resolutions. The first value
    then counts for the finer ones, too. Those of the decoder are by default those of the encoder.

    Attributes:
        channels: Channels of the encoder at each resolution. n of them divide the sides of images by 2^(n-1).
        layers: Blocks at each resolution of the encoder. The first resolution may have none: the first layer halves.
        blocks: Their type at each resolution: residual, or efficient-vit with linear attention.
        scales: Kernel sizes of the surroundings that attention sees besides each pixel, at each resolution. Several are
            joined by +, as in 3+5. none: it sees pixels alone.
        decoder_channels: As `channels`, of the decoder.
        decoder_layers: As `layers`, of the decoder. Without blocks at the first resolution, the last layer doubles.
        decoder_blocks: As `blocks`, of the decoder.
        decoder_scales: As `scales`, of the decoder.
        decoder_norms: The normalisation at each resolution of the decoder: rms, or batch. The encoder has rms.
        decoder_activations: The activation of residual blocks at each resolution of the decoder: silu, relu, gelu or
            mish. The encoder has silu.
        output_activation: The activation before the decoder's last layer.
        latent_channels: Channels of the latents.
        head_dim: Channels of a head of attention.
        downsample: How the encoder halves an image: by a pixel-unshuffle, or by a conv of stride 2.
        upsample: How the decoder doubles one: by a pixel-shuffle, or interpolate, which repeats pixels.
        encoder_shortcut: Whether means of channels are added to the encoder's output.
        decoder_shortcut: Whether the latents are added to the decoder's first layer, with repeated channels.
        objective: What training minimises: elbo, which is the reconstruction alone, or latent-diffusion.
        scaling_factor: Latent diffusion multiplies the latents by it. Nothing here does.

    Raises:
        VaezooError: If a value is out of range, or layers do not fit each other.
    """

    channels: tuple[int, ...] = CHANNELS
    layers: tuple[int, ...] = (1,)
    blocks: tuple[BlockType, ...] = ("residual", "efficient-vit")
    scales: tuple[str, ...] = ("5",)
    decoder_channels: tuple[int, ...] = ()
    decoder_layers: tuple[int, ...] = ()
    decoder_blocks: tuple[BlockType, ...] = ()
    decoder_scales: tuple[str, ...] = ()
    decoder_norms: tuple[Norm, ...] = ("rms",)
    decoder_activations: tuple[BlockActivation, ...] = ("silu",)
    output_activation: BlockActivation = "relu"
    latent_channels: int = 8
    head_dim: int = 32
    downsample: Literal["pixel-unshuffle", "conv"] = "pixel-unshuffle"
    upsample: Literal["pixel-shuffle", "interpolate"] = "pixel-shuffle"
    encoder_shortcut: bool = True
    decoder_shortcut: bool = True
    objective: Annotated[object, PartOf("vaezoo.objectives")] = ELBOPart()
    scaling_factor: float = 1.0

    def __post_init__(self) -> None:
        for name in ("channels", "decoder_channels"):
            require_positive(name, *getattr(self, name))
        require_positive("latent_channels", self.latent_channels)
        require_positive("head_dim", self.head_dim)
        if not self.channels:
            raise VaezooError("option 'channels' is empty", "give one number for each resolution, such as 32,64,128")
        if self.decoder_channels and len(self.decoder_channels) != len(self.channels):
            what = f"option 'decoder_channels' has {len(self.decoder_channels)} values"
            raise VaezooError(what, f"give {len(self.channels)}, as of 'channels'")
        check_stages("", self.encoder_stages, self.encoder_settings)
        check_stages("decoder_", self.decoder_stages, self.decoder_settings)
        if self.downsample == "pixel-unshuffle":
            check_unshuffled(self.encoder_stages)
        require_objective("autoencoder-dc", self.objective, OBJECTIVES)
        check_latent_scaling(self.scaling_factor, 0.0)

    @property
    def factor(self) -> int:
        """How many times larger the sides of images are than those of their latents."""
        return int(2 ** (len(self.channels) - 1))

    @property
    def encoder_stages(self) -> list[Stage]:
        """The resolutions of the encoder, from fine to coarse."""
        n = len(self.channels)
        layers, blocks = spread("layers", self.layers, n), spread("blocks", self.blocks, n)
        columns = zip(self.channels, layers, blocks, kernel_sizes("scales", self.scales, n), strict=True)
        return [Stage(*values) for values in columns]

    @property
    def decoder_stages(self) -> list[Stage]:
        """The resolutions of the decoder, from fine to coarse."""
        n = len(self.channels)
        columns = zip(
            self.decoder_channels or self.channels,
            spread("decoder_layers", self.decoder_layers or self.layers, n),
            spread("decoder_blocks", self.decoder_blocks or self.blocks, n),
            kernel_sizes("decoder_scales", self.decoder_scales or self.scales, n),
            strict=True,
        )
        norms = spread("decoder_norms", self.decoder_norms, n)
        activations = spread("decoder_activations", self.decoder_activations, n)
        return [
            Stage(*values, norm=norm, activation=activation)
            for values, norm, activation in zip(columns, norms, activations, strict=True)
        ]

    @property
    def encoder_settings(self) -> Settings:
        """The settings of the encoder."""
        unshuffle = self.downsample == "pixel-unshuffle"
        return Settings(self.latent_channels, self.head_dim, unshuffle, self.encoder_shortcut)

    @property
    def decoder_settings(self) -> Settings:
        """The settings of the decoder."""
        shuffle = self.upsample == "pixel-shuffle"
        return Settings(self.latent_channels, self.head_dim, shuffle, self.decoder_shortcut)


class AutoencoderDC(VAE):
    """An autoencoder whose latents are a small image. It takes any image whose sides are multiples of `config.factor`.

    `latent_shape` and samples have the size of the data. `encode` and `decode` take other sizes too.

    Args:
        config: The options.
        data: The images to model.

    Attributes:
        factor: How many times larger the sides of images are than those of their latents.
        scaling_factor: As in Config.

    Raises:
        UnsupportedDataError: If the data are not such images.
    """

    def __init__(self, config: Config, data: DataSpec) -> None:
        check_images(data, config.factor, "autoencoder-dc")
        channels, height, width = data.shape
        latent_shape = (config.latent_channels, height // config.factor, width // config.factor)
        super().__init__(data, latent_shape, ZeroKLPrior(latent_shape))
        self.factor, self.scaling_factor = config.factor, config.scaling_factor
        self.encoder = Encoder(config.encoder_stages, config.encoder_settings, channels)
        outputs, activation = data.params_shape[0], config.output_activation
        self.decoder = Decoder(config.decoder_stages, config.decoder_settings, outputs, activation)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Overridden: height and width are free."""
        return free_shapes(self.data.shape, self.factor)

    def init_from_data(self, train: Split) -> None:
        """Overridden: initialises the decoder's output bias, as GaussianVAE does, unless its last layer is an Up."""
        if isinstance(self.decoder.conv_out, nn.Conv2d):
            init_signed_bias(self, self.decoder.conv_out, train)

    def encode(self, x: Tensor) -> Delta:
        check_sides(x.shape[2:], self.factor)
        return Delta(to_float32(self.encoder(signed_features(self.data, x))))

    def decode(self, z: Tensor) -> Tensor:
        return unsigned_params(self, self.decoder(z))


def data_defaults(data: DataSpec) -> Mapping[str, object]:
    """Returns fewer resolutions for images whose sides cannot be halved so often."""
    levels = resolutions_that_fit(data.shape[1:], len(CHANNELS))
    return {"channels": CHANNELS[:levels]} | ({"blocks": ("efficient-vit",)} if levels == 1 else {})


def objective(config: Config, data: DataSpec) -> Objective:
    """Returns the objective."""
    return cast("ObjectivePart", config.objective).build(data, (config.latent_channels,))


SPEC = ModelSpec(
    config=Config(),
    build=AutoencoderDC,
    objective=objective,
    summary="Deep compression: residual shortcuts and linear attention, for images of free height and width",
    reference="Chen et al. 2024, arXiv 2410.10733",
    data_defaults=data_defaults,
    parts={"posterior": "delta", "prior": "zero-kl"},
)
