"""Measure on a GPU machine that is lent for some minutes, the most important rows first; see GPU.md.

    python benchmarks/gpu.py latency --out FOLDER                     the tests on CUDA, ONNX Runtime against PyTorch
    python benchmarks/gpu.py training --out FOLDER --data-dir MNIST   training throughput
    python benchmarks/gpu.py likelihood --out FOLDER                  time of the likelihood against pythae
    python benchmarks/gpu.py recipes --out FOLDER --data-dir MNIST    recipes with the schedules of their papers

Each row is a process with a time limit. What it did is in FOLDER/gpu-PART.json as soon as it ends. The results are in
the files that onnx_latency.py, train_throughput.py, nll_speed.py and recipes.py read, so copy them to results/.
`--device cpu --tiny` tries everything on any machine. The name is not cuda.py, because PyTorch imports a package cuda.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gpu_rows import ROOT, Outcome, Row, run_rows
from tables import table
from vaezoo.core.json_io import write_json
from vaezoo.errors import VaezooError

HERE = Path(__file__).parent
MODELS = ("conv-vae", "mlp-vae", "beta-vae", "vae-gan", "autoencoder")
BATCHES = ("64", "1", "1024", "8", "256")  # the most important ones first
WORKLOADS = {  # name of the row -> arguments of onnx_latency.py
    "conv-vae": "--model conv-vae --task decoder encoder",
    "mlp-vae": "--model mlp-vae --task decoder encoder",
    "conv-vae fp16": "--model conv-vae --dtype fp16 --task decoder",
    "conv-vae 3x128x128": "--model conv-vae --shape 3 128 128 --task decoder encoder",
    "mlp-vae fp16": "--model mlp-vae --dtype fp16 --task decoder",
    "conv-vae 3x128x128 fp16": "--model conv-vae --shape 3 128 128 --dtype fp16 --task decoder",
}
TINY_WORKLOADS = {
    "mlp-vae": "--model mlp-vae --task decoder",
    "conv-vae 3x16x16 fp16": "--model conv-vae --shape 3 16 16 --dtype fp16 --task decoder",
}
CASES = (("mlp", 128), ("mlp", 2048), ("conv", 512), ("conv", 128), ("mlp", 512), ("conv", 2048))
NETWORKS = ("mlp 784-400-20", "conv-vae")  # of nll_speed.py
RECIPES = ("gated-300-300-40", "burda-1l")
NOTE = 70  # characters of a row's output in the last table


def script(name: str, *arguments: object) -> list[str]:
    """Returns the command that runs a script of this folder."""
    return [str(HERE / f"{name}.py"), *map(str, arguments)]


def lacks(*packages: str) -> str:
    """Returns which of some packages are not installed, as text, or ""."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def lacks_provider(device: str) -> str:
    """Returns why ONNX Runtime cannot run on a device, or ""."""
    from vaezoo.runtime.ort_session import require_cuda, require_runtime

    try:
        require_runtime()
        if device == "cuda":
            require_cuda()
    except VaezooError as error:
        return error.message
    return ""


def latency_rows(args: argparse.Namespace) -> list[Row]:
    """Tests, verification and compilation side by side, then the latencies, then profiles of what is slow."""
    missing = lacks_provider(args.device)
    models, workloads = (MODELS[1:2], TINY_WORKLOADS) if args.tiny else (MODELS, WORKLOADS)
    small = ["--batch", "2", "--seconds", "0.001"] if args.tiny else ["--batch", *BATCHES]
    untimed = {"facts": script("gpu_tasks", "facts", args.device), "tests": gpu_tests(args.tiny)}
    independent = set(untimed)  # of ONNX Runtime
    for model in models:
        untimed[f"verify {model}"] = script("gpu_tasks", "verify", args.device, "--model", model)
    timed = {}
    for name, text in workloads.items():
        timed[f"latency {name}"] = script("onnx_latency", "--device", args.device, "--out", args.out, *text.split())
        timed[f"latency {name}"] += [*small, "--limit", "{limit}"]
        untimed[f"compile {name}"] = [*timed[f"latency {name}"], "--compile-ahead"]
    rows = [
        Row(name=name, command=command, least=30, most=150, beside=True, missing="" if name in independent else missing)
        for name, command in untimed.items()
    ]
    rows += [Row(name=n, command=command, least=30, most=120, missing=missing) for n, command in timed.items()]
    profile = script("gpu_tasks", "profile", args.device, "--out", args.out, "--limit", "{limit}")
    return [*rows, Row(name="profile", command=profile, least=40, most=120, missing=missing)]


def gpu_tests(tiny: bool) -> list[str]:
    """Returns the command that runs the tests marked gpu. With pytest-xdist, it runs six processes."""
    files = [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text()]
    parallel = ["-n", "6"] if importlib.util.find_spec("xdist") and not tiny else []
    return ["-m", "pytest", "-m", "gpu", "-rfEs", "-p", "no:cacheprovider", *parallel, *(files[:1] if tiny else files)]


