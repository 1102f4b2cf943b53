"""python -m vaezoo_runtime verify FOLDER, or bench FOLDER. Both need the extra `verify`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from vaezoo_runtime.core.counts import whole_number
from vaezoo_runtime.errors import VaezooError


def verify(args: argparse.Namespace) -> None:
    """Checks an export and prints the largest differences."""
    from vaezoo_runtime.export.verify import verify_onnx

    result = verify_onnx(args.folder, args.provider, tolerance=args.tolerance)
    for row in result.parity:
        print(f"{row.graph}, {row.inputs}, {row.output}: {row.difference:.1e}, limit {row.limit:.1e}")
    print(f"derived: {', '.join(result.derived)}" if result.derived else "ok")


def bench(args: argparse.Namespace) -> None:
    """Times an export and prints the medians, or all of the result as JSON."""
    from vaezoo_runtime.bench.backends import BenchConfig, default_threads
    from vaezoo_runtime.bench.runner import bench as measure
    from vaezoo_runtime.bench.workload import from_export

    threads = default_threads() if args.threads is None else whole_number("--threads", args.threads, 1)
    batches = [whole_number("--batch", batch, 1) for batch in args.batch]
    if not 0 < args.seconds < math.inf:
        raise VaezooError(f"--seconds is {args.seconds:g}", "give a number above 0")
    config = BenchConfig(args.provider, threads)
    result = measure(from_export(Path(args.folder)), config, batches, seconds=args.seconds)
    if args.json:
        print(json.dumps(result, indent=2))
        return
    for row in result["rows"]:
        what = f"{row['task']}, batch {row['batch']}, {row['io_mode']}, {row['backend']}"
        print(f"{what}: {row['p50']:.3f} ms (p99 {row['p99']:.3f}), {row['images_per_s']:.0f} examples a second")


class Parser(argparse.ArgumentParser):
    """A parser whose errors have two lines, as those of `vaezoo`."""

    def error(self, message: str) -> NoReturn:
        print(f"vaezoo_runtime: error: {message}\nhint: see {self.prog} --help", file=sys.stderr)
        sys.exit(VaezooError.exit_code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. An error is two lines on stderr, and its exit code is that of `vaezoo`."""
    parser = Parser(prog="vaezoo_runtime", description="Verify or time an export without torch.")
    commands = parser.add_subparsers(required=True)
    for command in (verify, bench):
        options = commands.add_parser(command.__name__, help=command.__doc__)
        options.set_defaults(command=command)
        options.add_argument("folder")
        options.add_argument("--provider", choices=["cpu", "cuda"], default="cpu")
        if command is verify:
            options.add_argument("--tolerance", type=float, help="accept graphs derived from those of the export")
        else:
            options.add_argument("--batch", type=int, nargs="+", default=[1, 64])
            options.add_argument("--seconds", type=float, default=1.0)
            options.add_argument("--threads", type=int)
            options.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    try:
        args.command(args)
    except VaezooError as e:
        print(f"vaezoo_runtime: error: {e.message}\nhint: {e.hint}", file=sys.stderr)
        return e.exit_code
    except ModuleNotFoundError as e:
        hint = 'pip install "vaezoo-runtime[cpu,verify]"'
        print(f"vaezoo_runtime: error: {e.name} is not installed\nhint: {hint}", file=sys.stderr)
        return VaezooError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
