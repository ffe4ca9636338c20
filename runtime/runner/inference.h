// Inferences on the inputs of a file, in sequence or step mode.
#ifndef SVIT_INFERENCE_H_
#define SVIT_INFERENCE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "files.h"
#include "options.h"
#include "svit.h"

namespace svit {

// Holds one input tensor and one output, whatever the file holds. Throws Error.
class Inference {
 public:
  Inference(svit_session* session, const Options& options);

  // Runs the network once on input number `index` of the file, from reset states. Returns the nanoseconds that it took;
  // reading the input is not part of them.
  std::uint64_t run(std::uint64_t index);

  // Takes frame `number` of a stream: in step mode one time step, with the states of the last one kept but for number 0;
  // else one inference. The frames of the file come round and round. Returns the nanoseconds, as run() does.
  std::uint64_t run_frame(std::uint64_t number);

  const std::vector<float>& output() const { return output_; }  // of the last run; in step mode the mean over the steps

 private:
  std::size_t frames_per_input(const Options& options) const;
  void read(std::uint64_t piece);
  void check(svit_status status) const;
  std::uint64_t run_sequence();
  std::uint64_t run_step(bool is_first);

  svit_status advance(bool resets, std::vector<float>& output);

  svit_session* session_;
  InputFile file_;
  std::optional<svit_layout> layout_;  // of the frames that the file holds; none: it holds input tensors
  std::size_t steps_;
  std::size_t frames_;  // pieces of the file per input
  std::vector<unsigned char> input_;
  std::vector<float> output_;
  std::vector<float> step_output_;  // step mode only
};

}  // namespace svit

#endif  // SVIT_INFERENCE_H_
