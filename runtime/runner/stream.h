// Frames as a camera delivers them.
#ifndef SVIT_STREAM_H_
#define SVIT_STREAM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "warm_up.h"

namespace svit {

struct Stream {
  std::uint64_t period_ns;                  // between two arrivals; 0: a frame comes when the last one is done
  std::vector<std::uint64_t> latencies_ns;  // of every frame, from its arrival until its output is there
};

// Runs `frames` frames. With a period, frame i arrives at i periods, whether the last one is done or not, and waits for
// its turn (an open loop, so that a stall counts for every frame that it delays). Throws what `infer` throws.
Stream run_stream(const Infer& infer, std::uint64_t frames, std::uint64_t period_ns);

std::string to_json(const Stream& stream);

}  // namespace svit

#endif  // SVIT_STREAM_H_
