"""Measure the time of -log p(x) by importance sampling in vaezoo and in pythae (`get_nll`).

    python benchmarks/nll_speed.py                  the packaged digits, on this machine's CPU
    python benchmarks/nll_speed.py --device cuda    the packaged digits, on its GPU
    python benchmarks/nll_speed.py --tables         only the tables, from existing results

Both backends have the same network, weights, threads and number of samples. They run in turns, and their estimates must
agree. vaezoo gets enough images to compile the estimate, and its time includes the compilation. "product" is a lower
bound: only the decoder's matrix products and convolutions, for the same number of latents. It runs in float32 without
compilation, in batches of the best size.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import vaezoo
from tables import HERE, hardware, machine, put_tables, quartiles, ratios, slug, table, versions
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment, gpu_environment
from vaezoo.core.json_io import json_bytes
from vaezoo.data.base import Split
from vaezoo.evaluation.likelihood import COMPILE_FROM, negative_log_likelihood

RESULTS = HERE / "results"
PREFIX = "nll-speed"
PACKAGES = ("vaezoo", "torch", "pythae")
NETWORKS: dict[str, tuple[str, dict[str, object], int]] = {  # model, options, images per round for vaezoo
    "mlp 784-400-20": ("mlp-vae", {"hidden": (400,), "latent_dim": 20}, 1000),
    "conv-vae": ("conv-vae", {}, 420),
}
SAMPLES = 5000
PYTHAE_BATCH_SIZE = 100  # pythae's default
PRODUCT_BATCH_SIZES = (250, 1000, 2500, 5000)


def to_pythae(vae: vaezoo.GaussianVAE) -> Any:
    """Returns a VAE of pythae with the encoder and decoder of `vae`."""
    logging.disable(logging.WARNING)
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.latent_dim = vae.latent_shape[0]

        def forward(self, x: Tensor) -> Any:
            posterior: Any = vae.encode(x)
            return ModelOutput(embedding=posterior.mu, log_covariance=posterior.logvar)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(vae.decode(z)))

    shape = vae.data.shape
    config = VAEConfig(input_dim=shape, latent_dim=vae.latent_shape[0], reconstruction_loss="bce")
    return VAE(config, encoder=Encoder(), decoder=Decoder()).eval()


def backends(
    vae: vaezoo.GaussianVAE, split: Split, images: dict[str, int], device: torch.device
) -> dict[str, Callable[[], float]]:
    """Returns the backends. Each evaluates its number of images and returns the estimate."""
    model = to_pythae(vae)
    splits = {name: split.select(torch.arange(n)) for name, n in images.items()}

    def pythae() -> float:
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            x = splits["pythae"].batch(slice(None)).x.to(device)
            return -float(model.get_nll(x, n_samples=SAMPLES, batch_size=PYTHAE_BATCH_SIZE))  # get_nll returns log p(x)

    def product(batch_size: int) -> float:
        with torch.no_grad():
            z = torch.randn(batch_size, *vae.latent_shape, device=device)
            for _ in range(images["product"] * SAMPLES // batch_size):
                vae.decode(z)
            if device.type == "cuda":
                torch.cuda.synchronize()
        return math.nan

    def estimate() -> float:
        return negative_log_likelihood(vae, splits["vaezoo"], num_samples=SAMPLES).value

    products = {f"product {n}": lambda n=n: product(n) for n in PRODUCT_BATCH_SIZES}
    return {"pythae": pythae, "vaezoo": estimate, **products}


def measure(network: str, rounds: int, device: torch.device) -> dict[str, Any]:
    """Measures one network. Returns milliseconds per image, and the ratios of pythae's time to the others."""
    name, options, vaezoo_images = NETWORKS[network]
    data = vaezoo.load_data("digits")
    torch.manual_seed(0)
    vae = vaezoo.create_model(name, data, options)
    vae.init_from_data(data.train)
    vae.to(device).eval()
    assert data.test is not None and isinstance(vae, vaezoo.GaussianVAE)
    images = {"pythae": 10, "vaezoo": vaezoo_images, "product": 10}
    assert vaezoo_images * SAMPLES >= COMPILE_FROM
    calls = backends(vae, data.test, images, device)
    check_agreement(vae, data.test.select(torch.arange(images["pythae"])), calls["pythae"]())  # also a warm-up
    times: dict[str, dict[int, float]] = {backend: {} for backend in calls}
    for number in range(rounds):
        for backend, call in calls.items():
            start = time.perf_counter()
            call()
            times[backend][number] = (time.perf_counter() - start) / images[backend.split()[0]]
        print(f"{network}: round {number + 1} of {rounds}", file=sys.stderr)
    best = min(PRODUCT_BATCH_SIZES, key=lambda n: quartiles(list(times[f"product {n}"].values()))["p50"])
    times = {"pythae": times["pythae"], "vaezoo": times["vaezoo"], "product": times[f"product {best}"]}
    return {
        "network": network,
        "product_batch": best,
        "milliseconds": {c: quartiles([1e3 * t for t in by_round.values()]) for c, by_round in times.items()},
        "over": {c: quartiles(ratios(times["pythae"], times[c])) for c in ("vaezoo", "product")},
    }


def check_agreement(vae: vaezoo.VAE, split: Split, expected: float) -> None:
    """Raises AssertionError unless vaezoo's estimate is within one nat of pythae's."""
    actual = negative_log_likelihood(vae, split, num_samples=SAMPLES).value
    assert abs(actual - expected) < 1, f"pythae estimates {expected}, vaezoo {actual}"


def tables() -> list[str]:
    """Returns the lines for README.md, with one table per machine."""
    lines: list[str] = []
    for file in sorted(RESULTS.glob(f"{PREFIX}-*.json")):
        result = json.loads(file.read_text())
        setting, about = result["setting"], result["environment"]
        threads = f", {setting['threads']} threads" if setting["device"] == "cpu" else ""
        protocol = f"{SAMPLES:,} samples an image, {setting['rounds']} rounds"
        description = f"{hardware(about)}{threads}; {versions(about)}. {protocol}"
        head = ["network", "pythae, an image", "vaezoo", "product alone", "vaezoo over pythae", "product over pythae"]
        lines += [f"### Likelihood on {machine(result)}", "", f"`results/{file.name}`. {description}.", ""]
        lines += [*table(head, [cells(row) for row in result["rows"]]), ""]
    return lines


def cells(row: dict[str, Any]) -> list[str]:
    """Returns a row of the table: medians with quartiles."""
    times = [f"{v['p50']:.3g} ms ({v['p25']:.3g} to {v['p75']:.3g})" for v in row["milliseconds"].values()]
    speedups = [f"{v['p50']:.2f} ({v['p25']:.2f} to {v['p75']:.2f})" for v in row["over"].values()]
    return [row["network"], *times, *speedups]


def main() -> None:
    """Parses the arguments, measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all backends")
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    args = parser.parse_args()
    if not args.tables:
        about = environment(PACKAGES) | ({"gpu": gpu_environment()} if args.device.type == "cuda" else {})
        setting = {"device": args.device.type, "threads": torch.get_num_threads(), "rounds": args.rounds}
        rows = [measure(network, args.rounds, args.device) for network in NETWORKS]
        result = {"schema": 1, "environment": about, "setting": setting, "rows": rows}
        write_file(RESULTS / f"{PREFIX}-{slug(machine(result))}.json", json_bytes(result))
    put_tables(PREFIX, "nll_speed.py", tables())


if __name__ == "__main__":
    main()
