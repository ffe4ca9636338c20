// Frames of bytes, as cameras and image files give them, become the input tensor.
#ifndef SVIT_FRAMES_H_
#define SVIT_FRAMES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "program.h"
#include "svit.h"

namespace svit {

inline constexpr std::size_t kLevels = 256;

// What every byte becomes, (channels, 256), by the very operations of training: exact, and the zeros that a convolution
// pads with stay zeros of the normalized image. Multiplying mean and deviation into the weights would round differently.
std::vector<float> make_levels(const Frame& frame);

// Looks every byte up; `input` has room for frame.bytes() numbers.
void write_frames(const std::uint8_t* bytes, svit_layout layout, const Frame& frame, const float* levels, float* input);

}  // namespace svit

#endif  // SVIT_FRAMES_H_
