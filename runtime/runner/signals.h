// Ending in order: a signal is noticed between two inferences.
#ifndef SVIT_SIGNALS_H_
#define SVIT_SIGNALS_H_

#include <cstdint>

namespace svit {

// From now on SIGINT and SIGTERM are noted.
void catch_signals();

// Throws Error if one of them came.
void stop_if_asked();

// Sleeps until CLOCK_MONOTONIC shows `at_ns`. Throws Error if a signal came.
void sleep_until(std::uint64_t at_ns);

}  // namespace svit

#endif  // SVIT_SIGNALS_H_
