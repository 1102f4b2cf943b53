"""latents.json: what an export says about its latents, for programs that show them. `vaezoo explore` does.

It describes the first examples of the run, as many as the gate compares. The first eight are the golden ones:

    space       where z lies; see `vaezoo.priors.base.Prior`
    codes       number of codes of a quantizer, or null if z are real numbers
    kl          mean KL of each latent in nats, or null if the KL has no parts of single latents
    z           the modes of q(z|x), flattened
    y           the labels, or null
    attributes  for a factor and a label, the mean z of examples with the label minus that of the others
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from vaezoo.data.base import Batch, given
from vaezoo.errors import VaezooError
from vaezoo.export.cases import example_count
from vaezoo.posteriors.base import Posterior, map_tensors
from vaezoo.runtime.manifest import GraphName
from vaezoo.vae import VAE, eval_mode

FILE = "latents.json"
SCHEMA = 1
MAX_LATENTS = 4096  # of a file that a page reads at once
MAX_CLASSES = 40  # of a factor whose labels get a direction
DIGITS = 6


def latent_files(vae: VAE, graphs: Collection[GraphName], examples: Batch | None) -> dict[str, bytes]:
    """Returns latents.json by its name. Empty without encoder or examples, and for very large latents.

    Args:
        vae: The model, on the CPU.
        graphs: The graphs of the export.
        examples: Real data.
    """
    if examples is None or "encoder" not in graphs or math.prod(vae.latent_shape) > MAX_LATENTS:
        return {}
    count = example_count(vae.shapes)  # as in the gate: encoding large images takes memory and time
    examples = map_tensors(examples, lambda tensor: tensor[:count])
    with eval_mode(vae):
        posterior = vae.infer(examples)
        z = posterior.mode()
        if not z.isfinite().all():  # the gate names the graph that gives them
            return {}
        kl = None if vae.prior.codes is not None else kl_by_latent(vae, posterior, z, examples)
    labels = None if examples.y is None else examples.y.reshape(len(z), -1)
    is_real = z.is_floating_point() and vae.prior.space == "real"
    attributes = [] if labels is None or not is_real else list(attribute_vectors(z.flatten(1), labels))
    content = {
        "schema": SCHEMA,
        "space": vae.prior.space,
        "codes": vae.prior.codes,
        "kl": kl,
        "z": [rounded(row) for row in z.flatten(1)],
        "y": None if labels is None else labels.tolist(),
        "attributes": attributes,
    }
    return {FILE: json.dumps(content, allow_nan=False, separators=(",", ":")).encode()}


def kl_by_latent(vae: VAE, posterior: Posterior, z: Tensor, batch: Batch) -> list[float] | None:
    """Returns the mean KL of each latent in nats. None if the prior does not give one part for each latent."""
    try:
        terms = vae.prior.kl_terms(posterior, z, *given(vae.prior.inputs, batch)).mean(0).flatten()
    except VaezooError:  # some densities, as behind a flow, are known only of z that they drew
        return None
    return rounded(terms) if len(terms) == math.prod(vae.latent_shape) > 1 and bool(terms.isfinite().all()) else None


def attribute_vectors(z: Tensor, labels: Tensor) -> Iterator[dict[str, object]]:
    """Yields the direction of each label that some examples have and others have not.

    A factor of two labels has one direction.

    Args:
        z: `(N, latents)`.
        labels: `(N, factors)`.
    """
    for factor, column in enumerate(labels.unbind(1)):
        present = [label for label in torch.unique(column).tolist() if label >= 0]
        if not 2 <= len(present) <= MAX_CLASSES:
            continue
        for label in present[1:] if len(present) == 2 else present:
            has = column == label
            direction = z[has].mean(0) - z[~has].mean(0)
            yield {"factor": factor, "label": label, "direction": rounded(direction)}


def rounded(values: Tensor) -> list[float]:
    """Returns values with six digits, which a page does not need more of. Whole numbers stay whole."""
    if not values.is_floating_point():
        return values.tolist()
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]
