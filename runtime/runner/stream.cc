#include "stream.h"

#include "clock.h"
#include "json.h"
#include "signals.h"

namespace svit {

Stream run_stream(const Infer& infer, std::uint64_t frames, std::uint64_t period_ns) {
  Stream stream{period_ns, {}};
  stream.latencies_ns.reserve(frames);
  const std::uint64_t start = now_ns();
  for (std::uint64_t frame = 0; frame < frames; ++frame) {
    std::uint64_t arrival = now_ns();
    if (period_ns > 0) {
      arrival = start + frame * period_ns;
      if (now_ns() < arrival) sleep_until(arrival);
    }
    infer(frame);
    stream.latencies_ns.push_back(now_ns() - arrival);
  }
  return stream;
}

std::string to_json(const Stream& stream) {
  return "{\"period_ns\":" + std::to_string(stream.period_ns) + ",\"latencies_ns\":" +
         json_array(stream.latencies_ns, [](std::uint64_t latency) { return std::to_string(latency); }) + "}";
}

}  // namespace svit
