"""What a run or an export makes of data: posteriors, reconstructions and samples.

Each function has a twin that yields the results in chunks, so that memory stays bounded for any number of examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaezoo.core.chunks import chunk_seed, row_chunks
from vaezoo.core.conditions import parse_conditions, select
from vaezoo.core.coordinates import Resolution, parse_resolution
from vaezoo.core.counts import whole_number
from vaezoo.core.drawing import Drawing
from vaezoo.core.seed import isolate_rng, set_seed
from vaezoo.data.base import Batch, Split
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.evaluation import latents
from vaezoo.evaluation.batches import iter_batches, map_batches
from vaezoo.examples import Data, Model, data_of, load_examples, module_of
from vaezoo.nn.cppn import at_resolution, require_coordinates
from vaezoo.objectives.vq import check_codes
from vaezoo.posteriors.base import map_tensors, named_outputs
from vaezoo.runtime import OnnxVAE, as_array, generate
from vaezoo.training.run import Run
from vaezoo.vae import VAE, blank_batch, device_of, eval_mode, example_batch, sample_prior, sampled_with

CPU = torch.device("cpu")

Values: TypeAlias = npt.NDArray[Any]


def encode(model: Model, data: Data | None = None, *, limit: int | None = None) -> dict[str, Values]:
    """Returns the fields of q(z|x) of examples by name, such as mu and logvar, `(N, *latent_shape)` each.

    Args:
        model: A run, an export or a module.
        data: As in `load_examples`, or what it returned.
        limit: Number of evenly spaced examples. The default is all.

    Raises:
        VaezooError: As `load_examples` does, or if the limit is below 1.
    """
    chunks = list(iter_encoded(model, load_examples(model, data).limited(limit).split))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def reconstruct(
    model: Model,
    data: Data | None = None,
    *,
    draw: bool = False,
    seed: int = 0,
    limit: int | None = None,
    resolution: Resolution | None = None,
    drawing: Drawing | None = None,
    impute: bool = False,
) -> Values:
    """Returns the means of p(x|z) at the modes of q(z|x), `(N, *shape)`, in the units of the data.

    Args:
        model: A run, an export or a module.
        data: As in `load_examples`, or what it returned.
        draw: Whether x is drawn from p(x|z) instead.
        seed: Seed of such draws.
        limit: Number of evenly spaced examples. The default is all.
        resolution: Size of the images of a decoder that takes coordinates, such as 1024 or (768, 1024). By default that
            of the data.
        drawing: How the ids of texts are chosen. By default they are the most probable ones.
        impute: Whether only the missing cells of a table are those of the reconstruction. The others stay as they are.

    Raises:
        UnsupportedDataError: If x cannot be drawn, because an export does not hold p(x|z), or `impute` is
            given for data without missing cells.
        VaezooError: As `load_examples` does, or if the limit is below 1. Also if there is a resolution, and the decoder
            takes no coordinates.
    """
    split = load_examples(model, data).limited(limit).split
    chunks = iter_reconstructions(model, split, draw=draw, seed=seed, resolution=resolution, drawing=drawing)
    return np.concatenate([*(iter_imputed(model, split, chunks) if impute else chunks)])


def sample(
    model: Model,
    n: int,
    *,
    seed: int = 0,
    y: Values | None = None,
    draw: bool = False,
    resolution: Resolution | None = None,
    drawing: Drawing | None = None,
    where: Sequence[str] = (),
) -> Values:
    """Returns the means of p(x|z) of n latents drawn from the prior, `(n, *shape)`, in the units of the data.

    Args:
        model: A run, an export or a module.
        n: Number of samples.
        seed: Seed of the latents. A run and an export draw other latents for the same seed.
        y: Labels `(n,)` or `(n, factors)`, for a conditional model. By default all labels in turn.
        draw: Whether x is drawn from p(x|z) instead.
        resolution: As in `reconstruct`. The latents do not depend on it.
        drawing: How the ids of texts are chosen. By default they are drawn.
        where: Conditions that all rows of a table meet, such as ["sex=female", "age>30"]. Rows that do not are drawn
            again; see `vaezoo.core.conditions.select`.

    Raises:
        UnsupportedDataError: If x cannot be drawn, because an export does not hold p(x|z).
        VaezooError: If n or the seed is out of range, labels are wrong or the model takes none, or the prior cannot be
            sampled. Also if there is a resolution, and the decoder takes no coordinates, or if too few rows meet the
            conditions.
    """
    if where:
        columns = data_of(model).table_columns
        conditions, n = parse_conditions(where, columns), whole_number("n", n, 1)
        chunks = select(lambda k, s: iter_samples(model, k, seed=s, draw=draw), conditions, columns, n, seed)
        return np.concatenate([*chunks])
    return np.concatenate([*iter_samples(model, n, seed=seed, y=y, draw=draw, resolution=resolution, drawing=drawing)])


def decode(
    model: Model,
    z: Values,
    *,
    y: Values | None = None,
    draw: bool = False,
    seed: int = 0,
    resolution: Resolution | None = None,
    drawing: Drawing | None = None,
) -> Values:
    """Returns the means of p(x|z) of latents, `(N, *shape)`, in the units of the data.

    Args:
        model: A run, an export or a module.
        z: Latents, `(N, *latent_shape)`.
        y: Labels `(N,)` or `(N, factors)`, for a conditional model. By default all labels in turn.
        draw: Whether x is drawn from p(x|z) instead.
        seed: Seed of such draws.
        resolution: As in `reconstruct`.
        drawing: As in `reconstruct`.

    Raises:
        UnsupportedDataError: If x cannot be drawn, because an export does not hold p(x|z).
        VaezooError: If z has another shape, values that are not finite or no codes, or labels are wrong. Also if there
            is a resolution, and the decoder takes no coordinates.
    """
    return np.concatenate([*iter_decoded(model, z, y=y, draw=draw, seed=seed, resolution=resolution, drawing=drawing)])


def iter_encoded(model: Model, split: Split) -> Iterator[dict[str, Values]]:
    """Yields the fields of q(z|x) of the examples of a split, in chunks."""
    for batch in iter_batches(split, "none", 0, CPU if isinstance(model, OnnxVAE) else device_of(module_of(model))):
        if isinstance(model, OnnxVAE):
            yield model.encode(_input(model, batch.x), _export_labels(model, batch))
        else:
            with eval_mode(module_of(model)):
                fields, _ = named_outputs(module_of(model).infer(batch))
            yield {name: values.cpu().numpy() for name, values in fields.items()}


def iter_reconstructions(
    model: Model,
    split: Split,
    *,
    draw: bool = False,
    seed: int = 0,
    resolution: Resolution | None = None,
    drawing: Drawing | None = None,
) -> Iterator[Values]:
    """Yields the reconstructions of the examples of a split, in chunks; see `reconstruct`."""
    seed = whole_number("seed", seed)
    _check_drawing(model, drawing)
    if resolution is not None or (draw and isinstance(model, OnnxVAE) and generate.draws_rows(model)):
        yield from _reconstructions_at(model, split, resolution, draw=draw, seed=seed)
        return
    for number, batch in enumerate(iter_batches(split, "none", 0, CPU)):
        own_seed = chunk_seed(seed, number)
        if isinstance(model, OnnxVAE):
            x = model.reconstruct(_input(model, batch.x), _export_labels(model, batch), drawing=drawing, seed=own_seed)
            yield model.scaling.invert(generate.draw_from_means(model, x, own_seed) if draw else x)
        else:
            vae = module_of(model)
            with _seeded(vae, own_seed):
                x = _decode(vae, latents.encode(vae, batch), batch.y, draw=draw, greedy=not draw, drawing=drawing)
            yield vae.data.scaling.invert(x)


def iter_imputed(model: Model, split: Split, chunks: Iterator[Values]) -> Iterator[Values]:
    """Yields the rows of a table, in whose missing cells those of reconstructions stand.

    Args:
        model: The model.
        split: The rows.
        chunks: Their reconstructions.

    Raises:
        UnsupportedDataError: If the data are not a table.
    """
    data, start = data_of(model), 0
    if data.kind != "table":
        raise UnsupportedDataError(f"data of kind {data.kind} have no missing cells", "leave out --impute")
    for chunk in chunks:
        values = data.scaling.invert(split.gather(slice(start, start + len(chunk))).x.cpu().numpy())
        yield np.where(np.isnan(values), chunk, values)
        start += len(chunk)


def _reconstructions_at(
    model: Model, split: Split, resolution: Resolution | None, *, draw: bool, seed: int
) -> Iterator[Values]:
    """Yields reconstructions in chunks, by way of their latents. With a resolution it is theirs."""
    if resolution is not None and not isinstance(model, OnnxVAE):
        require_coordinates(module_of(model))
    for number, (z, y) in enumerate(iter_modes(model, split)):
        yield from iter_decoded(model, z, y=y, draw=draw, seed=chunk_seed(seed, number), resolution=resolution)


def iter_modes(model: Model, split: Split) -> Iterator[tuple[Values, Values | None]]:
    """Yields the modes of q(z|x) of the examples of a split, in chunks, and the labels that the decoder is given."""
    for batch in iter_batches(split, "none", 0, CPU):
        if isinstance(model, OnnxVAE):
            y = _export_labels(model, batch)
            z = model.encode(_input(model, batch.x), y)[model.manifest["mode"]]
            yield z, y if model.takes_labels("decoder") else None
        else:
            vae = module_of(model)
            takes = batch.y is not None and "y" in vae.decoder_inputs
            yield latents.encode(vae, batch).numpy(), batch.y.numpy() if takes and batch.y is not None else None


def iter_samples(
    model: Model,
    n: int,
    *,
    seed: int = 0,
    y: Values | None = None,
    draw: bool = False,
    resolution: Resolution | None = None,
    drawing: Drawing | None = None,
) -> Iterator[Values]:
    """Yields samples in chunks; see `sample`."""
    if isinstance(model, OnnxVAE):
        yield from generate.iter_samples(model, n, seed=seed, y=y, draw=draw, resolution=resolution, drawing=drawing)
        return
    n, seed = whole_number("n", n, 1), whole_number("seed", seed)
    _check_drawing(model, drawing)
    vae = module_of(model)
    labels = _labels(vae, n, y)
    for number, rows in enumerate(row_chunks(n, vae.data.shape)):
        with _seeded(vae, chunk_seed(seed, number)):
            batch = blank_batch(vae, rows.stop - rows.start, None if labels is None else labels[rows])
            with eval_mode(vae):
                z = sample_prior(vae, batch)
            x = None if resolution is not None else _decode(vae, z, batch.y, draw=draw, greedy=False, drawing=drawing)
        if x is not None:
            yield vae.data.scaling.invert(x)
            continue
        own_y = None if batch.y is None or "y" not in vae.decoder_inputs else batch.y.cpu().numpy()
        own_seed = chunk_seed(seed, number)
        yield from iter_decoded(vae, z.cpu().numpy(), y=own_y, draw=draw, seed=own_seed, resolution=resolution)


def iter_decoded(
    model: Model,
    z: Values,
    *,
    y: Values | None = None,
    draw: bool = False,
    seed: int = 0,
    resolution: Resolution | None = None,
    drawing: Drawing | None = None,
) -> Iterator[Values]:
    """Yields the data of latents in chunks; see `decode`."""
    if isinstance(model, OnnxVAE):
        yield from generate.iter_decoded(model, z, y=y, draw=draw, seed=seed, resolution=resolution, drawing=drawing)
        return
    vae, seed = module_of(model), whole_number("seed", seed)
    _check_drawing(model, drawing)
    z = generate.check_latents(z, vae.latent_shape)
    check_codes(torch.from_numpy(z), vae.latent_levels)
    generate.check_decoder_labels(y, takes="y" in vae.decoder_inputs)
    labels = _labels(vae, len(z), y)
    shape = vae.data.shape
    if resolution is not None:
        require_coordinates(vae)
        shape = (shape[0], *parse_resolution(resolution))
    for number, rows in enumerate(row_chunks(len(z), shape)):
        with _seeded(vae, chunk_seed(seed, number)), at_resolution(vae, resolution):
            own_y = None if labels is None else labels[rows]
            x = _decode(vae, torch.from_numpy(z[rows]), own_y, draw=draw, greedy=not draw, drawing=drawing)
        yield vae.data.scaling.invert(x)


def sample_latents(model: Run | VAE, n: int, *, seed: int = 0, y: Values | None = None) -> Values:
    """Returns n latents drawn from the prior of a run or a module, `(n, *latent_shape)`."""
    assert not isinstance(model, OnnxVAE)
    vae = module_of(model)
    with _seeded(vae, seed), eval_mode(vae):
        z = sample_prior(vae, blank_batch(vae, n, _labels(vae, n, y)))
    latents: Values = z.cpu().numpy()
    return latents


def mode_name(model: Model) -> str:
    """Returns which of the fields of q(z|x) is its mode."""
    if isinstance(model, OnnxVAE):
        return model.manifest["mode"]
    vae = module_of(model)
    batch = example_batch(vae.data, 1, torch.Generator().manual_seed(0))
    with eval_mode(vae), isolate_rng(device_of(vae)):
        return named_outputs(vae.infer(map_tensors(batch, lambda tensor: tensor.to(device_of(vae)))))[1]


def _labels(vae: VAE, n: int, y: Values | None) -> Tensor | None:
    """Returns one label for each row, or None if the model is given none. By default all labels in turn.

    Raises:
        VaezooError: If labels are wrong, or are given to a model that takes none.
    """
    if "y" not in sampled_with(vae):
        if y is not None:
            raise VaezooError(f"a {type(vae).__name__} takes no labels", "leave out the labels")
        return None
    if y is None:
        return blank_batch(vae, n).y
    labels = as_array("y", y)
    if labels.dtype.kind not in "iu":
        raise VaezooError(f"y holds {labels.dtype}, not integers", "give the number of each label")
    return blank_batch(vae, n, torch.from_numpy(labels.astype(np.int64))).y


def _export_labels(model: OnnxVAE, batch: Batch) -> Values | None:
    """Returns the labels of a batch, if it has some and the graphs take them."""
    return batch.y.numpy() if batch.y is not None and model.takes_labels() else None


@contextmanager
def _seeded(vae: VAE, seed: int) -> Iterator[None]:
    """Seeds the default generators of a model's device for the block, and restores them afterwards."""
    with isolate_rng(device_of(vae)):
        set_seed(seed, device_of(vae))
        yield


