"""trimoe's experts beside every other CPU implementation, in one run and against the machine's limits."""
