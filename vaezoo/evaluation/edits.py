"""Reconstructions of examples that are changed on the way: other latents, or another label for the decoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vaezoo.core.chunks import chunk_seed
from vaezoo.core.coordinates import Resolution
from vaezoo.core.drawing import Drawing
from vaezoo.data.base import Split
from vaezoo.data.labels import repeat_label
from vaezoo.errors import VaezooError
from vaezoo.evaluation.outputs import Values, iter_decoded, iter_modes, iter_reconstructions
from vaezoo.examples import Model, data_of, takes_labels


class Edit(NamedTuple):
    """A change between encoder and decoder.

    Attributes:
        shift: What is added to the latents of each example, `(*latent_shape)`. None: nothing.
        label: The label that the decoder is given instead of that of each example, as a user types it.
    """

    shift: Values | None = None
    label: str | None = None


def iter_edited(
    model: Model,
    split: Split,
    edit: Edit,
    *,
    draw: bool = False,
    seed: int = 0,
    resolution: Resolution | None = None,
    drawing: Drawing | None = None,
) -> Iterator[Values]:
    """Yields reconstructions of the examples of a split with an edit, in chunks; else as `reconstruct`.

    Raises:
        VaezooError: If the label is unknown, or the decoder takes no labels.
    """
    if edit.shift is None and edit.label is None:
        yield from iter_reconstructions(model, split, draw=draw, seed=seed, resolution=resolution, drawing=drawing)
        return
    if edit.label is not None and not takes_labels(model, "decoder"):
        raise VaezooError("the decoder of this model is not given labels", "give --attribute instead of --label")
    data = data_of(model)
    for number, (z, y) in enumerate(iter_modes(model, split)):
        if edit.label is not None:
            y = repeat_label(edit.label, len(z), data.classes, data.names_by_label, data.name)
        if edit.shift is not None:
            z = z + edit.shift.astype(np.float32)
        own = chunk_seed(seed, number)
        yield from iter_decoded(model, z, y=y, draw=draw, seed=own, resolution=resolution, drawing=drawing)
