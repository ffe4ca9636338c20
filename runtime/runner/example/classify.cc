// Prints the class that a bundle sees in one input: classify BUNDLE INPUT, the input raw as the bundle's input tensor.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <vector>

#include <svit.h>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("classify BUNDLE INPUT\n", stderr);
    return 2;
  }
  char error[512];
  svit_session* session = nullptr;
  if (svit_load(argv[1], &session, error, sizeof error) != SVIT_OK) {
    std::fprintf(stderr, "%s\n", error);
    return 1;
  }
  std::vector<char> input(svit_input(session).bytes);
  std::vector<float> logits(svit_output(session).bytes / sizeof(float));
  std::ifstream(argv[2], std::ios::binary).read(input.data(), static_cast<std::streamsize>(input.size()));
  const svit_status status =
      svit_run(session, input.data(), input.size(), logits.data(), logits.size() * sizeof(float));
  if (status == SVIT_OK) {
    std::printf("%td\n", std::max_element(logits.begin(), logits.end()) - logits.begin());
  } else {
    std::fprintf(stderr, "%s\n", svit_last_error(session));
  }
  svit_free(session);
  return status;
}
