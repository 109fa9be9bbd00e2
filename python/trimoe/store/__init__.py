"""Packed experts: in memory, in the cache, in folders."""
