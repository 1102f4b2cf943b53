"""Data of latents: the mean of p(x|z), or ids that an autoregressive decoder gives one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from vaezoo.core.drawing import GREEDY, Drawing, beam_search
from vaezoo.data.base import Batch

if TYPE_CHECKING:
    from vaezoo.vae import VAE


def decode_latents(
    vae: VAE, z: Tensor, batch: Batch, *, greedy: bool = False, drawing: Drawing | None = None
) -> Tensor:
    """Returns the mean of p(x|z) for latents, `(B, *data.shape)`, or ids drawn one by one if the decoder looks at x.

    Args:
        vae: The model.
        z: Latents, `(B, *latent_shape)`.
        batch: What else the decoder is given. Its x is not used.
        greedy: Whether ids are the most probable ones.
        drawing: How ids are chosen, instead of `greedy`.
    """
    if vae.autoregressive is not None:
        return unroll(vae, z, batch.y, greedy=greedy, drawing=drawing)
    return vae.likelihood.mean(vae.generate(z, batch))


@torch.no_grad()
def unroll(
    vae: VAE, z: Tensor, y: Tensor | None = None, *, greedy: bool = False, drawing: Drawing | None = None
) -> Tensor:
    """Draws x for latents, id by id, `(B, *data.shape)`, int64. Behind the end id everything is padding."""
    assert vae.autoregressive is not None
    drawing = drawing or (GREEDY if greedy else Drawing())
    if drawing.beam:
        return search(vae, z, y, drawing.beam)
    length, end_id, *_ = vae.autoregressive
    x = torch.zeros((len(z), length), dtype=torch.int64, device=z.device)
    ended = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    next_logits = step_by_step(vae, z, y)
    for position in range(length):
        ids = choose(vae, next_logits(x[:, : position + 1]).unsqueeze(1), drawing)[:, 0]
        x[:, position] = torch.where(ended, 0, ids)
        ended = ended | (ids == end_id) if end_id is not None else ended
    return x


def step_by_step(vae: VAE, z: Tensor, y: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Returns a function that gives the logits of the last of some ids, `(B, ids)`, given those before it.

    It must be called for each position in turn. A model with a graph `step` looks at the id before the last one only.
    """
    assert vae.autoregressive is not None
    start_id, size = vae.autoregressive.start_id, vae.autoregressive.state_size
    if start_id is None:
        return lambda x: vae.generate(z, Batch(x, y))[:, -1]
    step = vae.graphs()["step"]
    state, given_y = z.new_zeros(len(z), size), (y,) if "y" in step.names and y is not None else ()

    def next_logits(x: Tensor) -> Tensor:
        nonlocal state
        before = x[:, -2] if x.shape[1] > 1 else torch.full_like(x[:, 0], start_id)
        outputs = step.run(before, state, z, *given_y)
        state = outputs["state"]
        return outputs["logits"]

    return next_logits


def choose(vae: VAE, logits: Tensor, drawing: Drawing) -> Tensor:
    """Returns ids for logits `(..., ids)`, drawn or the most probable ones."""
    if drawing.temperature == 0:
        return vae.likelihood.mean(logits)
    logits = logits if drawing.temperature == 1 else logits / drawing.temperature
    if 0 < drawing.top_k < logits.shape[-1]:
        least = logits.topk(drawing.top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    return vae.likelihood.sample(logits)


def search(vae: VAE, z: Tensor, y: Tensor | None, width: int) -> Tensor:
    """Returns the most probable x that a beam search finds for latents, `(B, *data.shape)`, int64."""
    assert vae.autoregressive is not None

    def logits_of(rows: NDArray[Any], ids: NDArray[Any]) -> NDArray[Any]:
        index = torch.from_numpy(rows).to(z.device)
        batch = Batch(torch.from_numpy(ids).to(z.device), None if y is None else y[index])
        logits: NDArray[Any] = vae.generate(z[index], batch)[:, -1].float().cpu().numpy()
        return logits

    length, end_id, *_ = vae.autoregressive
    return torch.from_numpy(beam_search(logits_of, len(z), length, end_id, width)).to(z.device)
