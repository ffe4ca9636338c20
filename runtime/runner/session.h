// A loaded bundle: memory, kernels and prepared calls.
#ifndef SVIT_SESSION_H_
#define SVIT_SESSION_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <tvm/ffi/c_api.h>

#include "mapping.h"
#include "pool.h"
#include "program.h"
#include "source.h"
#include "svit.h"

namespace svit {

// Of one call, while it is profiled.
struct Cost {
  std::uint64_t total_ns = 0;
  std::uint64_t count = 0;
};

class Session {
 public:
  explicit Session(std::unique_ptr<Source> source);  // throws Error
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Program& program() const { return program_; }
  std::uint64_t expanded_bytes() const { return expanded_bytes_; }  // pages of the workspace that loading has written
  void reset();
  // Throws Error if the threads cannot be started; then there is one.
  void set_threads(std::size_t threads);
  // Copies the input tensor in, makes every call, copies the output tensor out. Throws Error if a kernel fails.
  void step(const void* input, void* output);
  // The same, with the frames of the input tensor as bytes; program().frame says of which shape. Needs one.
  void step_frame(const std::uint8_t* frame, svit_layout layout, void* output);
  void set_tap_callback(svit_tap_callback callback, void* user);
  void set_profile(bool on);
  const std::vector<Cost>& costs() const { return costs_; }  // by call

 private:
  struct PreparedCall {
    TVMFFISafeCallType kernel;
    bool is_split;
    std::vector<TVMFFIAny> arguments;  // tensors, then part 0 of 1
  };
  struct SplitCall {
    Session* session;
    const PreparedCall* call;
  };

  unsigned char* address(std::size_t tensor) const;
  void expand_weights();
  void count_expanded();
  void prepare_tensors();
  void prepare_calls();
  void play_into(void* output);
  template <bool kProfiled>
  void play();
  void make(std::size_t call);
  static void make_part(void* split_call, std::size_t part);
  const char* reason() const;
  void show_taps(std::size_t call) const;
  [[noreturn]] void fail(std::size_t call, const char* why) const;

  const std::unique_ptr<Source> source_;
  Program program_;
  std::vector<float> levels_;  // see frames.h
  Mapping spaces_[kSpaces];
  std::vector<DLTensor> tensors_;
  std::vector<PreparedCall> calls_;
  std::vector<Cost> costs_;
  std::uint64_t expanded_bytes_ = 0;
  bool is_profiled_ = false;
  svit_tap_callback callback_ = nullptr;
  void* user_ = nullptr;
  std::vector<std::string> failures_;  // of the parts of a call, "" where there was none; room for a reason each
  std::unique_ptr<Pool> pool_;         // none: one thread. Goes first, as its threads use all the rest.
};

}  // namespace svit

#endif  // SVIT_SESSION_H_
