"""The table of plot kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vaezoo.errors import VaezooError, suggest
from vaezoo_cli.plots.charts import latents, learning_curves
from vaezoo_cli.plots.examples import reconstructions, samples
from vaezoo_cli.plots.latent_space import attribute_vector, interpolation, manifold, traversals
from vaezoo_cli.plots.request import PlotRequest, PlotResult


@dataclass(frozen=True)
class PlotKind:
    """A kind of plot.

    Attributes:
        draw: The function that draws it.
        options: Names of the command's parameters that it uses.
        count: Default of -n.
        max_count: Maximum of -n.
        suffixes: Suffixes of the files that are written without --out.
    """

    draw: Callable[[PlotRequest], PlotResult]
    options: frozenset[str]
    count: int = 0
    max_count: int = 10_000
    suffixes: tuple[str, ...] = (".png",)


MODEL = frozenset({"checkpoint"})
DATA = frozenset({"data", "data_dir", "image_size", "stream", "on_bad_image"}) | MODEL
KINDS: Mapping[str, PlotKind] = {
    "samples": PlotKind(samples, MODEL | {"count", "seed"}, count=64),
    "reconstructions": PlotKind(reconstructions, DATA | {"count"}, count=32),
    "traversals": PlotKind(
        traversals, DATA | {"count", "seed", "dims"}, count=9, max_count=100, suffixes=(".png", ".gif")
    ),
    "interpolation": PlotKind(interpolation, DATA | {"count", "seed"}, count=8, max_count=100),
    "manifold": PlotKind(manifold, MODEL | {"count"}, count=15, max_count=100),
    "latents": PlotKind(latents, DATA | {"count", "factor"}, count=2_000),
    "learning-curves": PlotKind(learning_curves, frozenset()),
    "attribute-vector": PlotKind(attribute_vector, DATA | {"count", "seed", "label", "factor"}, count=8, max_count=100),
}


def find_kind(name: str) -> PlotKind:
    """Returns the kind of plot of a name.

    Raises:
        VaezooError: If there is none.
    """
    if name not in KINDS:
        raise VaezooError(f"no plot kind named '{name}'", suggest(name, KINDS, f"use {', '.join(KINDS)}"))
    return KINDS[name]
