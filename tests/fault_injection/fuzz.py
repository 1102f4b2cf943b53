"""Fuzzes each harness for a while: guided by coverage where atheris is installed, else by hypothesis' generator.

    python tests/fault_injection/fuzz.py --seconds 60 [--engine hypothesis] [NAME ...]

Each harness runs in a process of its own, as many at once as there are cores; the exit code is 1 if one of them found
something, and the input that did lies in the folder that is named.
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

NAMES = ("run-json", "options", "manifest", "graph", "structure", "checkpoint", "arrays", "images")
LONGEST = 20  # seconds that one input may take


def by_atheris(name: str, seconds: int, work: Path) -> None:
    """Fuzzes one harness; libFuzzer ends the process."""
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
        f"-timeout={LONGEST}",
        "-rss_limit_mb=0",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    atheris.Setup([name, *flags, f"-artifact_prefix={work}/", str(corpus)], harness.target)
    atheris.Fuzz()


def by_hypothesis(name: str, seconds: int, work: Path) -> None:
    """Fuzzes one harness with new inputs until the time is over."""
    from harnesses import HARNESSES, limit_memory, mutants
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    harness, count, end = HARNESSES[name](work), 0, time.monotonic() + seconds
    limit_memory()

    @settings(
        max_examples=500,
        database=None,
        deadline=1000 * LONGEST,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=True,
    )
    @given(mutants(harness.seeds) | st.binary(max_size=200))
    def some(data: bytes) -> None:
        nonlocal count
        count += 1
        harness.target(data)

    while time.monotonic() < end:
        some()
    print(f"stat::number_of_executed_units: {count}", file=sys.stderr)


def run(name: str, seconds: int, engine: str) -> bool:
    """Fuzzes one harness in a child and says whether all was well."""
    work = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    command = [sys.executable, __file__, name, "--seconds", str(seconds), "--engine", engine, "--work", str(work)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    inputs = [
        line.split()[-1] for line in done.stderr.splitlines() if line.startswith("stat::number_of_executed_units")
    ]
    verdict = f"FOUND, see {work}" if done.returncode else "ok"
    print(f"{name:12} {engine:10} {' '.join(inputs) or '?':>9} inputs  {verdict}", flush=True)
    if done.returncode:
        (work / "output.txt").write_text(done.stdout + done.stderr)
        print("\n".join((done.stdout + done.stderr).splitlines()[-30:]))
    else:
        shutil.rmtree(work, ignore_errors=True)
    return not done.returncode


def main() -> None:
    """Runs all harnesses or those named, or, called by itself with a folder to work in, one."""
    guided = importlib.util.find_spec("atheris") is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each harness")
    parser.add_argument("--engine", choices=("atheris", "hypothesis"), default="atheris" if guided else "hypothesis")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.work:
        (by_atheris if told.engine == "atheris" else by_hypothesis)(told.names[0], told.seconds, told.work)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(lambda name: run(name, told.seconds, told.engine), told.names or NAMES))
        sys.exit(not all(results))


if __name__ == "__main__":
    main()
