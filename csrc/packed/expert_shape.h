// Shape of one packed expert: one block of bytes that the CPU, and whatever reads its memory, understands.
#pragma once

#include "packed/activation.h"
#include "packed/layout.h"

namespace trimoe {

// An expert is [gate/up matrix][down matrix][gate/up bias][down bias], every part a multiple of 64 bytes.
struct ExpertShape {
  int64_t hidden = 0;
  int64_t inter = 0;
  WeightFormat weights;
  ActivationSpec activation;
  bool bias = false;

  // Columns of h that one gate/up panel yields.
  int64_t panel_width() const { return activation.gated ? kTileCols : kPanelCols; }
  PackedMatrix gate_up() const { return {weights, ceil_div(inter, panel_width()), hidden}; }
  PackedMatrix down() const { return {weights, ceil_div(hidden, kPanelCols), inter}; }

  int64_t down_offset() const { return gate_up().bytes(); }
  int64_t gate_up_bias_offset() const { return down_offset() + down().bytes(); }
  int64_t down_bias_offset() const { return gate_up_bias_offset() + bias_bytes(gate_up()); }
  int64_t expert_bytes() const { return down_bias_offset() + bias_bytes(down()); }

 private:
  int64_t bias_bytes(const PackedMatrix& matrix) const { return bias ? matrix.panels * kPanelCols * 4 : 0; }
};

}  // namespace trimoe
