#include "contents.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

namespace svit {
namespace {

template <typename T>
void fill(unsigned char* data, std::uint64_t bytes, double value) {
  std::fill_n(reinterpret_cast<T*>(data), bytes / sizeof(T), static_cast<T>(value));
}

// IEEE 754 binary16, rounded to nearest even. The parser has checked the range.
std::uint16_t half_bits(double value) {
  const std::uint32_t sign = std::signbit(value) ? 0x8000 : 0;
  int exponent = 0;
  std::frexp(value, &exponent);                         // |value| < 2^exponent
  exponent = value == 0 ? -13 : std::max(exponent, -13);  // below 2^-14 numbers are multiples of 2^-24
  const auto mantissa = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(std::abs(value), 11 - exponent)));
  return static_cast<std::uint16_t>(sign | ((static_cast<std::uint32_t>(exponent + 13) << 10) + mantissa));
}

// Whether the bitmap has exactly as many bits as there are values, and none behind the last element.
template <typename T>
bool scatter(const unsigned char* bitmap, const T* values, std::size_t count, T background, T* out, std::size_t elements) {
  std::fill_n(out, elements, background);
  std::size_t used = 0;
  for (std::size_t byte = 0; byte < (elements + 7) / 8; ++byte) {
    for (unsigned bits = bitmap[byte]; bits != 0; bits &= bits - 1) {
      const std::size_t element = 8 * byte + static_cast<std::size_t>(__builtin_ctz(bits));
      if (element >= elements || used == count) return false;
      out[element] = values[used++];
    }
  }
  return used == count;
}

template <typename T>
bool expand(const unsigned char* bitmap, const unsigned char* values, const Tensor& from, std::uint32_t background,
            unsigned char* out, const Tensor& to) {
  return scatter(bitmap, reinterpret_cast<const T*>(values), from.bytes / sizeof(T), static_cast<T>(background),
                 reinterpret_cast<T*>(out), to.bytes / sizeof(T));
}

}  // namespace

Mapping map_weights(const Source& source, const Program& program) {
  Mapping file = source.file("weights.bin");
  const std::uint64_t wanted = program.sizes[static_cast<std::size_t>(Space::weights)];
  if (file.bytes() == wanted) return file;
  throw Error("weights.bin has " + std::to_string(file.bytes()) + " bytes, program.txt says " + std::to_string(wanted));
}

void expand_weights(const Program& program, const Expansion& expansion, const Mapping& weights, unsigned char* out) {
  const Tensor &to = program.tensors[expansion.out], &from = program.tensors[expansion.values];
  const Tensor& bitmap = program.tensors[expansion.bitmap];
  const auto write = to.dtype->bytes == 1   ? expand<std::uint8_t>
                     : to.dtype->bytes == 2 ? expand<std::uint16_t>
                                            : expand<std::uint32_t>;
  if (!write(weights.data() + bitmap.offset, weights.data() + from.offset, from, expansion.background, out, to)) {
    throw Error("weights.bin is damaged: the bitmap of '" + to.name + "' does not fit its values");
  }
  for (const Tensor* stored : {&bitmap, &from}) weights.release(stored->offset, stored->bytes);
}

void fill_state(const Program& program, const State& state, unsigned char* out) {
  const Tensor& tensor = program.tensors[state.tensor];
  const DType& dtype = *tensor.dtype;
  if (dtype.is_float32()) return fill<float>(out, tensor.bytes, state.initial);
  if (dtype.type.code == kDLFloat) return fill<std::uint16_t>(out, tensor.bytes, half_bits(state.initial));
  // Every other dtype is an integer whose range the parser has checked: the two's complement bits are the value's.
  const auto whole = static_cast<std::int64_t>(state.initial);
  if (dtype.bytes == 1) return fill<std::uint8_t>(out, tensor.bytes, static_cast<double>(whole & 0xff));
  if (dtype.bytes == 2) return fill<std::uint16_t>(out, tensor.bytes, static_cast<double>(whole & 0xffff));
  fill<std::uint32_t>(out, tensor.bytes, static_cast<double>(whole & 0xffffffff));
}

}  // namespace svit
