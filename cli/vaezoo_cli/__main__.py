"""Where `vaezoo` and `python -m vaezoo_cli` begin."""

from __future__ import annotations

import sys

from vaezoo.stopping import Stopped, listening


def main() -> None:
    """Runs the command line. Signals are heard before anything else is imported, which may take seconds."""
    try:
        with listening():
            from vaezoo_cli.main import main as run

            run()
    except Stopped as e:
        sys.stderr.write(f"vaezoo: error: {e}\nhint: {e.hint}\n")
        sys.exit(e.exit_code)


if __name__ == "__main__":
    main()
