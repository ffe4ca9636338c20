#include "frames.h"

namespace svit {

std::vector<float> make_levels(const Frame& frame) {
  std::vector<float> levels;
  levels.reserve(frame.channels * kLevels);
  for (std::size_t channel = 0; channel < frame.channels; ++channel) {
    for (std::size_t level = 0; level < kLevels; ++level) {
      levels.push_back((static_cast<float>(level) / frame.divisor - frame.mean[channel]) / frame.std[channel]);
    }
  }
  return levels;
}

void write_frames(const std::uint8_t* bytes, svit_layout layout, const Frame& frame, const float* levels, float* input) {
  const std::size_t pixels = frame.height * frame.width;
  const std::size_t stride = layout == SVIT_HWC ? frame.channels : 1;  // from a channel's pixel to the next
  const std::size_t plane = layout == SVIT_HWC ? 1 : pixels;           // from a pixel's channel to the next
  for (std::size_t number = 0; number < frame.frames; ++number, bytes += frame.channels * pixels) {
    for (std::size_t channel = 0; channel < frame.channels; ++channel) {
      const std::uint8_t* from = bytes + channel * plane;
      const float* table = levels + channel * kLevels;
      for (std::size_t pixel = 0; pixel < pixels; ++pixel) *input++ = table[from[pixel * stride]];
    }
  }
}

}  // namespace svit
