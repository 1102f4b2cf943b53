"""AutoencoderDC of diffusers: which option of autoencoder-dc each of its settings is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from vaezoo.errors import InputError, safe_repr
from vaezoo.interop.base import CONFIG, MAX_LAYERS, Format, Settings, as_list
from vaezoo.nn.deep_compression import spread

BLOCKS = {"ResBlock": "residual", "EfficientViTBlock": "efficient-vit"}
NORMS = {"rms_norm": "rms", "batch_norm": "batch"}
ACTIVATIONS = {"silu": "silu", "swish": "silu", "relu": "relu", "gelu": "gelu", "mish": "mish"}
DOWNSAMPLING = {"pixel_unshuffle": "pixel-unshuffle", "Conv": "conv", "conv": "conv"}
UPSAMPLING = {"pixel_shuffle": "pixel-shuffle", "interpolate": "interpolate"}

# Settings with one word, or one for each resolution -> the option, and what the words are there.
WORDS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "encoder_block_types": ("blocks", BLOCKS),
    "decoder_block_types": ("decoder_blocks", BLOCKS),
    "decoder_norm_types": ("decoder_norms", NORMS),
    "decoder_act_fns": ("decoder_activations", ACTIVATIONS),
}
SINGLE_WORDS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "decoder_conv_act_fn": ("output_activation", ACTIVATIONS),
    "downsample_block_type": ("downsample", DOWNSAMPLING),
    "upsample_block_type": ("upsample", UPSAMPLING),
}
SCALES = {"encoder_qkv_multiscales": "scales", "decoder_qkv_multiscales": "decoder_scales"}
NUMBERS = {
    "encoder_block_out_channels": "channels",
    "decoder_block_out_channels": "decoder_channels",
    "encoder_layers_per_block": "layers",
    "decoder_layers_per_block": "decoder_layers",
}
OF_ENCODER = {name: name.removeprefix("decoder_") for name in (*NUMBERS.values(), *SCALES.values(), "decoder_blocks")}


class AutoencoderDC(Format):
    """The autoencoder of SANA, and those of the paper."""

    name = "AutoencoderDC"
    model = "autoencoder-dc"
    defaults: ClassVar[Settings] = {
        "in_channels": 3,
        "latent_channels": 32,
        "attention_head_dim": 32,
        "encoder_block_types": "ResBlock",
        "decoder_block_types": "ResBlock",
        "encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
        "decoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
        "encoder_layers_per_block": [2, 2, 2, 3, 3, 3],
        "decoder_layers_per_block": [3, 3, 3, 3, 3, 3],
        "encoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
        "decoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
        "upsample_block_type": "pixel_shuffle",
        "downsample_block_type": "pixel_unshuffle",
        "decoder_norm_types": "rms_norm",
        "decoder_act_fns": "silu",
        "encoder_out_shortcut": True,
        "decoder_in_shortcut": True,
        "decoder_conv_act_fn": "relu",
        "scaling_factor": 1.0,
    }
    options: ClassVar[Mapping[str, str]] = {
        "latent_channels": "latent_channels",
        "attention_head_dim": "head_dim",
        "encoder_out_shortcut": "encoder_shortcut",
        "decoder_in_shortcut": "decoder_shortcut",
        "scaling_factor": "scaling_factor",
    }
    fixed: ClassVar[Mapping[str, Sequence[object]]] = {}
    kept = (*WORDS, *SINGLE_WORDS, *SCALES)  # they have several forms

    def read_layers(self, settings: Settings) -> dict[str, object]:
        count = len(as_list(settings, "encoder_block_out_channels"))
        numbers = {option: checked_list(settings, name, count) for name, option in NUMBERS.items()}
        for name in ("encoder_layers_per_block", "decoder_layers_per_block"):
            check_counts(name, numbers[NUMBERS[name]])
        words = {
            option: [self.word(settings, name, word, known) for word in checked_list(settings, name, count)]
            for name, (option, known) in WORDS.items()
        }
        single = {
            option: self.word(settings, name, settings[name], known) for name, (option, known) in SINGLE_WORDS.items()
        }
        scales = {
            option: [scale_text(name, sizes) for sizes in checked_list(settings, name, count)]
            for name, option in SCALES.items()
        }
        return {**numbers, **words, **single, **scales}

    def word(self, settings: Settings, name: str, word: object, known: Mapping[str, str]) -> str:
        """Returns what a word of a setting is in the model. Raises InputError if it has none."""
        if not isinstance(word, str) or word not in known:
            self.require({**settings, name: word}, name, *known)
        return known[str(word)]

    def write_layers(self, options: Mapping[str, object], size: int) -> dict[str, object]:
        count = len(as_list(options, "channels"))

        def values(option: str) -> list[object]:
            given = options[option] or options[OF_ENCODER[option]]
            assert isinstance(given, list)
            return spread(option, given, count)

        words = {
            name: [their_word(value, known) for value in values(option)] for name, (option, known) in WORDS.items()
        }
        single = {name: their_word(options[option], known) for name, (option, known) in SINGLE_WORDS.items()}
        scales = {name: [scale_sizes(text) for text in values(option)] for name, option in SCALES.items()}
        return {**{name: values(option) for name, option in NUMBERS.items()}, **words, **single, **scales}


def checked_list(settings: Settings, name: str, count: int) -> list[object]:
    """Returns the values of a setting at all resolutions. One word counts for all.

    Raises:
        InputError: If their number is another one.
    """
    value = settings[name]
    values: list[object] = [value] * count if isinstance(value, str) else as_list(settings, name)
    if len(values) != count:
        raise InputError(f"'{name}' has {len(values)} values for {count} resolutions", f"correct {CONFIG}")
    return values


def check_counts(name: str, counts: Sequence[object]) -> None:
    """Raises InputError unless these are numbers of blocks. The first resolution may have none."""
    for count in counts:
        if type(count) is not int or not 0 <= count <= MAX_LAYERS:
            raise InputError(f"'{name}' is {safe_repr(count)}, not 0 to {MAX_LAYERS} layers", f"correct {CONFIG}")


def scale_text(name: str, sizes: object) -> str:
    """Returns an option's text for a list of kernel sizes. Raises InputError if it is none."""
    if not isinstance(sizes, list) or not all(type(size) is int for size in sizes):
        raise InputError(f"'{name}' has {safe_repr(sizes)}, not a list of numbers", f"correct {CONFIG}")
    return "+".join(map(str, sizes)) or "none"


def scale_sizes(text: object) -> list[int]:
    """Returns the kernel sizes of an option's text, as `scale_text` made it."""
    return [] if text == "none" else [int(size) for size in str(text).split("+")]


def their_word(value: object, known: Mapping[str, str]) -> str:
    """Returns the word of a setting for the value of an option: the first that means it."""
    return next(word for word, ours in known.items() if ours == value)
