"""Checkpoints on disk: files, tensors, the shape of the model. Needs no torch."""
