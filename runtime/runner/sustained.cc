#include "sustained.h"

#include <algorithm>

#include "clock.h"
#include "json.h"
#include "statistics.h"

namespace svit {
namespace {

constexpr std::uint64_t kWindows = 60;
constexpr std::uint64_t kLeastWindowNs = 1000000000;

}  // namespace

Sustained run_sustained(const Infer& infer, std::uint64_t duration_ns, const Sensors& sensors) {
  const std::uint64_t length = std::max(duration_ns / kWindows, kLeastWindowNs);
  Sustained sustained{{}, {sensors.read()}, now_ns()};
  std::vector<std::uint64_t> samples;
  std::uint64_t number = 0;
  for (std::uint64_t start = 0; start < duration_ns; start = now_ns() - sustained.origin_ns) {
    const std::uint64_t stop = start + std::min(length, duration_ns - start);
    samples.clear();
    do {
      samples.push_back(infer(number++));
    } while (now_ns() - sustained.origin_ns < stop);
    const std::uint64_t longest = *std::max_element(samples.begin(), samples.end());
    sustained.windows.push_back({start, samples.size(), median(samples), longest});
    sustained.readings.push_back(sensors.read());
  }
  return sustained;
}

std::string to_json(const Sustained& sustained) {
  return "{\"windows\":" + json_array(sustained.windows, [](const Window& window) {
    return "{\"start_ns\":" + std::to_string(window.start_ns) + ",\"count\":" + std::to_string(window.count) +
           ",\"p50_ns\":" + std::to_string(window.p50_ns) + ",\"max_ns\":" + std::to_string(window.max_ns) + "}";
  }) + ",\"readings\":" + readings_json(sustained.readings, sustained.origin_ns) + "}";
}

}  // namespace svit
