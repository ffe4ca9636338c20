// How a network runs over minutes: what a board does once it is warm.
#ifndef SVIT_SUSTAINED_H_
#define SVIT_SUSTAINED_H_

#include <cstdint>
#include <string>
#include <vector>

#include "sensors.h"
#include "warm_up.h"

namespace svit {

struct Window {
  std::uint64_t start_ns;  // since the first one began
  std::uint64_t count;     // inferences
  std::uint64_t p50_ns, max_ns;
};

struct Sustained {
  std::vector<Window> windows;
  std::vector<Reading> readings;  // one before the first window, and one after each
  std::uint64_t origin_ns;
};

// Runs inferences without a break for `duration_ns` and looks at the sensors between two windows: 60 of them, of 1 s at
// least. Throws what `infer` throws.
Sustained run_sustained(const Infer& infer, std::uint64_t duration_ns, const Sensors& sensors);

std::string to_json(const Sustained& sustained);

}  // namespace svit

#endif  // SVIT_SUSTAINED_H_
