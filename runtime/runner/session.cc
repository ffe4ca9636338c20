#include "session.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "cpu_features.h"
#include "frames.h"
#include "mapping.h"

namespace svit {
namespace {

constexpr std::size_t kMaxProgramBytes = 16u << 20;

Program read_program(const Source& source) {
  const Mapping file = source.file("program.txt");
  if (file.bytes() > kMaxProgramBytes) throw Error("program.txt is larger than 16 MiB: it is no svit program");
  return parse_program(file.text());
}

// Before anything that could end in SIGILL. Where the system does not tell what the CPU has, the user knows better.
void check_features(const std::vector<std::string>& wanted) {
  const std::vector<std::string> found = wanted.empty() ? wanted : read_cpu_features();
  std::string missing;
  for (const std::string& feature : wanted) {
    if (found.empty() || std::find(found.begin(), found.end(), feature) != found.end()) continue;
    missing += (missing.empty() ? "" : ", ") + feature;
  }
  if (missing.empty()) return;
  throw Error("this CPU has no " + missing + ", which the machine code uses: build the network for the board that this is");
}

}  // namespace

Session::Session(std::unique_ptr<Source> source) : source_(std::move(source)), program_(read_program(*source_)) {
  check_features(program_.features);
  if (program_.frame) levels_ = make_levels(*program_.frame);
  watch_.costs.resize(program_.calls.size());
  player_ = program_.target ? make_gpu_player(program_, *source_) : make_cpu_player(program_, *source_);
  reset();
}

void Session::step(const void* input, void* output) {
  std::memcpy(player_->input(), input, program_.tensors[program_.input].bytes);
  play_into(output);
}

void Session::step_frame(const std::uint8_t* frame, svit_layout layout, void* output) {
  write_frames(frame, layout, *program_.frame, levels_.data(), reinterpret_cast<float*>(player_->input()));
  play_into(output);
}

void Session::play_into(void* output) {
  std::memcpy(output, player_->play(watch_), program_.tensors[program_.output].bytes);
}

void Session::set_tap_callback(svit_tap_callback callback, void* user) {
  watch_.callback = callback;
  watch_.user = user;
}

void Session::set_profile(bool on) {
  watch_.is_profiled = on;
  std::fill(watch_.costs.begin(), watch_.costs.end(), Cost{});
}

}  // namespace svit
