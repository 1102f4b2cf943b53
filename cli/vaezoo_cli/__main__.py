"""The entry point of `vaezoo` and `python -m vaezoo_cli`."""

from __future__ import annotations

import io
import sys

from vaezoo.core.signals import Stopped, handle_signals


def main() -> None:
    """Runs the command line. Signals are handled before the other imports, which may take seconds."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Not every terminal can show ± or a file's name. Python itself already does so on stderr.
        sys.stdout.reconfigure(errors="replace")
    try:
        with handle_signals():
            from vaezoo_cli.main import main as run

            run()
    except Stopped as e:
        sys.stderr.write(f"vaezoo: error: {e}\nhint: {e.hint}\n")
        sys.exit(e.exit_code)


if __name__ == "__main__":
    main()
