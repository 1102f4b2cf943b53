"""The output of `vaezoo import`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from vaezoo_cli.render.console import OUT

if TYPE_CHECKING:
    from vaezoo import Run


def render_imported(run: Run) -> None:
    """Prints what was imported, the written folder and the next commands."""
    assert run.imported is not None
    count = sum(parameter.numel() for parameter in run.vae.parameters())
    images, latents = ("x".join(map(str, shape)) for shape in (run.data.shape, run.vae.latent_shape))
    OUT.print(f"{run.imported['class']} as {run.model}: {count:,} parameters, images {images}, latents {latents}")
    path, (height, width) = escape(str(run.path)), run.data.shape[1:]
    OUT.print(f"\nwritten  {path}/", soft_wrap=True)
    OUT.print(f"next     vaezoo eval {path} --data PHOTOS --metrics reconstructions", soft_wrap=True)
    OUT.print(f"         vaezoo train --init-from {path} --data PHOTOS --image-size {height}x{width}", soft_wrap=True)
    OUT.print(f"         vaezoo export {path} --onnx", soft_wrap=True)
