"""Evaluation: numbers that stand beside the literature, each with its protocol."""
