// Order statistics of durations.
#ifndef SVIT_STATISTICS_H_
#define SVIT_STATISTICS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace svit {

// Nearest rank; 0 of no samples. Reorders them.
inline std::uint64_t median(std::vector<std::uint64_t>& samples) {
  if (samples.empty()) return 0;
  const auto middle = samples.begin() + static_cast<std::ptrdiff_t>((samples.size() - 1) / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}

}  // namespace svit

#endif  // SVIT_STATISTICS_H_
