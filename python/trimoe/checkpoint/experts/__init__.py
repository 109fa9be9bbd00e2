"""The experts' tensors of a checkpoint: names, layouts, scales, and where each expert's bytes are."""
