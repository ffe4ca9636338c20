// A loaded bundle: its program, what plays it, and who watches.
#ifndef SVIT_SESSION_H_
#define SVIT_SESSION_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "player.h"
#include "program.h"
#include "source.h"
#include "svit.h"

namespace svit {

class Session {
 public:
  explicit Session(std::unique_ptr<Source> source);  // throws Error
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Program& program() const { return program_; }
  const Device& device() const { return player_->device(); }
  std::uint64_t expanded_bytes() const { return player_->expanded_bytes(); }
  void reset() { player_->reset(); }
  void set_threads(std::size_t threads) { player_->set_threads(threads); }
  // Copies the input tensor in, makes every call, copies the output tensor out. Throws Error if a kernel fails.
  void step(const void* input, void* output);
  // The same, with the frames of the input tensor as bytes; program().frame says of which shape. Needs one.
  void step_frame(const std::uint8_t* frame, svit_layout layout, void* output);
  void set_tap_callback(svit_tap_callback callback, void* user);
  void set_profile(bool on);
  const std::vector<Cost>& costs() const { return watch_.costs; }  // by call

 private:
  void play_into(void* output);

  const std::unique_ptr<Source> source_;
  const Program program_;
  std::vector<float> levels_;  // see frames.h
  Watch watch_;
  std::unique_ptr<Player> player_;  // goes first
};

}  // namespace svit

#endif  // SVIT_SESSION_H_
