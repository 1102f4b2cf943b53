"""Data sets: packaged, generated, downloaded, from image folders and from arrays."""
