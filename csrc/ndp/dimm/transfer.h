// Bytes of an expert on their way from DIMM to DIMM.
#pragma once

#include "ndp/dimm/state.h"

namespace trimoe::ndp {

// Takes the link ports of all DIMMs concerned from `start_ns` on, one transfer at a time; returns when it
// ends. `bytes`: those that cross the link.
double reserve_link(DimmState& dimm, const std::vector<int>& others, int64_t bytes, double start_ns);

// Bytes [0, bytes) of what `from` lists become those of `to`, as far as both sides live until `until_ns`: OK,
// TIMEOUT when a DIMM died on the way, ECC, BAD_ADDRESS. share: of the bytes, below 1 when the copy was
// stopped.
Status copy_pieces(Peers& peers, const std::vector<Piece>& from, const std::vector<Piece>& to,
                   double start_ns, double until_ns, double share);

// Whether both lists hold the same bytes now.
bool is_same(Peers& peers, const std::vector<Piece>& one, const std::vector<Piece>& other);

// OK when every piece lies in a region of a DIMM that there is; with `writable`, one that may be written.
Status check_pieces(Peers& peers, const std::vector<Piece>& pieces, bool writable);

// Bytes that have left `from` for `to`, and their energy.
void count_link(DimmState& from, DimmState& to, int64_t bytes);

int64_t bytes_of(const std::vector<Piece>& pieces);
// Of those pieces, the bytes that do not lie on the DIMM.
int64_t bytes_elsewhere(const std::vector<Piece>& pieces, int dimm);

}  // namespace trimoe::ndp
