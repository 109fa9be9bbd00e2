// Loads: nanoseconds by resource in single precision, padded with zeros to whole lanes.
//
// Every function goes through its lanes in one fixed order, so that the same decisions come out wherever it
// is compiled; decisions need no more digits than a float has.
#pragma once

namespace trimoe::assign {

inline constexpr int kLanes = 8;

inline float highest(const float* lanes) {
  float peak = 0;
  for (int l = 0; l < kLanes; ++l) peak = lanes[l] > peak ? lanes[l] : peak;
  return peak;
}

// The longest resource of a load, with a row added.
inline float peak_with(const float* load, const float* row, int width) {
  float lanes[kLanes] = {};
  for (int k = 0; k < width; k += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      const float sum = load[k + l] + row[k + l];
      lanes[l] = sum > lanes[l] ? sum : lanes[l];
    }
  return highest(lanes);
}

// The same with one row in another's place.
inline float peak_moved(const float* load, const float* from, const float* to, int width) {
  float lanes[kLanes] = {};
  for (int k = 0; k < width; k += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      const float sum = load[k + l] - from[k + l] + to[k + l];
      lanes[l] = sum > lanes[l] ? sum : lanes[l];
    }
  return highest(lanes);
}

// Sum of the eighth powers of the loads, times `scale` each: of two loads with the same peak, the one with
// less beside it is the better place to go on from.
inline float spread_moved(const float* load, const float* from, const float* to, int width, float scale) {
  float lanes[kLanes] = {};
  for (int k = 0; k < width; k += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      const float share = (load[k + l] - from[k + l] + to[k + l]) * scale;
      const float second = share * share;
      const float fourth = second * second;
      lanes[l] += fourth * fourth;
    }
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

// target may be load.
inline void move_row(const float* load, const float* from, const float* to, int width, float* target) {
  for (int k = 0; k < width; ++k) target[k] = load[k] - from[k] + to[k];
}

inline void add_row(float* load, const float* row, int width) {
  for (int k = 0; k < width; ++k) load[k] += row[k];
}

inline float peak_of(const float* load, int width) {
  float lanes[kLanes] = {};
  for (int k = 0; k < width; k += kLanes)
    for (int l = 0; l < kLanes; ++l) lanes[l] = load[k + l] > lanes[l] ? load[k + l] : lanes[l];
  return highest(lanes);
}

// The first of the longest resources.
inline int busiest(const float* load, int width) {
  const float peak = peak_of(load, width);
  for (int k = 0; k < width; ++k)
    if (load[k] == peak) return k;
  return 0;
}

}  // namespace trimoe::assign
