"""Texts on the straight lines between the latents of two texts: the homotopies of Bowman et al. 2016 (1511.06349)."""

from __future__ import annotations

from typing import cast

from vaezoo.core.tokenizer import Tokenizer
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.plots.output import PlotResult
from vaezoo.plots.request import PlotRequest
from vaezoo.plots.selection import random_examples

STEPS = 9  # texts on a line, including those of both ends


def homotopies(request: PlotRequest) -> PlotResult:
    """Writes pairs of texts and, between them, the most probable texts on the line between their latents.

    A block of lines for each pair is followed by an empty line. Texts that a user names form pairs in their order.

    Raises:
        VaezooError: If there is one text alone, or an odd number of named ones.
        UnsupportedDataError: If the ids of the model do not stand for texts.
    """
    from vaezoo.evaluation import latents
    from vaezoo.posteriors.base import map_tensors

    run, symbols = request.run(drawn=False), tuple(request.model.data["symbols"])
    if not symbols:
        raise UnsupportedDataError(f"the ids of {run.path} have no symbols", "give a run that was trained on texts")
    tokenizer = Tokenizer(request.model.data.get("tokenizer") or "characters", symbols)
    split = request.load_examples().split
    if len(split) < 2 or (request.in_order and len(split) % 2):
        raise VaezooError(f"{len(split)} texts cannot be paired", "give two for each pair: --text A --text B")
    count = len(split) if request.in_order else 2 * min(request.count, len(split) // 2)
    pairs = split.batch(slice(None)) if request.in_order else random_examples(split, count, request.seed)
    first, second = (map_tensors(pairs, lambda tensor, i=i: tensor[i::2]) for i in (0, 1))  # type: ignore[misc]
    between = latents.interpolation(run.vae, first, second, STEPS)
    blocks = []
    for start, texts, end in zip(first.x, between, second.x, strict=True):
        rows = [start.tolist(), *cast("list[list[int]]", texts.tolist()), end.tolist()]
        blocks.append("".join(f"{tokenizer.decode(row)}\n" for row in rows))
    return PlotResult(run.path, {".txt": "\n".join(blocks).encode()})
