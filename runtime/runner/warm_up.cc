#include "warm_up.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "clock.h"
#include "statistics.h"

namespace svit {
namespace {

constexpr std::uint64_t kWindowNs = 50000000;
constexpr std::size_t kWindows = 3;
constexpr double kSteady = 0.03;

bool is_steady(const std::vector<std::uint64_t>& medians) {
  if (medians.size() < kWindows) return false;
  const auto [low, high] = std::minmax_element(medians.end() - kWindows, medians.end());
  return static_cast<double>(*high) <= (1 + kSteady) * static_cast<double>(*low);
}

}  // namespace

WarmUp warm_up(const Infer& infer, std::uint64_t inputs, std::uint64_t least, std::uint64_t limit_ns) {
  WarmUp done{infer(0), 0, std::nullopt};
  while (done.inferences < least) infer(done.inferences++);
  if (limit_ns == 0) return done;
  const std::uint64_t start = now_ns();
  std::vector<std::uint64_t> medians;
  std::vector<std::uint64_t> window;
  while (!is_steady(medians) && now_ns() - start < limit_ns) {
    const std::uint64_t window_start = now_ns();
    window.clear();
    while (window.size() < inputs || now_ns() - window_start < kWindowNs) window.push_back(infer(done.inferences++));
    medians.push_back(median(window));
  }
  done.is_steady = is_steady(medians);
  return done;
}

}  // namespace svit
