"""The JAX baseline of train_throughput.py: an epoch is one compiled scan over bytes in the device's memory."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from reference_model import CHANNELS, HIDDEN, LATENT_DIM, LOGVAR_BOUND, LR, PIXELS, Job, load_bytes
from train_workers import SkippedError, WorkerChannel

MAX_SYNCS = 5  # the loop waits for the device at most this many times per turn
WINDOW = 50  # the mean loss of this many steps is compared, as for the other backends
Params = dict[str, tuple[jax.Array, jax.Array]]
NHWC = ("NHWC", "HWIO", "NHWC")


def init(network: str, key: jax.Array) -> Params:
    """Draws weights and biases as PyTorch does: uniformly, bounded by the square root of 1 / fan-in."""
    latent, (first, second) = LATENT_DIM[network], CHANNELS
    features = second * 7 * 7
    shapes: dict[str, dict[str, tuple[tuple[int, ...], int]]] = {  # network -> layer -> shape of the weights, fan-in
        "mlp": {
            "in": ((PIXELS, HIDDEN), PIXELS),
            "posterior": ((HIDDEN, 2 * latent), HIDDEN),
            "latent": ((latent, HIDDEN), latent),
            "out": ((HIDDEN, PIXELS), HIDDEN),
        },
        "conv": {
            "in": ((4, 4, 1, first), 16),
            "down": ((4, 4, first, second), 16 * first),
            "posterior": ((features, 2 * latent), features),
            "latent": ((latent, features), latent),
            "up": ((4, 4, second, first), 16 * first),  # PyTorch's fan-in of a transposed kernel counts its outputs
            "out": ((4, 4, first, 1), 16),
        },
    }
    params = {}
    for name, (shape, fan_in) in shapes[network].items():
        key, weights, biases = jax.random.split(key, 3)
        bound = 1 / np.sqrt(fan_in)
        draw = partial(jax.random.uniform, minval=-bound, maxval=bound)
        params[name] = draw(weights, shape), draw(biases, shape[-1:])
    return params


def linear(layer: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    """Applies a linear layer."""
    return x @ layer[0] + layer[1]


def conv(layer: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    """Applies a convolution of kernel size 4, stride 2 and padding 1 to `(B, H, W, C)`.

    On the CPU it is a product of patches, because the gradients of XLA's convolutions take many times as long there in
    a scan.
    """
    weights, bias = layer
    if jax.default_backend() != "cpu":
        padding = ((1, 1), (1, 1))
        return jax.lax.conv_general_dilated(x, weights, (2, 2), padding, dimension_numbers=NHWC) + bias
    count, height, width, channels = x.shape
    # Group the padded pixels into blocks of 2x2: (B, H/2 + 1, W/2 + 1, 4 C).
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = x.reshape(count, height // 2 + 1, 2, width // 2 + 1, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    # Each output reads 2x2 neighbouring blocks: (B, H/2, W/2, 16 C).
    x = patches(x.reshape(count, height // 2 + 1, width // 2 + 1, 4 * channels))
    # Kernel row a + 2j multiplies row a of the j-th of two neighbouring blocks. The same holds for columns.
    blocks = weights.reshape(2, 2, 2, 2, channels, -1).transpose(0, 2, 1, 3, 4, 5)
    return x @ blocks.reshape(16 * channels, -1) + bias


def conv_transpose(layer: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    """Applies a transposed convolution of kernel size 4, stride 2 and padding 1 to `(B, H, W, C)`.

    On the CPU it is a product of patches, as in `conv`.
    """
    weights, bias = layer
    if jax.default_backend() != "cpu":
        padding = ((2, 2), (2, 2))  # kernel - 1 - padding
        return jax.lax.conv_transpose(x, weights, (2, 2), padding, dimension_numbers=NHWC) + bias
    count, height, width, channels = x.shape
    # Output row 2m + a is the sum over j of input row m + a - 1 + j times kernel row a + 2j.
    # The same holds for columns, with a' and j'. Order the kernel as (j, j', C) by (a, a', outputs).
    blocks = weights.reshape(2, 2, 2, 2, channels, -1).transpose(0, 2, 4, 1, 3, 5).reshape(4 * channels, -1)
    # Each 2x2 neighbourhood of the padded input gives its terms for all (a, a').
    out = patches(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))) @ blocks
    out = out.reshape(count, height + 1, width + 1, 2, 2, -1)
    # Interleave them: output row 2m + a comes from neighbourhood m + a.
    rows = [jnp.stack([out[:, a : a + height, b : b + width, a, b] for b in (0, 1)], axis=3) for a in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(count, 2 * height, 2 * width, -1) + bias


def patches(x: jax.Array) -> jax.Array:
    """Returns the 2x2 neighbourhoods of `(B, H, W, C)` as `(B, H - 1, W - 1, 4 C)`."""
    height, width = x.shape[1] - 1, x.shape[2] - 1
    return jnp.concatenate([x[:, a : a + height, b : b + width] for a in (0, 1) for b in (0, 1)], axis=3)


def encode(network: str, p: Params, x: jax.Array) -> jax.Array:
    """Returns means and raw log-variances `(B, 2 latent)` of images `(B, 784)`."""
    if network == "mlp":
        return linear(p["posterior"], jax.nn.relu(linear(p["in"], x)))
    h = jax.nn.relu(conv(p["in"], x.reshape(-1, 28, 28, 1)))
    h = jax.nn.relu(conv(p["down"], h))
    return linear(p["posterior"], h.reshape(len(h), -1))


def decode(network: str, p: Params, z: jax.Array) -> jax.Array:
    """Returns logits `(B, 784)` of latents `(B, latent)`."""
    h = jax.nn.relu(linear(p["latent"], z))
    if network == "mlp":
        return linear(p["out"], h)
    h = jax.nn.relu(conv_transpose(p["up"], h.reshape(-1, 7, 7, CHANNELS[1])))
    return conv_transpose(p["out"], h).reshape(-1, PIXELS)


def negative_elbo(network: str, p: Params, x: jax.Array, key: jax.Array) -> jax.Array:
    """Returns the negative ELBO in nats per image."""
    mu, raw = jnp.split(encode(network, p, x), 2, axis=1)
    logvar = LOGVAR_BOUND * jnp.tanh(raw / LOGVAR_BOUND)
    z = mu + jnp.exp(0.5 * logvar) * jax.random.normal(key, mu.shape)
    reconstruction = optax.sigmoid_binary_cross_entropy(decode(network, p, z), x).sum(1)
    kl = 0.5 * (mu**2 + jnp.exp(logvar) - 1 - logvar).sum(1)
    return (reconstruction + kl).mean()


def train(job: Job, channel: WorkerChannel) -> None:
    """Trains one epoch per call. If an epoch takes longer than a turn, each call trains an equal part of it."""
    jax.config.update("jax_default_matmul_precision", "float32")  # on a GPU the default is TF32
    platform = jax.default_backend()
    if platform != {"cpu": "cpu", "cuda": "gpu"}[job.device]:
        raise SkippedError(f"jax runs on {platform} here")
    images = jnp.asarray(load_bytes(job).numpy().reshape(-1, PIXELS))
    per_epoch = len(images) // job.batch
    optimizer = optax.adam(LR)

    @partial(jax.jit, donate_argnums=(0,))
    def scan(state: Any, rows: jax.Array, images: jax.Array) -> tuple[Any, jax.Array]:
        def step(state: Any, row: jax.Array) -> tuple[Any, jax.Array]:
            params, moments, key = state
            key, noise = jax.random.split(key)
            x = images[row].astype(jnp.float32) / 255
            loss, gradients = jax.value_and_grad(partial(negative_elbo, job.network))(params, x, noise)
            updates, moments = optimizer.update(gradients, moments, params)
            return (optax.apply_updates(params, updates), moments, key), loss

        return jax.lax.scan(step, state, rows)

    @jax.jit
    def shuffle(key: jax.Array) -> jax.Array:
        return jax.random.permutation(key, len(images))[: per_epoch * job.batch].reshape(per_epoch, job.batch)

    def chunks(length: int) -> Iterator[jax.Array]:
        for epoch in itertools.count():
            rows = shuffle(jax.random.fold_in(order, epoch))
            for first in range(0, per_epoch - length + 1, length):
                yield rows if length == per_epoch else rows[first : first + length]

    key, order = jax.random.split(jax.random.PRNGKey(0))
    params = init(job.network, key)
    channel.info["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(params))
    state: Any = (params, optimizer.init(params), key)
    losses: list[jax.Array] = []
    scan.lower(state, shuffle(order), images).compile()  # so that the time of the first epoch excludes compilation
    for rows in itertools.islice(chunks(per_epoch), math.ceil(job.warm_up / per_epoch)):
        start = time.perf_counter()
        state, epoch_losses = scan(state, rows, images)
        losses.append(epoch_losses.block_until_ready())
        epoch_seconds = time.perf_counter() - start
    length = per_epoch // math.ceil(epoch_seconds / job.seconds)
    calls = max(1, int(job.seconds / MAX_SYNCS / epoch_seconds))  # several short epochs run without a wait in between
    all_chunks = chunks(length)
    state, _ = scan(state, next(all_chunks), images)  # compiles the scan over a part of an epoch
    warm_up_loss = float(jnp.concatenate(losses)[job.warm_up - WINDOW : job.warm_up].mean())
    channel.record_window(job.warm_up, 0, 0.0, warm_up_loss)
    while True:
        start = time.perf_counter()
        for rows in itertools.islice(all_chunks, calls):
            state, chunk_losses = scan(state, rows, images)
        mean = float(chunk_losses.mean())  # waits for the device
        channel.record_window(calls * length, calls * length * job.batch, time.perf_counter() - start, mean)
