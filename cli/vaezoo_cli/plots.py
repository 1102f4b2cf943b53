"""The kinds of images that show what a model has learnt, as files in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vaezoo.errors import InputError, VaezooError, one_line
from vaezoo_cli.data_options import DataOptions
from vaezoo_cli.options import find_run, open_run
from vaezoo_cli.render.image_grids import as_bytes, caption, gif, grid_columns, image_grid, interleave_rows, png
from vaezoo_cli.selection import both_sides, known_label, label_column, pick, require_labels
from vaezoo_cli.sources import of_run, open_source, require_images

if TYPE_CHECKING:
    from torch import Tensor

    from vaezoo import Dataset, Run

REACH = 3.0  # standard deviations of the prior that traversals go to
FRAMES = 25  # of an animation, from one end to the other
MOST_ROWS = 100  # of a traversal
STEPS = 9  # of an interpolation
AMOUNTS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # of a concept
LABELLED = 1_000  # examples that have a label, and as many that have not, whose mean codes are taken


@dataclass(frozen=True, kw_only=True)
class PlotRequest:
    """What a user wants drawn; each kind reads what it takes.

    Attributes:
        source: A run folder, a model's name, an export folder, or None for the newest run.
        checkpoint: Which of the run's.
        count: How many; of what, the kind knows.
        data: Which data.
        seed: Determines latents, or which held-out images are taken.
        dims: Latent dimensions.
        label: The label that makes a concept.
        factor: Which of several labels.
        suffixes: Of the files that are wanted.
    """

    source: str | None
    checkpoint: str
    count: int
    data: DataOptions = field(default_factory=DataOptions)
    seed: int = 0
    dims: str | None = None
    label: int | None = None
    factor: int | None = None
    suffixes: tuple[str, ...] = (".png",)

    def open_run(self, *, images: bool = True) -> Run:
        """Opens the run, which an export is not.

        Raises:
            VaezooError: If it is an export, or was trained on something else than images where they are needed.
        """
        self.refuse_export()
        run = open_run(self.source, self.checkpoint)
        if images:
            require_images(run.path, run.data.shape)
        return run

    def refuse_export(self) -> None:
        """Raises VaezooError if the source is an export."""
        from vaezoo.runtime.manifest import is_export

        if self.source is not None and is_export(self.source):
            raise VaezooError(
                f"{self.source} is an export; this is drawn of runs alone", "give the run folder that it was made of"
            )

    def load_data(self, run: Run) -> Dataset:
        """Loads the data; see `DataOptions.load`."""
        return self.data.load(of_run(run))


class PlotResult(NamedTuple):
    """What was drawn.

    Attributes:
        folder: Where the model lies.
        files: Contents by suffix.
    """

    folder: Path
    files: dict[str, bytes]


def samples(asked: PlotRequest) -> PlotResult:
    """Images drawn from the prior."""
    opened = open_source(asked.source, asked.checkpoint)
    grid = image_grid(opened.sample(asked.count, asked.seed), grid_columns(asked.count))
    return PlotResult(opened.folder, {".png": png(grid)})


def reconstructions(asked: PlotRequest) -> PlotResult:
    """Held-out images above their reconstructions."""
    opened = open_source(asked.source, asked.checkpoint)
    originals = asked.data.load(opened).held_out[1].subsample(asked.count).batch(slice(None)).x.numpy()
    columns = grid_columns(2 * len(originals))
    grid = image_grid(interleave_rows(as_bytes(originals), opened.reconstruct(originals), columns), columns)
    return PlotResult(opened.folder, {".png": png(grid)})


def traversals(asked: PlotRequest) -> PlotResult:
    """One held-out image with each latent dimension changed in turn: a row each, or in an animation a cell each."""
    run = asked.open_run()
    dims = parse_dims(asked.dims, run)
    x = pick(asked.load_data(run).held_out[1], 1, asked.seed)[0]
    draw = {".png": traversal_rows, ".gif": traversal_frames}
    return PlotResult(run.path, {suffix: draw[suffix](run, x, dims, asked.count) for suffix in asked.suffixes})


def traversal_rows(run: Run, x: Tensor, dims: list[int], count: int) -> bytes:
    import torch

    from vaezoo.evaluation.latents import traversal

    values = torch.linspace(-REACH, REACH, count)
    images = traversal(run.vae, x, dims, values)
    heads, sides = marks(values), [f"z{d}" for d in dims]
    title = "one latent dimension a row, its value above"
    return png(image_grid(as_bytes(images.flatten(0, 1).numpy()), count, title=title, heads=heads, sides=sides))


def traversal_frames(run: Run, x: Tensor, dims: list[int], count: int) -> bytes:
    import torch

    from vaezoo.evaluation.latents import traversal

    values = torch.linspace(-REACH, REACH, FRAMES)
    images = traversal(run.vae, x, dims, values)
    names, columns = [f"z{d}" for d in dims], grid_columns(len(dims))
    return gif(
        [
            image_grid(caption(as_bytes(images[:, i].numpy()), names), columns, title=f"value {value:+.2f}")
            for i, value in enumerate(values.tolist())
        ]
    )


def interpolation(asked: PlotRequest) -> PlotResult:
    """Pairs of held-out images and what lies between them, on a straight line from code to code."""
    import torch

    from vaezoo.evaluation.latents import interpolation

    run = asked.open_run()
    name, part = asked.load_data(run).held_out
    if len(part) < 2:
        raise VaezooError(f"the {name} part has {len(part)} image; two are needed", "give --data with more")
    x = pick(part, 2 * min(asked.count, len(part) // 2), asked.seed)
    first, second = x[0::2], x[1::2]
    between = interpolation(run.vae, first, second, STEPS)
    rows = torch.cat([first.unsqueeze(1), between, second.unsqueeze(1)], dim=1)
    heads = ["image", *marks(torch.linspace(0, 1, STEPS)), "image"]
    grid = image_grid(
        as_bytes(rows.flatten(0, 1).numpy()), STEPS + 2, title="straight lines between codes", heads=heads
    )
    return PlotResult(run.path, {".png": png(grid)})


def manifold(asked: PlotRequest) -> PlotResult:
    """The plane of a model's two latent dimensions."""
    from vaezoo.evaluation.latents import manifold

    run = asked.open_run()
    images, values = manifold(run.vae, asked.count)
    title = "z0 to the right, z1 upwards, at the normal's quantiles 0.05 to 0.95"
    cells = as_bytes(images.flatten(0, 1).numpy())
    grid = image_grid(cells, asked.count, title=title, heads=marks(values), sides=marks(values.flip(0)))
    return PlotResult(run.path, {".png": png(grid)})


