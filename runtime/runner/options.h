// The command line of svit-run.
#ifndef SVIT_OPTIONS_H_
#define SVIT_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "svit.h"

namespace svit {

extern const char* const kUsage;

// The arguments make no sense; svit-run exits with 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Command { measure, info, self_test, classify };

struct Options {
  Command command = Command::measure;
  std::string bundle;        // empty: the network that is linked in
  std::string input;
  std::string_view content;  // of the input, if it is in memory already
  std::optional<svit_layout> frames;  // the input holds frames of bytes that lie like this; none: input tensors
  std::uint64_t count = 0;      // inputs in the file
  std::string output;           // empty: not wanted
  std::string spikes;           // empty: not wanted
  bool has_mode = false;        // --mode was given; else the network knows its own
  std::uint64_t timesteps = 0;  // 0: sequence mode; else steps of one inference in step mode
  std::uint64_t warmup = 10;    // inferences at least
  double warmup_s = 0;          // goes on until the times are steady, at most this long
  std::uint64_t repeat = 100;   // timed inferences at least
  double min_time_s = 0;        // the timed part goes on until this time has passed
  std::uint64_t threads = 1;
  std::vector<int> cpus;        // the CPUs to run on; empty: the system chooses
  std::string device;           // that the network must run on, "cpu" or "gpu"; empty: as it was built
  bool profile = false;         // time every kernel call, after the timed part
  double sustain_s = 0;         // then runs without a break
  std::uint64_t streamed = 0;   // then frames as a camera delivers them
  double fps = 0;               // arrivals per second; 0: one after the other
  double energy_s = 0;          // then runs and rests, each so long, while sensors are read
  double sensor_period_s = 0.05;
  std::vector<std::string> sensors;
  std::vector<std::string> sensor_commands;
  bool wants_help = false;
  bool wants_version = false;
};

// A program that has a network linked in takes no BUNDLE. Throws UsageError.
Options parse_options(int argc, char** argv, bool has_network);

}  // namespace svit

#endif  // SVIT_OPTIONS_H_
