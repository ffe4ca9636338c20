// Inferences before the timed ones, until their times no longer change.
#ifndef SVIT_WARM_UP_H_
#define SVIT_WARM_UP_H_

#include <cstdint>
#include <functional>
#include <optional>

namespace svit {

// Runs inference number i and returns the nanoseconds that it took.
using Infer = std::function<std::uint64_t(std::uint64_t)>;

struct WarmUp {
  std::uint64_t first_ns;       // of the first inference
  std::uint64_t inferences;     // after the first one
  std::optional<bool> is_steady;  // empty if nobody asked
};

// Runs one inference, then at least `least`, then until the medians of three windows in a row lie within 3 %, or
// `limit_ns` have passed. A window is at least every input once and 50 ms. Throws what `infer` throws.
WarmUp warm_up(const Infer& infer, std::uint64_t inputs, std::uint64_t least, std::uint64_t limit_ns);

}  // namespace svit

#endif  // SVIT_WARM_UP_H_
