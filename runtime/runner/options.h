// The command line of svit-run.
#ifndef SVIT_OPTIONS_H_
#define SVIT_OPTIONS_H_

#include <cstdint>
#include <stdexcept>
#include <string>

namespace svit {

extern const char* const kUsage;

// The arguments make no sense; svit-run exits with 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Options {
  std::string bundle;
  std::string input;
  std::uint64_t count = 0;      // inputs in the file
  std::string output;           // empty: not wanted
  std::string spikes;           // empty: not wanted
  std::uint64_t timesteps = 0;  // 0: sequence mode; else steps of one inference in step mode
  std::uint64_t warmup = 10;    // inferences
  std::uint64_t repeat = 100;   // timed inferences at least
  double min_time_s = 0;        // the timed part goes on until this time has passed
  std::uint64_t threads = 1;
  bool profile = false;         // time every kernel call, after the timed part
  bool wants_help = false;
  bool wants_version = false;
};

// Throws UsageError.
Options parse_options(int argc, char** argv);

}  // namespace svit

#endif  // SVIT_OPTIONS_H_
