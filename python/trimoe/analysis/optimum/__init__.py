"""How good decisions are: the exact optimum of a layer, lower bounds, random layers, gaps."""