def latents(asked: PlotRequest) -> PlotResult:
    """The codes of held-out examples, coloured by label."""
    from vaezoo.evaluation.latents import encode, principal_plane
    from vaezoo_cli.render import charts  # before the work: it may lack matplotlib

    run = asked.open_run(images=False)
    data = asked.load_data(run)
    name, part = data.held_out
    require_labels(part, data.spec.name, asked.factor)
    some = part.subsample(asked.count)
    codes = encode(run.vae, some.batch(slice(None)).x).flatten(1)
    if codes.shape[1] < 2:
        raise VaezooError("a scatter takes 2 latent dimensions; this model has 1", "train with -o latent_dim=2")
    points, axes, what = codes, ("z0", "z1"), "codes"
    if codes.shape[1] > 2:
        points, shares = principal_plane(codes)
        axes = (f"component 1 ({shares[0]:.0%} of the variance)", f"component 2 ({shares[1]:.0%})")
        what = f"2 principal components of {codes.shape[1]} latent dimensions"
    title = f"{one_line(run.path.name)}\n{what}, {len(some):,} {name} examples"
    kind = "label" if asked.factor is None else f"factor {asked.factor}"
    return PlotResult(
        run.path, {".png": charts.latent_scatter(points, label_column(some, asked.factor), kind, title, axes)}
    )