def _check_drawing(model: Model, drawing: Drawing | None) -> None:
    """Raises VaezooError if a model whose x is not drawn id by id is asked how to choose ids."""
    loop = model.manifest["autoregressive"] if isinstance(model, OnnxVAE) else module_of(model).autoregressive
    generate.check_drawing(drawing, takes=loop is not None)


def _decode(
    vae: VAE, z: Tensor, y: Tensor | None, *, draw: bool, greedy: bool, drawing: Drawing | None = None
) -> Values:
    """Returns the means of p(x|z), or draws from it, `(N, *shape)`."""
    if not draw or vae.autoregressive is not None:
        return latents.decode(vae, z, y, greedy=greedy, drawing=drawing).numpy()
    device = device_of(vae)
    with eval_mode(vae):
        x = map_batches(lambda part: vae.likelihood.sample(vae.generate(part.x, part)), Batch(z, y), device)
    return x.numpy()


def _input(model: OnnxVAE, x: Tensor) -> Values:
    """Returns examples as the encoder of an export takes them.

    Raises:
        UnsupportedDataError: If it takes waveforms, because examples are spectrograms.
    """
    if model.manifest["format"].get("waveform"):
        hint = "call vaezoo.runtime.load(EXPORT).encode(waveforms), or export without --waveform-in"
        raise UnsupportedDataError(f"the encoder of {model.source.folder} takes waveforms, not files", hint)
    if model.dtype != np.uint8:
        return x.numpy()
    return (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
