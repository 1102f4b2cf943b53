"""Parts that do not know what a model is: seeds, devices, processes, signals and files."""
