"""Measure the time of -log p(x) by importance sampling in vaezoo and in pythae (`get_nll`).

    python benchmarks/nll_speed.py                  the packaged digits, on this machine's CPU
    python benchmarks/nll_speed.py --device cuda    the packaged digits, on its GPU; with --data-dir, MNIST
    python benchmarks/nll_speed.py --tables         only the tables, from existing results

With --network, the other network's row in the machine's file stays. With --out, the results go to another folder and
README.md does not change.

Both backends have the same network, weights, threads and number of samples. They run in turns, and their estimates must
agree. vaezoo gets enough images to compile the estimate, and its time includes the compilation. On a GPU it gets the
whole test split, as an evaluation does, because the compilation takes longer than a few images. "product" is a lower
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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vaezoo
from reference_model import choose_data
from tables import HERE, hardware, machine, put_tables, quartiles, ratios, slug, table, versions
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment, gpu_environment
from vaezoo.core.json_io import json_bytes
from vaezoo.core.precision import tf32
from vaezoo.data.base import Split
from vaezoo.evaluation.likelihood import COMPILE_FROM, negative_log_likelihood

RESULTS = HERE / "results"
PREFIX = "nll-speed"
PACKAGES = ("vaezoo", "torch", "pythae")
NETWORKS: dict[str, tuple[str, dict[str, object], int]] = {  # model, options, images per round for vaezoo
    "mlp 784-400-20": ("mlp-vae", {"hidden": (400,), "latent_dim": 20}, 1000),
    "conv-vae": ("conv-vae", {}, 420),
}
PYTHAE_IMAGES = 10  # per round, for pythae and the product alone
SAMPLES = 5000
PYTHAE_BATCH_SIZE = 100  # pythae's default
PRODUCT_BATCH_SIZES = (250, 1000, 2500, 5000)


def to_pythae(vae: vaezoo.VAE) -> Any:
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
    vae: vaezoo.VAE, split: Split, images: dict[str, int], samples: int, device: torch.device
) -> dict[str, Callable[[], float]]:
    """Returns the backends. Each evaluates its number of images and returns the estimate."""
    model = to_pythae(vae)
    splits = {name: split.select(torch.arange(n)) for name, n in images.items()}

    def pythae() -> float:
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            x = splits["pythae"].batch(slice(None)).x.to(device)
            return -float(model.get_nll(x, n_samples=samples, batch_size=PYTHAE_BATCH_SIZE))  # get_nll returns log p(x)

    def product(batch_size: int) -> float:
        with torch.no_grad():
            z = torch.randn(batch_size, *vae.latent_shape, device=device)
            for _ in range(images["product"] * samples // batch_size):
                vae.decode(z)
            if device.type == "cuda":
                torch.cuda.synchronize()
        return math.nan

    def estimate() -> float:
        return negative_log_likelihood(vae, splits["vaezoo"], num_samples=samples).value

    products = {f"product {n}": lambda n=n: product(n) for n in PRODUCT_BATCH_SIZES}
    return {"pythae": pythae, "vaezoo": estimate, **products}


def measure(network: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measures one network. Returns milliseconds per image, and the ratios of pythae's time to the others."""
    name, options, vaezoo_images = NETWORKS[network]
    device, samples = args.device, args.samples
    data = vaezoo.load_data(choose_data(args.data_dir), data_dir=args.data_dir)
    torch.manual_seed(0)
    vae = vaezoo.create_model(name, data, options)
    vae.init_from_data(data.train)
    vae.to(device).eval()
    assert data.test is not None and isinstance(vae, vaezoo.VAE)
    if device.type == "cuda":
        vaezoo_images = len(data.test)
    images = {"pythae": PYTHAE_IMAGES, "vaezoo": vaezoo_images, "product": PYTHAE_IMAGES}
    if args.images:
        images = dict.fromkeys(images, args.images)
    assert args.images or vaezoo_images * samples >= COMPILE_FROM
    calls = backends(vae, data.test, images, samples, device)
    check_agreement(vae, data.test.select(torch.arange(images["pythae"])), calls["pythae"](), samples)  # also a warm-up
    times: dict[str, dict[int, float]] = {backend: {} for backend in calls}
    for number in range(args.rounds):
        for backend, call in calls.items():
            start = time.perf_counter()
            call()
            times[backend][number] = (time.perf_counter() - start) / images[backend.split()[0]]
        print(f"{network}: round {number + 1} of {args.rounds}", file=sys.stderr)
    best = min(PRODUCT_BATCH_SIZES, key=lambda n: quartiles(list(times[f"product {n}"].values()))["p50"])
    times = {"pythae": times["pythae"], "vaezoo": times["vaezoo"], "product": times[f"product {best}"]}
    return {
        "network": network,
        "images": images["vaezoo"],
        "product_batch": best,
        "milliseconds": {c: quartiles([1e3 * t for t in by_round.values()]) for c, by_round in times.items()},
        "over": {c: quartiles(ratios(times["pythae"], times[c])) for c in ("vaezoo", "product")},
    }


