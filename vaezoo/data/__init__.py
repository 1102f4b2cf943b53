"""Data sets: packaged, generated, downloaded, read from image folders or made of arrays."""
