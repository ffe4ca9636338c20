#include "energy.h"

#include "clock.h"
#include "signals.h"

namespace svit {

Energy measure_energy(const Infer& infer, std::uint64_t phase_ns, std::uint64_t period_ns, const Sensors& sensors) {
  Energy energy{now_ns(), 0, 0, 0, 0, {}};
  Sampler sampler(sensors, period_ns);
  sleep_until(energy.origin_ns + phase_ns);
  energy.active_ns = now_ns() - energy.origin_ns;
  do {
    infer(energy.inferences++);
  } while (now_ns() - energy.origin_ns < energy.active_ns + phase_ns);
  energy.idle_ns = now_ns() - energy.origin_ns;
  sleep_until(energy.origin_ns + energy.idle_ns + phase_ns);
  energy.end_ns = now_ns() - energy.origin_ns;
  energy.readings = sampler.take();
  return energy;
}

std::string to_json(const Energy& energy) {
  return "{\"active_ns\":" + std::to_string(energy.active_ns) + ",\"idle_ns\":" + std::to_string(energy.idle_ns) +
         ",\"end_ns\":" + std::to_string(energy.end_ns) + ",\"inferences\":" + std::to_string(energy.inferences) +
         ",\"readings\":" + readings_json(energy.readings, energy.origin_ns) + "}";
}

}  // namespace svit
