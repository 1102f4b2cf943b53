"""The table of plot kinds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vaezoo.core.counts import whole_number
from vaezoo.errors import VaezooError, safe_repr, suggest
from vaezoo.plots.charts import latents, learning_curves
from vaezoo.plots.examples import reconstructions, samples
from vaezoo.plots.latent_space import attribute_vector, interpolation, manifold, traversals
from vaezoo.plots.loaded_model import from_run
from vaezoo.plots.output import PlotResult, output_suffixes
from vaezoo.plots.request import PlotRequest

if TYPE_CHECKING:
    from vaezoo import Run
    from vaezoo.core.coordinates import Resolution


@dataclass(frozen=True)
class PlotKind:
    """A kind of plot.

    Attributes:
        draw: The function that draws it.
        options: Names of the command's parameters that it uses.
        count: Default of -n.
        max_count: Maximum of -n.
        suffixes: Suffixes of the files that are written without --out.
        takes_exports: Whether it can draw an export.
    """

    draw: Callable[[PlotRequest], PlotResult]
    options: frozenset[str]
    count: int = 0
    max_count: int = 10_000
    suffixes: tuple[str, ...] = (".png",)
    takes_exports: bool = False


MODEL = frozenset({"checkpoint"})
DATA = MODEL | {
    "data",
    "text",
    "part",
    "data_dir",
    "stream",
    "on_bad_image",
    "stride",
    "label_pattern",
    "column",
    "on_long_text",
}
KINDS: Mapping[str, PlotKind] = {
    "samples": PlotKind(samples, MODEL | {"count", "seed", "resolution"}, count=64, takes_exports=True),
    "reconstructions": PlotKind(reconstructions, DATA | {"count", "resolution"}, count=32, takes_exports=True),
    "traversals": PlotKind(
        traversals, DATA | {"count", "seed", "dims"}, count=9, max_count=100, suffixes=(".png", ".gif")
    ),
    "interpolation": PlotKind(
        interpolation, DATA | {"count", "seed", "resolution"}, count=8, max_count=100, suffixes=(".png", ".txt")
    ),
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


def check_count(kind: str, count: int) -> None:
    """Raises VaezooError if a kind of plot does not take so many images or examples."""
    if not 1 <= count <= KINDS[kind].max_count:
        size = "small" if count < 1 else "large"
        raise VaezooError(f"-n {count} is too {size} for {kind}", f"give 1 to {KINDS[kind].max_count}")


def draw(kind: str, run: Run, out: str | os.PathLike[str] | None, values: Mapping[str, object]) -> list[Path]:
    """Draws a plot of a loaded run and returns the files; `Run.plot` describes the arguments.

    Args:
        kind: The kind of plot.
        run: The run.
        out: The file, or None for the default.
        values: Argument -> value, for those that were given.
    """
    from vaezoo.core.coordinates import parse_resolution
    from vaezoo.examples import load_examples  # needs torch, and the table of kinds does not

    plot_kind = find_kind(kind)
    for name in sorted(values.keys() - plot_kind.options):
        raise VaezooError(f"{name} has no effect on {kind}", f"leave out {name}")
    count = whole_number("count", values.get("count", plot_kind.count))
    if plot_kind.count:
        check_count(kind, count)
    dims, label, factor = (values.get(name) for name in ("dims", "label", "factor"))
    if not isinstance(dims, Sequence | None) or isinstance(dims, str):
        raise VaezooError(f"dims is {safe_repr(dims)}, not a list", "for example dims=[0, 3]")
    target, resolution = None if out is None else os.fspath(out), values.get("resolution")
    request = PlotRequest(
        model=from_run(run),
        load_examples=lambda: load_examples(run),
        count=count,
        seed=whole_number("seed", values.get("seed", 0)),
        dims=None if dims is None else [whole_number("a latent dimension", dim) for dim in dims],
        label=None if label is None else str(label),
        factor=None if factor is None else whole_number("factor", factor),
        suffixes=output_suffixes(target, plot_kind.suffixes),
        resolution=None if resolution is None else parse_resolution(cast("Resolution", resolution)),
    )
    return plot_kind.draw(request).save(kind, target)