def check_agreement(vae: vaezoo.VAE, split: Split, expected: float, samples: int) -> None:
    """Raises AssertionError unless vaezoo's estimate is within one nat of pythae's."""
    actual = negative_log_likelihood(vae, split, num_samples=samples).value
    assert abs(actual - expected) < 1, f"pythae estimates {expected}, vaezoo {actual}"


def tables(results: Path = RESULTS) -> list[str]:
    """Returns the lines for README.md, with one table per machine."""
    lines: list[str] = []
    for file in sorted(results.glob(f"{PREFIX}-*.json")):
        result = json.loads(file.read_text())
        setting, about = result["setting"], result["environment"]
        threads = f", {setting['threads']} threads" if setting["device"] == "cpu" else ""
        protocol = f"{setting.get('samples', SAMPLES):,} samples an image, {setting['rounds']} rounds"
        description = f"{hardware(about)}{threads}; {versions(about)}. {protocol}"
        head = ["network", "pythae, an image", "vaezoo", "product alone", "vaezoo over pythae", "product over pythae"]
        lines += [f"### Likelihood on {machine(result)}", "", f"`results/{file.name}`. {description}.", ""]
        lines += [*table(head, [cells(row) for row in result["rows"]]), ""]
    return lines


def write_row(results: Path, row: dict[str, Any], args: argparse.Namespace) -> None:
    """Writes a network's row into the file of this machine, beside the rows of the other networks."""
    about = environment(PACKAGES) | ({"gpu": gpu_environment()} if args.device.type == "cuda" else {})
    threads = torch.get_num_threads()
    setting = {
        "device": args.device.type,
        "threads": threads,
        "rounds": args.rounds,
        "samples": args.samples,
        "data": choose_data(args.data_dir),
    }
    result: dict[str, Any] = {"schema": 1, "environment": about, "setting": setting}
    file = results / f"{PREFIX}-{slug(machine(result))}.json"
    old = json.loads(file.read_text("utf-8")) if file.exists() else {}
    same = old and (old["environment"]["versions"], old["setting"]) == (about["versions"], setting)
    rows = {r["network"]: r for r in (*(old["rows"] if same else ()), row)}
    write_file(file, json_bytes({**result, "rows": [rows[network] for network in NETWORKS if network in rows]}))
    print(file)


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
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--data-dir", type=Path, help="folder of torchvision's MNIST; default: the packaged digits")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="samples per image, a multiple of 100")
    parser.add_argument("--images", type=int, help="images per round for all backends, to try the script")
    parser.add_argument("--out", type=Path, help="write the results there and do not change README.md")
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    args = parser.parse_args()
    for network in [] if args.tables else args.network:
        with tf32(False):
            row = measure(network, args)
        write_row(args.out or RESULTS, row, args)
    if not args.out:
        put_tables(PREFIX, "nll_speed.py", tables())


if __name__ == "__main__":
    main()
