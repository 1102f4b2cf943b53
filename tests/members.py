"""Each built-in model with small options, and data that it is made for. Tests of all models share this table."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import torch

from vaezoo import Dataset, load_data
from vaezoo.data.base import Split


class Member(NamedTuple):
    """A model to test.

    Attributes:
        model: Its registered name.
        data: Name of a data set.
        options: Options that make it small.
    """

    model: str
    data: str = "digits"
    options: Mapping[str, object] = {}


SMALL_CONV = {"channels": "8,16", "latent_dim": 8}
MEMBERS: Mapping[str, Member] = {
    "mlp-vae": Member("mlp-vae"),
    "conv-vae": Member("conv-vae", options=SMALL_CONV),
    "conv1d-vae": Member("conv1d-vae", "sines", SMALL_CONV),
    "time-vae": Member("time-vae", "sines", {**SMALL_CONV, "seasons": "4,8", "season_steps": "1,2"}),
    "spectrogram-vae": Member("spectrogram-vae", options=SMALL_CONV),
    "waveform-vae": Member("waveform-vae", "sines", {"channels": "8,16", "strides": "4,4", "latent_dim": 8}),
    "beta-vae": Member("beta-vae", options=SMALL_CONV),
    "vae-gan": Member("vae-gan", options=SMALL_CONV),
    "autoencoder": Member("autoencoder"),
    "iwae": Member("iwae", options={"objective.k": 5}),
    "miwae": Member("miwae", options={"objective.k": 3, "objective.m": 2}),
    "piwae": Member("piwae", options={"objective.k": 3, "objective.m": 2}),
    "ciwae": Member("ciwae", options={"objective.k": 5}),
    "vamp-vae": Member("vamp-vae", options={"hidden": "32", "latent_dim": 8, "prior.components": 20}),
    "exemplar-vae": Member("exemplar-vae", options={"hidden": "32", "latent_dim": 8, "prior.exemplars": 50}),
    "iaf-vae": Member("iaf-vae", options={"latent_dim": 8}),
    "hamiltonian-vae": Member("hamiltonian-vae", options={"hidden": "32", "latent_dim": 6, "posterior.steps": 2}),
    "factor-vae": Member("factor-vae", options={**SMALL_CONV, "objective.hidden": 32}),
    "rae": Member("rae", options=SMALL_CONV),
    "cvae": Member("cvae", options={"latent_dim": 8}),
    "ladder-vae": Member("ladder-vae", options={"hidden": "32"}),
    "hvae": Member("hvae", options={"hidden": "32,32", "latents": "4,6"}),
    "top-down-vae": Member("top-down-vae", options={"channels": 8, "latent_channels": 2, "layers": 1}),
    "vq-vae": Member("vq-vae", options={"codebook_size": 32, "channels": "16,16", "residual_channels": 8}),
    "vq-vae-2": Member("vq-vae-2", options={"codebook_size": 32, "channels": "16,16", "residual_channels": 8}),
    "fsq-vae": Member("fsq-vae", options={"levels": "4,3,5", "channels": "16,16", "residual_channels": 8}),
    "lfq-vae": Member("lfq-vae", options={"codebook_size": 32, "channels": "16,16", "residual_channels": 8}),
    "residual-vq-vae": Member(
        "residual-vq-vae",
        options={"codebook_size": 16, "codebooks": 3, "channels": "16,16", "residual_channels": 8},
    ),
    "resnet-vae": Member("resnet-vae", options={"channels": "8,8", "latent_dim": 6, "norm_groups": 4}),
    "autoencoder-kl": Member("autoencoder-kl", options={"channels": "8,8", "norm_groups": 4}),
    "vq-autoencoder": Member("vq-autoencoder", options={"channels": "8,8", "norm_groups": 4, "codebook_size": 32}),
    "autoencoder-dc": Member(
        "autoencoder-dc", options={"channels": "8,16,16", "head_dim": 8, "decoder_norms": "batch,rms"}
    ),
    "tiny-autoencoder": Member("tiny-autoencoder", options={"channels": 8, "blocks": "1,1", "latent_norm": True}),
    "cppn-vae": Member("cppn-vae", options={"hidden": "32", "latent_dim": 6, "units": 16, "layers": 2}),
    "sentence-vae": Member("sentence-vae", "names", {"hidden": 32, "layers": 1}),
    "s-vae": Member("s-vae", options={"hidden": "32"}),
    "poincare-vae": Member("poincare-vae", options={"hidden": "32"}),
    "beta-tc-vae": Member("beta-tc-vae", options=SMALL_CONV),
    "dip-vae": Member("dip-vae", options=SMALL_CONV),
    "info-vae": Member("info-vae", options=SMALL_CONV),
    "wae": Member("wae", options=SMALL_CONV),
    "swae": Member("swae", options=SMALL_CONV),
    "aae": Member("aae", options={"hidden": "32", "objective.hidden": 32}),
    "ada-gvae": Member("ada-gvae", "shapes", {**SMALL_CONV, "channels": "8,8,8,8"}),
    "m2-vae": Member("m2-vae", options={"hidden": "32", "latent_dim": 6}),
    "tvae": Member("tvae", "penguins", {"hidden": "32", "latent_dim": 6}),
    "scvi": Member("scvi", "cells", {"hidden": "16", "latent_dim": 4}),
    # The same network on each other kind of data, and parts that only options choose.
    "table": Member("mlp-vae", "penguins", {"hidden": "32", "latent_dim": 3}),
    "series": Member("mlp-vae", "sines", {"hidden": "32", "latent_dim": 4}),
    "counts": Member("mlp-vae", "cells", {"hidden": "32", "latent_dim": 4}),
    "dreg": Member("iwae", options={"objective.k": 5, "objective.gradient": "dreg"}),
    "rae-gp": Member("rae", options={**SMALL_CONV, "objective.penalty": "gp"}),
    "full": Member("mlp-vae", options={"posterior": "full", "latent_dim": 6}),
    "planar": Member("mlp-vae", options={"posterior": "planar", "latent_dim": 6}),
    "radial": Member("mlp-vae", options={"posterior": "radial", "latent_dim": 6}),
    "student": Member("mlp-vae", options={"posterior": "student", "prior": "student", "latent_dim": 6}),
    "realnvp": Member("mlp-vae", options={"prior": "realnvp", "latent_dim": 6}),
    "maf": Member("mlp-vae", options={"prior": "maf", "prior.steps": 2, "latent_dim": 6}),
    "hvae-vamp": Member("hvae", options={"hidden": "32,32", "latents": "4,6", "prior": "vamp", "prior.components": 20}),
    "dip-ii": Member("mlp-vae", options={"objective": "dip", "objective.kind": "ii", "latent_dim": 6}),
    "wae-rbf": Member("wae", options={**SMALL_CONV, "objective.kernel": "rbf", "objective.scales": "1"}),
    "conditional-prior": Member(
        "conv-vae",
        options={**SMALL_CONV, "condition": "labels", "prior": "conditional", "objective": "iwae", "objective.k": 3},
    ),
    "m2-labelled": Member(
        "m2-vae", options={"hidden": "32", "latent_dim": 6, "objective.labelled": 20, "objective.alpha": 1}
    ),
    "m2-conv": Member(
        "conv-vae", options={**SMALL_CONV, "condition": "inferred", "objective": "m2", "objective.labelled": 20}
    ),
    "latent-diffusion": Member(
        "autoencoder-kl",
        options={"channels": "8,8", "norm_groups": 4, "objective": "latent-diffusion", "objective.channels": 8}
        | {"objective.layers": 2, "objective.start": 0},
    ),
    "latent-diffusion-codes": Member(
        "vq-autoencoder",
        options={"channels": "8,8", "norm_groups": 4, "quantizer": "fsq", "levels": "3,4"}
        | {"objective": "latent-diffusion", "objective.channels": 8, "objective.layers": 2, "objective.start": 0},
    ),
    "latent-diffusion-conv": Member(
        "conv-vae",
        options={**SMALL_CONV, "objective": "latent-diffusion", "objective.channels": 8, "objective.start": 2},
    ),
    "vq-vae-2-fsq": Member(
        "vq-vae-2", options={"quantizer": "fsq", "levels": "3,4", "channels": "16,16", "residual_channels": 8}
    ),
    "sentence-iaf": Member(
        "sentence-vae", "names", {"hidden": 32, "layers": 1, "posterior": "iaf", "prior": "mixture"}
    ),
}


@functools.cache
def member_data(name: str, n: int = 200) -> Dataset:
    """Returns a data set with at most n examples in each split."""
    data = load_data(name)

    def first(split: Split) -> Split:
        return split.select(torch.arange(min(n, len(split))))

    test = None if data.test is None else first(data.test)
    return Dataset(spec=data.spec, train=first(data.train), valid=first(data.valid), test=test, source=data.source)
