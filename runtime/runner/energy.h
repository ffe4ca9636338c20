// What sensors of power say while a network runs, and while nothing does.
#ifndef SVIT_ENERGY_H_
#define SVIT_ENERGY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "sensors.h"
#include "warm_up.h"

namespace svit {

struct Energy {
  std::uint64_t origin_ns;
  std::uint64_t active_ns, idle_ns, end_ns;  // when the inferences began, when they ended, and the end, since the origin
  std::uint64_t inferences;
  std::vector<Reading> readings;
};

// Sleeps, runs inferences, sleeps again, each for `phase_ns`, and reads the sensors all the while, every `period_ns`, in
// a thread of its own. The times of these inferences are no samples. Throws what `infer` throws.
Energy measure_energy(const Infer& infer, std::uint64_t phase_ns, std::uint64_t period_ns, const Sensors& sensors);

std::string to_json(const Energy& energy);

}  // namespace svit

#endif  // SVIT_ENERGY_H_
