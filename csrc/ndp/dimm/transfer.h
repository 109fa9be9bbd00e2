// Bytes of an expert on their way from DIMM to DIMM.
#pragma once

#include <set>

#include "ndp/dimm/state.h"

namespace trimoe::ndp {

// DIMMs that the pieces lie on.
std::set<int> dimms_of(const std::vector<Piece>& one, const std::vector<Piece>& other);

// When the link ports of all of them are free, from `start_ns` on: a port carries one transfer at a time.
double link_free_ns(Peers& peers, const std::set<int>& dimms, double start_ns);

// How long the bytes of `from` need to those of `to`: as long as the port, or the ranks, of the DIMM that has
// most to do. What stays on its DIMM is read and written there.
double transfer_ns(const DimmConfig& config, const std::vector<Piece>& from, const std::vector<Piece>& to);

// The bytes of `from` become those of `to`, as far as the DIMMs on both sides answer until `until_ns`, and
// are counted: OK, TIMEOUT when one fell silent on the way, ECC, BAD_ADDRESS. share: of the bytes, below 1
// when the copy was stopped.
Status copy_pieces(Peers& peers, const std::vector<Piece>& from, const std::vector<Piece>& to,
                   double start_ns, double until_ns, double share);

// Whether both lists hold the same bytes now.
bool is_same(Peers& peers, const std::vector<Piece>& one, const std::vector<Piece>& other);

// OK when every piece lies in a region of a DIMM that there is; with `writable`, one that may be written.
Status check_pieces(Peers& peers, const std::vector<Piece>& pieces, bool writable);

// Whether memory under any of them cannot be corrected.
bool is_poisoned(Peers& peers, const std::vector<Piece>& pieces);

// The bytes of all pieces, one behind the other: where they lie if they lie so, else in `room`. Null unless
// every piece lies in a region.
const std::byte* bytes_together(Peers& peers, const std::vector<Piece>& pieces, std::vector<std::byte>& room);

// Bytes that have left a DIMM over its link.
void count_link(DimmState& sender, int64_t bytes);

// Whether any two of the pieces, of one list or of both, have a byte in common.
bool overlap(const std::vector<Piece>& one, const std::vector<Piece>& other);

int64_t bytes_of(const std::vector<Piece>& pieces);

}  // namespace trimoe::ndp
