"""Models on disk and in memory: checkpoints, their shapes, the expert store, transformers."""
