"""Counts: arrays, sparse matrices and files of AnnData, and a generated set."""
