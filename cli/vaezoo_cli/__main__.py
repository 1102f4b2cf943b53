"""Where `vaezoo` and `python -m vaezoo_cli` begin."""

from __future__ import annotations

import sys

from vaezoo.core.signals import Stopped, handle_signals


def main() -> None:
    """Runs the command line. Signals are heard before anything else is imported, which may take seconds."""
    try:
        with handle_signals():
            from vaezoo_cli.main import main as run

            run()
    except Stopped as e:
        sys.stderr.write(f"vaezoo: error: {e}\nhint: {e.hint}\n")
        sys.exit(e.exit_code)


if __name__ == "__main__":
    main()
