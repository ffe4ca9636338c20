// Follows a stream of frames: stream BUNDLE < FRAMES, raw bytes in the layout HWC, one frame after the other. After every
// frame it prints the class that is ahead. For networks that were exported in step mode: their neurons remember.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>

#include <svit.h>

namespace {

constexpr float kMemory = 0.9f;  // of the moving average over the logits, per frame

struct Free {
  void operator()(svit_session* session) const { svit_free(session); }
};
using Session = std::unique_ptr<svit_session, Free>;

int fail(const char* reason) {
  std::fprintf(stderr, "%s\n", reason);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return std::fputs("stream BUNDLE < FRAMES\n", stderr), 2;
  char error[512];
  svit_session* loaded = nullptr;
  if (svit_load(argv[1], &loaded, error, sizeof error) != SVIT_OK) return fail(error);
  const Session session(loaded);
  std::vector<std::uint8_t> frame(svit_frame(loaded).bytes);
  if (frame.empty()) return fail("this network does not read frames");
  std::vector<float> logits(svit_output(loaded).bytes / sizeof(float));
  std::vector<float> average(logits.size());
  while (std::fread(frame.data(), 1, frame.size(), stdin) == frame.size()) {
    const svit_status status =
        svit_step_frame(loaded, frame.data(), frame.size(), SVIT_HWC, logits.data(), logits.size() * sizeof(float));
    if (status != SVIT_OK) return fail(svit_last_error(loaded));
    for (std::size_t i = 0; i < logits.size(); ++i) average[i] = kMemory * average[i] + (1 - kMemory) * logits[i];
    const auto best = static_cast<std::size_t>(std::max_element(average.begin(), average.end()) - average.begin());
    std::printf("%zu\t%s\t%.6g\n", best, svit_class_name(loaded, best), static_cast<double>(average[best]));
    std::fflush(stdout);
  }
  return 0;
}
