"""What the machine has: CPU instruction sets, cores, memory, NUMA, GPU; measured rooflines; memory ledger."""
