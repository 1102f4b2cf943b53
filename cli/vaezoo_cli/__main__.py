"""`python -m vaezoo_cli`, for launchers such as torchrun."""

from vaezoo_cli.main import main

main()
