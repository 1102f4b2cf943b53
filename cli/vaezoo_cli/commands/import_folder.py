"""vaezoo import FOLDER"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vaezoo_cli.data_options import parse_image_size
from vaezoo_cli.options import json_option, print_json

if TYPE_CHECKING:
    from vaezoo.data.base import ImageSize


@click.command("import", context_settings={"show_default": True})
@click.argument("folder", type=click.Path())
@click.option("--out", type=click.Path(), metavar="FOLDER", help="Run folder.  [default: runs/MODEL-FOLDER-N]")
@click.option(
    "--image-size",
    callback=parse_image_size,
    metavar="N|HxW",
    show_default=False,
    help="The size to which commands resize images for this run.  [default: 64]",
)
@click.option(
    "--likelihood",
    default="gaussian-identity",
    metavar="NAME",
    help="p(x|z) of images: gaussian-identity:SIGMA or laplace-identity:SCALE; see docs/models.md.",
)
@json_option
def import_folder(folder: str, out: str | None, image_size: ImageSize | None, likelihood: str, as_json: bool) -> None:
    """Make a run of an autoencoder of diffusers, or of TAESD's files.

    FOLDER holds config.json and diffusion_pytorch_model.safetensors of an AutoencoderKL, VQModel, AutoencoderTiny or
    AutoencoderDC, or the safetensors files of TAESD's encoder and decoder. Nothing of it is run. All commands take it:

    \b
    vaezoo import FOLDER --out runs/mine
    vaezoo eval runs/mine --data PHOTOS --metrics reconstructions
    vaezoo train --init-from runs/mine --data PHOTOS --image-size 64
    vaezoo export runs/mine --onnx
    vaezoo export runs/mine --format diffusers
    """
    import vaezoo
    from vaezoo_cli.commands.train import summary
    from vaezoo_cli.render.imported import render_imported

    run = vaezoo.import_folder(folder, out, image_size=image_size, likelihood=likelihood)
    if as_json:
        print_json({**summary(run), "imported": run.imported})
    else:
        render_imported(run)
