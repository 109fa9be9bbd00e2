"""Where an expert can run, as numbers: declared natively (csrc/common/domain_code.h), here by name.

DIMM d is `FIRST_DIMM` + d; `IDLE` is an expert that nobody chose, `SPLIT` one of which every DIMM computes a
slice. A layout is the DIMM (or other place) that holds all of an expert's weights, or `STRIPED` over all.
"""

from trimoe._assign import CPU, FIRST_DIMM, GPU, IDLE, SPLIT, STRIPED

__all__ = ["CPU", "FIRST_DIMM", "GPU", "IDLE", "SPLIT", "STRIPED"]
