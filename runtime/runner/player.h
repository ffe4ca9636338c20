// Plays a program on a device: the network's memory, its kernels, and their calls in order.
#ifndef SVIT_PLAYER_H_
#define SVIT_PLAYER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "program.h"
#include "source.h"
#include "svit.h"

namespace svit {

// Of one call, while it is profiled.
struct Cost {
  std::uint64_t total_ns = 0;
  std::uint64_t count = 0;
};

// Who watches the calls.
struct Watch {
  svit_tap_callback callback = nullptr;
  void* user = nullptr;
  bool is_profiled = false;
  std::vector<Cost> costs;  // by call
};

// What the network runs on; see svit_device_info.
struct Device {
  std::string api;
  std::string type;
  std::string name;
  std::string driver;
};

// Everything throws Error if it fails.
class Player {
 public:
  virtual ~Player() = default;

  virtual const Device& device() const = 0;
  virtual std::uint64_t expanded_bytes() const = 0;  // pages of the workspace that loading has written
  // Sets the states to their initial values.
  virtual void reset() = 0;
  // If the threads cannot be started, there is one.
  virtual void set_threads(std::size_t threads) = 0;
  // Where the input tensor is to be written.
  virtual unsigned char* input() = 0;
  // Makes every call; returns the output tensor, which stays until the next play().
  virtual const unsigned char* play(Watch& watch) = 0;
};

// Throws Error that names the call.
[[noreturn]] void fail_call(const Call& call, const std::string& why);

// The program and the source must outlive the player.
std::unique_ptr<Player> make_cpu_player(const Program& program, Source& source);
// For a program with a target.
std::unique_ptr<Player> make_gpu_player(const Program& program, const Source& source);

}  // namespace svit

#endif  // SVIT_PLAYER_H_
