"""Fuzzes each harness: guided by coverage if atheris is installed, else with inputs of hypothesis.

    python tests/fault_injection/fuzz.py --seconds 60 [--engine hypothesis] [NAME ...]

Each harness runs in a process of its own, with as many processes at once as there are cores. The exit code is 1 if a
harness failed. The failing input is then in the folder that the output names.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NAMES = ("run-json", "options", "manifest", "graph", "structure", "checkpoint", "arrays", "images", "tables", "parquet")
INPUT_SECONDS = 20  # an input that takes longer counts as a hang


def fuzz_with_atheris(name: str, seconds: int, work: Path) -> None:
    """Fuzzes one harness. libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["vaezoo", "vaezoo_cli"]):
        from harnesses import HARNESSES, limit_memory
    (work / "target").mkdir()
    harness = HARNESSES[name](work / "target")
    corpus = work / "corpus"
    corpus.mkdir()
    for i, seed in enumerate(harness.seeds):
        (corpus / str(i)).write_bytes(seed)
    limit_memory()
    flags = [
        f"-max_total_time={seconds}",
        f"-timeout={INPUT_SECONDS}",
        "-rss_limit_mb=0",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    atheris.Setup([name, *flags, f"-artifact_prefix={work}/", str(corpus)], harness.target)
    atheris.Fuzz()


def fuzz_with_hypothesis(name: str, seconds: int, work: Path) -> None:
    """Fuzzes one harness with new inputs until the time is over."""
    from harnesses import HARNESSES, limit_memory, mutants
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    harness, count, end = HARNESSES[name](work), 0, time.monotonic() + seconds
    limit_memory()

    @settings(
        max_examples=500,
        database=None,
        deadline=1000 * INPUT_SECONDS,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=True,
    )
    @given(mutants(harness.seeds) | st.binary(max_size=200))
    def read_inputs(data: bytes) -> None:
        nonlocal count
        count += 1
        harness.target(data)

    while time.monotonic() < end:
        read_inputs()
    print(f"stat::number_of_executed_units: {count}", file=sys.stderr)


def fuzz_in_child(name: str, seconds: int, engine: str) -> bool:
    """Fuzzes one harness in a child process. Returns whether it passed."""
    work = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    command = [sys.executable, __file__, name, "--seconds", str(seconds), "--engine", engine, "--work", str(work)]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    counts = [
        line.split()[-1] for line in result.stderr.splitlines() if line.startswith("stat::number_of_executed_units")
    ]
    verdict = f"FAILED, see {work}" if result.returncode else "ok"
    print(f"{name:12} {engine:10} {' '.join(counts) or '?':>9} inputs  {verdict}", flush=True)
    if result.returncode:
        (work / "output.txt").write_text(result.stdout + result.stderr)
        print("\n".join((result.stdout + result.stderr).splitlines()[-30:]))
    else:
        shutil.rmtree(work, ignore_errors=True)
    return not result.returncode


def main() -> None:
    """Fuzzes all harnesses or the named ones. With --work, which only its own children get, it fuzzes one."""
    guided = importlib.util.find_spec("atheris") is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"harnesses out of {', '.join(NAMES)}; default: all")
    parser.add_argument("--seconds", type=int, default=60, help="time for each harness")
    parser.add_argument("--engine", choices=("atheris", "hypothesis"), default="atheris" if guided else "hypothesis")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        fuzz = fuzz_with_atheris if args.engine == "atheris" else fuzz_with_hypothesis
        fuzz(args.names[0], args.seconds, args.work)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as executor:
            names = args.names or NAMES
            results = list(executor.map(lambda name: fuzz_in_child(name, args.seconds, args.engine), names))
        sys.exit(not all(results))


if __name__ == "__main__":
    main()
