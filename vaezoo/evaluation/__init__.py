"""Evaluation: metrics as the literature computes them, each with its protocol."""
