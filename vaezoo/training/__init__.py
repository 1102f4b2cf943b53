"""Training: one Trainer for all models, its settings, checkpoints and run folders."""