def training_rows(args: argparse.Namespace) -> list[Row]:
    """One row for each network and batch size. Backends that cannot run are named in the result."""
    small = ["--rounds", 8, "--seconds", 0.5]
    if args.tiny:
        small = ["--rounds", 1, "--seconds", 0.05, "--warm-up", 50]
    if args.data_dir:
        small += ["--data-dir", args.data_dir]
    rows = []
    for network, batch in CASES[:1] if args.tiny else CASES:
        command = script("train_throughput", "--device", args.device, "--network", network, "--batch", batch)
        command += [*map(str, small), "--together", "--limit", "{limit}", "--out", str(args.out)]
        rows.append(Row(name=f"training {network} {batch}", command=command, least=110, most=240))
    return rows


def likelihood_rows(args: argparse.Namespace) -> list[Row]:
    """One row for each network."""
    small = ["--rounds", "1", "--samples", "100", "--images", "2"] if args.tiny else []
    if args.data_dir:
        small += ["--data-dir", str(args.data_dir)]
    rows = []
    for network in NETWORKS[:1] if args.tiny else NETWORKS:
        command = script("nll_speed", "--device", args.device, "--network", network, "--out", args.out, *small)
        rows.append(Row(name=f"likelihood {network}", command=command, least=40, most=200, missing=lacks("pythae")))
    return rows


def recipe_rows(args: argparse.Namespace) -> list[Row]:
    """One row for each recipe. A row whose time is over has packed its run, and a later visit continues it."""
    options = ["--device", args.device, "--runs", args.runs, "--out", args.out]
    options += ["--data-dir", args.data_dir] if args.data_dir else []
    options += ["--resume", args.resume] if args.resume else []
    options += ["--tiny"] if args.tiny else []
    missing = "" if args.data_dir or args.tiny else "give --data-dir, the folder of MNIST"
    names = args.recipe[:1] if args.tiny else args.recipe
    return [
        Row(name=f"recipe {n}", command=script("gpu_recipes", n, *options), least=40, most=1e6, missing=missing)
        for n in names
    ]


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "latency": latency_rows,
    "training": training_rows,
    "likelihood": likelihood_rows,
    "recipes": recipe_rows,
}


def measure(part: str, rows: list[Row], args: argparse.Namespace) -> list[Outcome]:
    """Runs the rows and writes what each did as soon as it ends. An interruption ends the measurement early."""
    outcomes: list[Outcome] = []
    start = time.monotonic()

    def report(outcome: Outcome) -> None:
        outcomes.append(outcome)
        head = {"schema": 1, "part": part, "device": args.device, "tiny": args.tiny, "budget": args.budget}
        write_json(args.out / f"gpu-{part}.json", {**head, "rows": outcomes})
        at = time.monotonic() - start
        print(f"{at:4.0f} s  {outcome['row']}: {outcome['status']}", file=sys.stderr, flush=True)

    try:
        run_rows(rows, args.budget, report)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    return outcomes


def summary(outcomes: list[Outcome]) -> list[str]:
    """Returns the table of what the rows did."""
    cells = []
    for outcome in outcomes:
        note = " ".join(str(outcome.get("result") or outcome["output"]).split())
        cells.append([outcome["row"], outcome["status"], f"{outcome['seconds']:.0f}", note[-NOTE:]])
    return table(["row", "status", "s", "note"], cells)


def measured(out: Path) -> list[str]:
    """Returns the tables of all results in a folder, as README.md will show them."""
    import nll_speed
    import onnx_latency
    import recipes
    import train_results

    lines = [*onnx_latency.tables(out), *train_results.tables(out), *nll_speed.tables(out)]
    return [*lines, *(line for file in out.glob("recipes-*.json") for line in recipes.file_tables(file))]


def main() -> int:
    """Reads the arguments, measures, and prints the tables. Returns 1 if a row failed or did not run to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--budget", type=float, default=420.0, help="seconds for all rows")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--data-dir", type=Path, help="folder of torchvision's MNIST")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="only rows with one of these texts in their names")
    parser.add_argument("--recipe", nargs="+", choices=RECIPES, default=list(RECIPES), help="recipes, in this order")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "gpu", help="folder of the recipes' runs")
    parser.add_argument("--resume", type=Path, help="folder of the packed runs of an earlier visit")
    parser.add_argument("--tiny", action="store_true", help="few rows that take seconds, to try the script")
    args = parser.parse_args()
    try:
        version("vaezoo")
    except PackageNotFoundError:
        parser.error("vaezoo is not installed: run gpu_setup.py first")
    for name in ("out", "data_dir", "runs", "resume"):  # rows run in the root of the repository
        path = getattr(args, name)
        setattr(args, name, path and path.absolute())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A row that is ended while it compiles may leave half a file in PyTorch's cache, so the rows have their own.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(ROOT / "build" / "inductor"))
    parts = list(PARTS) if args.part == "all" else [args.part]
    rows = [row for part in parts for row in PARTS[part](args)]
    rows = [row for row in rows if not args.only or any(text in row.name for text in args.only)]
    outcomes = measure(args.part, rows, args)
    try:
        print("\n".join(measured(args.out)))
    except Exception as error:  # the tables must not hide what the rows did
        print(f"no tables: {error!r}")
    print("\n".join(["", *summary(outcomes)]))
    return 0 if all(outcome["status"] in ("done", "skipped") for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
