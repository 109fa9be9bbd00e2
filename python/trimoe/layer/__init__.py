"""One layer of experts: what it is, what it is packed from, and the op that computes it."""
