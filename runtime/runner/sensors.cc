#include "sensors.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include "clock.h"
#include "json.h"

namespace svit {
namespace {

constexpr std::size_t kMaxText = 4096;
constexpr std::size_t kMaxReadings = 1000000;

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

std::string read_text(std::FILE* file, bool first_line_only) {
  std::string text(kMaxText, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  if (first_line_only) text.resize(std::min(text.find('\n'), text.size()));
  return text;
}

std::optional<std::string> read_file(const std::string& path) {
  const File file(std::fopen(path.c_str(), "re"), [](std::FILE* f) { return std::fclose(f); });
  if (!file) return std::nullopt;
  std::string text = read_text(file.get(), true);
  if (std::ferror(file.get())) return std::nullopt;
  return text;
}

std::optional<std::string> run_command(const std::string& command) {
  std::FILE* pipe = popen(command.c_str(), "re");
  if (!pipe) return std::nullopt;
  std::string text = read_text(pipe, false);
  if (pclose(pipe) != 0) return std::nullopt;
  return text;
}

}  // namespace

Reading Sensors::read() const {
  Reading reading{now_ns(), {}};
  for (const std::string& path : files_) reading.values.push_back(read_file(path));
  for (const std::string& command : commands_) reading.values.push_back(run_command(command));
  return reading;
}

Sampler::Sampler(const Sensors& sensors, std::uint64_t period_ns)
    : sensors_(sensors), thread_(&Sampler::sample, this, period_ns) {}

Sampler::~Sampler() { take(); }

std::vector<Reading> Sampler::take() {
  stops_ = true;
  if (thread_.joinable()) thread_.join();
  return std::move(readings_);
}

void Sampler::sample(std::uint64_t period_ns) {
  auto next = std::chrono::steady_clock::now();
  while (!stops_ && readings_.size() < kMaxReadings) {
    readings_.push_back(sensors_.read());
    next += std::chrono::nanoseconds(period_ns);
    next = std::max(next, std::chrono::steady_clock::now());  // a slow sensor is read as fast as it goes
    std::this_thread::sleep_until(next);
  }
}

std::string readings_json(const std::vector<Reading>& readings, std::uint64_t origin_ns) {
  return json_array(readings, [origin_ns](const Reading& reading) {
    const std::uint64_t at = reading.at_ns - std::min(origin_ns, reading.at_ns);
    return "{\"at_ns\":" + std::to_string(at) + ",\"values\":" +
           json_array(reading.values, [](const auto& value) { return value ? json_string(*value) : "null"; }) + "}";
  });
}

}  // namespace svit
