#include "inference.h"

#include <algorithm>
#include <string>

#include "clock.h"
#include "program.h"

namespace svit {

Inference::Inference(svit_session* session, const Options& options)
    : session_(session),
      file_(options.input, options.content),
      layout_(options.frames),
      steps_(options.has_mode || svit_steps(session) <= 1 ? options.timesteps : svit_steps(session)),
      frames_(0),
      input_(layout_ ? svit_frame(session).bytes : svit_input(session).bytes),
      output_(svit_output(session).bytes / sizeof(float)),
      step_output_(steps_ == 0 ? 0 : output_.size()) {
  if (input_.empty()) throw Error("--frames: the bundle does not say how bytes become its input: build it again");
  frames_ = frames_per_input(options);
}

std::uint64_t Inference::run(std::uint64_t index) {
  read(index * frames_);
  if (steps_ == 0) return run_sequence();
  std::uint64_t spent = run_step(true);
  for (std::size_t t = 1; t < steps_; ++t) {
    if (frames_ > 1) read(index * frames_ + t);
    spent += run_step(false);
  }
  for (float& value : output_) value /= static_cast<float>(steps_);
  return spent;
}

std::uint64_t Inference::run_frame(std::uint64_t number) {
  read(number % (file_.bytes() / input_.size()));
  return steps_ == 0 ? run_sequence() : run_step(number == 0);
}

std::size_t Inference::frames_per_input(const Options& options) const {
  const std::uint64_t pieces = file_.bytes() / input_.size();
  const bool is_whole = file_.bytes() % input_.size() == 0;
  if (is_whole && pieces == options.count) return 1;
  if (is_whole && steps_ > 0 && pieces == options.count * steps_) return steps_;
  std::string wanted = std::to_string(options.count) + " inputs of " + std::to_string(input_.size()) + " bytes";
  if (steps_ > 0) wanted += ", once or for each of " + std::to_string(steps_) + " time steps";
  throw Error(options.input + " has " + std::to_string(file_.bytes()) + " bytes, wanted " + wanted);
}

void Inference::read(std::uint64_t piece) { file_.read(piece * input_.size(), input_.data(), input_.size()); }

void Inference::check(svit_status status) const {
  if (status != SVIT_OK) throw Error(svit_last_error(session_));
}

svit_status Inference::advance(bool resets, std::vector<float>& output) {
  const std::size_t bytes = output.size() * sizeof(float);
  if (!layout_) {
    const auto call = resets ? svit_run : svit_step;
    return call(session_, input_.data(), input_.size(), output.data(), bytes);
  }
  const auto call = resets ? svit_run_frame : svit_step_frame;
  return call(session_, input_.data(), input_.size(), *layout_, output.data(), bytes);
}

std::uint64_t Inference::run_sequence() {
  const std::uint64_t start = now_ns();
  check(advance(true, output_));
  return now_ns() - start;
}

std::uint64_t Inference::run_step(bool is_first) {
  const std::uint64_t start = now_ns();
  if (is_first) {
    check(svit_reset(session_));
    std::fill(output_.begin(), output_.end(), 0.0f);
  }
  check(advance(false, step_output_));
  for (std::size_t i = 0; i < output_.size(); ++i) output_[i] += step_output_[i];
  return now_ns() - start;
}

}  // namespace svit
