// What the machine's sensors say while a network runs, as text: what it means is read elsewhere.
#ifndef SVIT_SENSORS_H_
#define SVIT_SENSORS_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace svit {

struct Reading {
  std::uint64_t at_ns;                             // CLOCK_MONOTONIC
  std::vector<std::optional<std::string>> values;  // of every sensor; empty where it could not be read
};

class Sensors {
 public:
  // `files`: their first lines are read. `commands`: what they print is read; the shell runs them.
  Sensors(std::vector<std::string> files, std::vector<std::string> commands)
      : files_(std::move(files)), commands_(std::move(commands)) {}

  Reading read() const;

 private:
  std::vector<std::string> files_;
  std::vector<std::string> commands_;
};

// Reads sensors in a thread of its own, from construction until take().
class Sampler {
 public:
  Sampler(const Sensors& sensors, std::uint64_t period_ns);
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;
  ~Sampler();

  std::vector<Reading> take();

 private:
  void sample(std::uint64_t period_ns);

  const Sensors& sensors_;
  std::vector<Reading> readings_;
  std::atomic<bool> stops_{false};
  std::thread thread_;
};

std::string readings_json(const std::vector<Reading>& readings, std::uint64_t origin_ns);

}  // namespace svit

#endif  // SVIT_SENSORS_H_
