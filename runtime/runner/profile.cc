#include "profile.h"

#include <algorithm>
#include <limits>

#include "clock.h"
#include "statistics.h"

namespace svit {
namespace {

// The best of some batches: what disturbs a batch only makes it longer.
double measure_clock() {
  constexpr int kBatches = 8;
  constexpr int kReadings = 4096;
  double best = std::numeric_limits<double>::infinity();
  for (int batch = 0; batch < kBatches; ++batch) {
    const std::uint64_t start = now_ns();
    std::uint64_t stop = start;
    for (int i = 0; i < kReadings; ++i) stop = now_ns();
    best = std::min(best, static_cast<double>(stop - start) / kReadings);
  }
  return best;
}

}  // namespace

Profile profile_calls(svit_session* session, std::size_t inferences,
                      const std::function<std::uint64_t(std::size_t)>& infer) {
  const std::size_t count = svit_call_count(session);
  std::vector<std::vector<std::uint64_t>> samples(count);
  std::vector<svit_call_profile> costs(count);
  std::vector<std::uint64_t> whole;
  svit_set_profile(session, 1);
  for (std::size_t i = 0; i < inferences; ++i) {
    whole.push_back(infer(i));
    for (std::size_t call = 0; call < count; ++call) {
      const std::uint64_t before = costs[call].total_ns;
      svit_profile_call(session, call, &costs[call]);
      samples[call].push_back(costs[call].total_ns - before);
    }
  }
  Profile profile{{}, measure_clock(), median(whole)};
  for (std::size_t call = 0; call < count; ++call) {
    svit_profile_call(session, call, &costs[call]);
    const svit_call_profile& cost = costs[call];
    profile.calls.push_back({cost.layer, cost.kernel, median(samples[call]), cost.total_ns, cost.count});
  }
  svit_set_profile(session, 0);
  return profile;
}

}  // namespace svit
