"""Image data sets: packaged, generated, downloaded or read from a folder."""
