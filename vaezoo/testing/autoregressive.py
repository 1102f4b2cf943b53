"""Checks of what is drawn id by id: texts of an autoregressive decoder, and codes of an autoregressive prior."""

from __future__ import annotations

import math
from collections.abc import Callable
from unittest import SkipTest

import torch
from torch import Generator, Tensor

from vaezoo.data.base import Batch, given
from vaezoo.testing.examples import Spec, build_example
from vaezoo.testing.rows import TOLERANCE, largest_difference
from vaezoo.vae import VAE, sample_prior

ADVICE = "Shift the ids by one position, and mask what follows."


def check_autoregressive(spec: Spec) -> None:
    """The logits of an id depend on the ids before it only, and log_prob of codes is the sum of their logits."""
    vae, _, batch = build_example(spec)
    vae.eval()
    if vae.autoregressive is None and vae.prior.autoregressive is None:
        raise SkipTest("nothing is drawn id by id")
    with torch.no_grad():
        if vae.autoregressive is not None:
            _check_decoder(vae, batch)
        if vae.prior.autoregressive is not None:
            _check_prior(vae, batch)


def _check_decoder(vae: VAE, batch: Batch) -> None:
    assert vae.autoregressive is not None
    length, dims = vae.autoregressive.length, vae.data.dims
    assert length == dims, f"autoregressive.length must be the number of ids of an example, {dims}, not {length}"
    z = vae.infer(batch).mode()

    def logits(x: Tensor) -> Tensor:
        return vae.generate(z, batch._replace(x=x)).flatten(1, -2)

    other = vae.data.make_kind().example(len(z), vae.data.shape, Generator().manual_seed(7))
    _check_order("decode(z, x)", logits, batch.x, other)
    full = logits(batch.x)
    for position in (1, max(1, length // 2)):  # a text is drawn from the ids so far, which are fewer than all
        difference = largest_difference(logits(batch.x[:, :position]), full[:, :position])
        what = f"decode(z, x) for the first {position} ids differs by {difference:.2g} from that for all ids"
        assert difference < TOLERANCE, f"{what}. {ADVICE}"


def _check_prior(vae: VAE, batch: Batch) -> None:
    prior, conditions = vae.prior, given(vae.prior.inputs, batch)
    assert prior.autoregressive is not None
    length, _, shape, *_ = prior.autoregressive
    latents = math.prod(vae.latent_shape)
    what = "the prior's autoregressive"
    assert length == latents, f"{what}.length must be the number of latents, {latents}, not {length}"
    shape = shape or (length,)
    assert shape == vae.latent_shape, f"{what}.shape must be latent_shape, {vae.latent_shape}, not {shape}"
    other = vae.infer(batch).mode()
    found = tuple(prior.id_logits(other, *conditions).shape)
    fits = len(found) == 3 and found[:2] == (len(other), length)
    assert fits, f"id_logits(z) must have shape ({len(other)}, {length}, ids), not {found}"
    z = sample_prior(vae, batch)
    _check_order("prior.id_logits(z)", lambda z: prior.id_logits(z, *conditions), z, other)
    log_p = torch.log_softmax(prior.id_logits(z, *conditions), 2).gather(2, z.flatten(1).unsqueeze(2)).flatten(1).sum(1)
    difference = largest_difference(prior.log_prob(z, *conditions), log_p)
    what = f"prior.log_prob(z) differs by {difference:.2g} nats from the sum of the log-probabilities of id_logits"
    assert difference < TOLERANCE * (1 + float(log_p.abs().max())), what


def _check_order(name: str, logits: Callable[[Tensor], Tensor], ids: Tensor, other: Tensor) -> None:
    """Raises AssertionError if the logits of an id change with that id or a later one."""
    before = logits(ids)
    for position in range(before.shape[1]):
        changed = ids.flatten(1).clone()
        changed[:, position:] = other.flatten(1)[:, position:]
        after = logits(changed.view_as(ids))
        difference = largest_difference(after[:, : position + 1], before[:, : position + 1])
        what = f"the logits of id {position} in {name} change by {difference:.2g} with that id or a later one"
        assert difference < TOLERANCE, f"{what}. {ADVICE}"
