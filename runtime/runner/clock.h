// The clock of every duration that is reported.
#ifndef SVIT_CLOCK_H_
#define SVIT_CLOCK_H_

#include <cstdint>
#include <ctime>

namespace svit {

// CLOCK_MONOTONIC.
inline std::uint64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1000000000u + static_cast<std::uint64_t>(time.tv_nsec);
}

}  // namespace svit

#endif  // SVIT_CLOCK_H_
