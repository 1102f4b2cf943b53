"""Data sets of sounds: log-mel spectrograms of files, and the way back."""
