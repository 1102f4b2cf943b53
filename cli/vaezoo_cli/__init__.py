"""The command `vaezoo`: click reads, rich draws, the library works."""