def learning_curves(asked: PlotRequest) -> PlotResult:
    """The bound and its parts while the run was trained."""
    from vaezoo.training.run_writer import LOG, read_log
    from vaezoo_cli.render import charts

    asked.refuse_export()
    path = find_run(asked.source, asked.checkpoint).path
    reports = read_log(path)
    if not reports:
        raise InputError(f"{path / LOG} has no reports yet", "wait for the first one")
    return PlotResult(path, {".png": charts.learning_curves(reports, one_line(path.name))})


def attribute_vector(asked: PlotRequest) -> PlotResult:
    """Held-out images without a label, then with it, and what makes it subtracted from their codes and added."""
    import torch

    from vaezoo.evaluation.latents import attribute_direction, edit, encode

    run = asked.open_run()
    data = asked.load_data(run)
    require_labels(data.train, data.spec.name, asked.factor)
    label = known_label(data.train, asked.factor, asked.label)
    x, labels = both_sides(data.train, asked.factor, label, (LABELLED, LABELLED), 0)
    amounts = torch.tensor(AMOUNTS)
    direction = attribute_direction(encode(run.vae, x), labels, label)
    x, labels = both_sides(data.held_out[1], asked.factor, label, (-(-asked.count // 2), asked.count // 2), asked.seed)
    rows = torch.cat([x.unsqueeze(1), edit(run.vae, x, direction, amounts)], dim=1)
    grid = image_grid(
        as_bytes(rows.flatten(0, 1).numpy()),
        rows.shape[1],
        title=f"code + a (mean of label {label} - mean of others)",
        heads=["image", *marks(amounts)],
        sides=[f"label {n}" for n in labels.tolist()],
    )
    return PlotResult(run.path, {".png": png(grid)})


def marks(values: Tensor) -> list[str]:
    """Returns numbers as they stand beside rows and columns."""
    return [f"{value:.3g}" for value in values.tolist()]


def parse_dims(text: str | None, run: Run) -> list[int]:
    """Reads the numbers of latent dimensions; None means all.

    Raises:
        VaezooError: If it is no list of numbers, or there are too many to draw.
    """
    try:
        dims = list(range(math.prod(run.vae.latent_shape))) if text is None else [int(n) for n in text.split(",")]
    except ValueError:
        raise VaezooError(f"--dims takes numbers, not '{text}'", "for example --dims 0,3") from None
    if len(dims) > MOST_ROWS:
        raise VaezooError(f"{len(dims):,} latent dimensions are too many for an image", "choose some: --dims 0,1,2")
    return dims


@dataclass(frozen=True)
class Kind:
    """A kind of image.

    Attributes:
        draw: Draws it.
        takes: The options that change it, by their names in Python.
        count: How many without -n.
        most: How many at most.
        suffixes: Of the files that are written unless one is named.
    """

    draw: Callable[[PlotRequest], PlotResult]
    takes: frozenset[str]
    count: int = 0
    most: int = 10_000
    suffixes: tuple[str, ...] = (".png",)


MODEL = frozenset({"checkpoint"})
DATA = frozenset({"data", "data_dir", "image_size", "stream", "on_bad_image"}) | MODEL
KINDS: Mapping[str, Kind] = {
    "samples": Kind(samples, MODEL | {"count", "seed"}, count=64),
    "reconstructions": Kind(reconstructions, DATA | {"count"}, count=32),
    "traversals": Kind(traversals, DATA | {"count", "seed", "dims"}, count=9, most=100, suffixes=(".png", ".gif")),
    "interpolation": Kind(interpolation, DATA | {"count", "seed"}, count=8, most=100),
    "manifold": Kind(manifold, MODEL | {"count"}, count=15, most=100),
    "scatter": Kind(latents, DATA | {"count", "factor"}, count=2_000),
    "curves": Kind(learning_curves, frozenset()),
    "concept": Kind(attribute_vector, DATA | {"count", "seed", "label", "factor"}, count=8, most=100),
}
