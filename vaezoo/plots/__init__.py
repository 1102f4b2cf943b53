"""The kinds of plots, as files in memory. `vaezoo sample` and `vaezoo reconstruct` use the first two."""
