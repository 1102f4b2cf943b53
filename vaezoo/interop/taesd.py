"""The files of TAESD's program: an encoder and a decoder, each the weights of an `nn.Sequential`.

They have no config. The layers are counted from the names. The weights get the names of diffusers' AutoencoderTiny,
whose decoder does not count the first layer, which has no weights.
"""

from __future__ import annotations

from pathlib import Path

from vaezoo.errors import InputError, safe_repr
from vaezoo.interop.base import check_layers
from vaezoo.interop.weights import Shapes

MODEL = "tiny-autoencoder"
SHIFT = {"encoder": 0, "decoder": 1}  # of the numbers of layers, against AutoencoderTiny
HINT = "give the encoder and the decoder of one model of TAESD's kind"


def find_files(folder: Path) -> dict[str, Path]:
    """Returns the files of encoder and decoder in a folder, by these names. Empty if there are none."""
    found = {part: sorted(folder.glob(f"*{part}.safetensors")) for part in SHIFT}
    return {part: files[0] for part, files in found.items()} if all(len(f) == 1 for f in found.values()) else {}


def lone_file(folder: Path) -> str:
    """Returns the name of the file that a folder lacks, if it holds one of encoder and decoder alone. Otherwise ""."""
    there = {part: any(folder.glob(f"*{part}.safetensors")) for part in SHIFT}
    missing = [part for part, found in there.items() if not found]
    return f"{missing[0]}.safetensors" if len(missing) == 1 else ""


def rename(part: str, weight: str) -> str:
    """Returns the name that a weight has in the model.

    Raises:
        InputError: If the name does not begin with the number of a layer.
    """
    number, _, rest = weight.partition(".")
    if not number.isdecimal() or len(number) > 4:
        raise InputError(f"the weight {safe_repr(weight)} of the {part} has no number of a layer", HINT)
    return f"{part}.layers.{int(number) - SHIFT[part]}.{rest}"


def read_options(encoder: Shapes) -> tuple[dict[str, object], int]:
    """Returns the options of the model, and the channels of its images. The check of all names and shapes follows.

    Args:
        encoder: The shapes of the encoder's weights, by their names in the model.

    Raises:
        InputError: If the layers are not those of TAESD's encoder.
    """
    layers: dict[int, str] = {}
    for name in encoder:
        number, _, rest = name.removeprefix("encoder.layers.").partition(".")
        layers[int(number)] = "block" if rest.startswith(("conv.", "pool.")) else "convolution"
    order = [layers[number] for number in sorted(layers)]
    if order[:1] != ["convolution"] or order[-1] != "convolution" or len(order) < 3:
        raise InputError("the layers of the encoder are not those of TAESD", HINT)
    blocks: list[int] = []
    for layer in order[:-1]:
        if layer == "convolution":
            blocks.append(0)
        else:
            blocks[-1] += 1
    check_layers("blocks", *blocks)
    first, last = (encoder.get(f"encoder.layers.{layer}.weight", ()) for layer in (0, max(layers)))
    if len(first) != 4 or len(last) != 4 or not first[1]:
        raise InputError("the encoder does not begin and end with convolutions", HINT)
    options = {
        "channels": first[0],
        "blocks": blocks,
        "latent_channels": last[0],
        "latent_norm": any(".pool." in name for name in encoder),
    }
    return options, first[1]
