"""Samples of an export and the data of latents, in chunks, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from vaezoo.core.chunks import chunk_seed, row_chunks
from vaezoo.core.coordinates import Resolution, parse_resolution
from vaezoo.core.counts import whole_number
from vaezoo.core.drawing import Drawing
from vaezoo.core.tables import parse_model_column
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.runtime import OnnxVAE, as_array
from vaezoo.runtime.counts import draw_counts
from vaezoo.runtime.manifest import Array
from vaezoo.runtime.tables import draw_rows
from vaezoo.runtime.tiling import OVERLAP


def iter_samples(
    model: OnnxVAE,
    n: int,
    *,
    seed: int = 0,
    y: Array | None = None,
    draw: bool = False,
    resolution: Resolution | None = None,
    drawing: Drawing | None = None,
) -> Iterator[Array]:
    """Yields n samples in chunks, as `OnnxVAE.sample` returns them, but in the units of the data.

    Args:
        model: The export.
        n: Number of samples.
        seed: Seed of the latents.
        y: Labels, for a conditional model. By default all labels in turn.
        draw: Whether x is drawn from p(x|z). Without it x is the mean.
        resolution: As in `OnnxVAE.sample`, which draws the same latents.
        drawing: How the ids of texts are chosen. By default they are drawn.

    Raises:
        UnsupportedDataError: If x cannot be drawn, because the export does not hold p(x|z).
        VaezooError: As `OnnxVAE.sample` does.
    """
    n, seed = whole_number("n", n, 1), whole_number("seed", seed)
    check_drawing(drawing, takes=model.manifest["autoregressive"] is not None)
    y = model.labels_in_turn(n) if y is None else np.asarray(y)
    for number, rows in enumerate(row_chunks(n, model.data["shape"])):
        own_seed, own_y = chunk_seed(seed, number), None if y is None else y[rows]
        if resolution is None and not (draw and draws_rows(model)):
            x = model.sample(rows.stop - rows.start, own_seed, y=own_y, drawing=drawing)
            yield model.scaling.invert(draw_from_means(model, x, own_seed) if draw else x)
        else:
            z = model.sample_prior(rows.stop - rows.start, own_y, np.random.default_rng(own_seed))
            own_y = own_y if model.takes_labels("decoder") else None
            yield from iter_decoded(model, z, y=own_y, seed=own_seed, draw=draw, resolution=resolution)


def iter_decoded(
    model: OnnxVAE,
    z: Array,
    *,
    y: Array | None = None,
    seed: int = 0,
    draw: bool = False,
    resolution: Resolution | None = None,
    tile: int | None = None,
    overlap: int = OVERLAP,
    drawing: Drawing | None = None,
) -> Iterator[Array]:
    """Yields the data of latents z `(N, *latent_shape)` in chunks.

    For the other arguments see `iter_samples`, and for tiles `OnnxVAE`. By default the ids of texts are the most
    probable ones.
    """
    z, seed = check_latents(z, model.latent_shape), whole_number("seed", seed)
    check_decoder_labels(y, takes=model.takes_labels("decoder"))
    check_drawing(drawing, takes=model.manifest["autoregressive"] is not None)
    y = model.labels_in_turn(len(z)) if y is None else np.asarray(y)
    for number, rows in enumerate(row_chunks(len(z), _shape(model, z, resolution))):
        own_y = None if y is None else y[rows]
        if draw and draws_rows(model):
            outputs = model.run("decoder", {"z": z[rows]} if own_y is None else {"z": z[rows], "y": own_y})
            yield model.scaling.invert(_draw(model, outputs, chunk_seed(seed, number)))
            continue
        if tile is None:
            own_rng = np.random.default_rng([chunk_seed(seed, number), 1]) if drawing else None
            x = model.decode_latents(z[rows], own_y, own_rng, resolution=resolution, drawing=drawing)
        else:
            x = model.decode(z[rows], own_y, tile=tile, overlap=overlap)
        yield model.scaling.invert(draw_from_means(model, x, chunk_seed(seed, number)) if draw else x)


def _draw(model: OnnxVAE, outputs: Mapping[str, Array], seed: int) -> Array:
    """Draws x from the outputs of a decoder that give p(x|z)."""
    rng = np.random.default_rng([seed, 1])
    return draw_counts(outputs, rng) if model.data["kind"] == "count" else draw_rows(model.data, outputs, rng)


def draws_rows(model: OnnxVAE) -> bool:
    """Tells whether the outputs of the decoder give p(x|z) of a table, or of counts.

    They do not in an export of a table of an older version, or with the likelihood of a package.
    """
    decoder = model.manifest["graphs"].get("decoder")
    if decoder is None:
        return False
    if model.data["kind"] == "count":
        return "log_fractions" in [output["name"] for output in decoder["outputs"]]
    if model.data["kind"] != "table":
        return False
    has_real = any(column is not None and not column.size for column in map(parse_model_column, model.data["columns"]))
    return not has_real or "deviations" in [output["name"] for output in decoder["outputs"]]


def _shape(model: OnnxVAE, z: Array, resolution: Resolution | None) -> tuple[int, ...]:
    """Returns the shape of an example that latents are decoded to, which sets how many of them are in a chunk."""
    shape = tuple(model.data["shape"])
    if resolution is not None:
        return (shape[0], *parse_resolution(resolution))
    if any(isinstance(size, str) for size in model.latent_shape):
        return (shape[0], *(n * factor for n, factor in zip(z.shape[2:], model.factors, strict=True)))
    return shape


def check_decoder_labels(y: object, *, takes: bool) -> None:
    """Raises VaezooError if latents come with labels that the decoder does not take. They would have no effect."""
    if y is not None and not takes:
        raise VaezooError("the decoder of this model takes no labels", "leave out the labels")


def check_drawing(drawing: Drawing | None, *, takes: bool) -> None:
    """Raises VaezooError if ids are to be chosen, and the model draws none."""
    if drawing is not None and not takes:
        what = "temperature, top_k and beam are for texts that are drawn id by id, and this model draws none"
        raise VaezooError(what, "leave them out")


def draw_from_means(model: OnnxVAE, means: Array, seed: int) -> Array:
    """Draws from p(x|z), of which the decoder returns the means.

    Raises:
        UnsupportedDataError: If the means and the name of the likelihood do not give p(x|z).
    """
    likelihood, rng = model.data["likelihood"], np.random.default_rng([seed, 1])
    if model.dtype == np.uint8:
        raise UnsupportedDataError(
            "the export gives bytes, from which nothing can be drawn", "use the run, or export without --uint8"
        )
    if model.data["kind"] not in ("unit", "real") or not needs_only_mean(likelihood):
        raise UnsupportedDataError(
            f"the export holds the means of p(x|z), from which '{likelihood}' cannot be drawn", "use the run"
        )
    if likelihood == "bernoulli":
        bits: Array = (rng.random(means.shape, np.float32) < means).astype(np.float32)
        return bits
    family, _, scale = likelihood.partition(":")
    if family == "laplace":
        noise = rng.laplace(size=means.shape).astype(np.float32)
    else:
        noise = rng.standard_normal(means.shape, np.float32)
    drawn: Array = means + np.float32(float(scale or 1)) * noise
    return drawn


def needs_only_mean(likelihood: str) -> bool:
    """Tells whether the means and the name of a likelihood give p(x|z).

    These are `bernoulli`, and `gaussian` and `laplace` without an argument or with a number.

    Those of other packages are not known here, even if they are installed.
    """
    family, colon, scale = likelihood.partition(":")
    if family in ("gaussian", "laplace") and colon:
        try:
            return float(scale) > 0
        except ValueError:  # such as learned
            return False
    return likelihood in ("bernoulli", "gaussian", "laplace")


def check_latents(z: Array, latent_shape: tuple[int | str, ...]) -> Array:
    """Returns latents as a decoder takes them, float32 or int64.

    Args:
        z: `(N, *latent_shape)`.
        latent_shape: The shape of one latent. A text is a free size.

    Raises:
        VaezooError: If they have another shape or type, or are not finite.
    """
    z = as_array("z", z)
    sizes = zip(z.shape[1:], latent_shape, strict=False)
    if z.ndim != len(latent_shape) + 1 or not len(z) or any(n != m for n, m in sizes if isinstance(m, int)):
        wanted = ", ".join(map(str, ("N", *latent_shape)))
        raise VaezooError(f"the latents have shape {z.shape}", f"give an array of shape ({wanted})")
    if z.dtype.kind not in "iuf" or not np.isfinite(z).all():
        raise VaezooError("the latents are not all finite numbers", "remove or replace the others")
    return np.ascontiguousarray(z, np.int64 if z.dtype.kind in "iu" else np.float32)
