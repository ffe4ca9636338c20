// What every kernel call of a network costs, over many inferences.
#ifndef SVIT_PROFILE_H_
#define SVIT_PROFILE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "svit.h"

namespace svit {

struct CallCost {
  std::string layer;
  std::string kernel;
  std::uint64_t p50_ns;    // of one inference, all time steps
  std::uint64_t total_ns;  // of all inferences
  std::uint64_t calls;
};

struct Profile {
  std::vector<CallCost> calls;  // in the order of execution
  double overhead_ns;           // what the clock adds to every call
  std::uint64_t p50_ns;         // of the same inferences as a whole
};

// Calls `infer(i)`, which returns nanoseconds, for i = 0 .. inferences - 1 with the session's profile on. Throws what
// `infer` throws.
Profile profile_calls(svit_session* session, std::size_t inferences,
                      const std::function<std::uint64_t(std::size_t)>& infer);

}  // namespace svit

#endif  // SVIT_PROFILE_H_
