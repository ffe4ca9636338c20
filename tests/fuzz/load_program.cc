// Loads and runs bundles that are named on stdin, one a line; says for each the status of loading and of running.
// Memory beyond a limit is refused, as a machine with little memory would: the linker replaces mmap (--wrap).
#include <sys/mman.h>

#include <cerrno>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "svit.h"

namespace {
constexpr std::size_t kMemoryBytes = 64u << 20;
}

extern "C" void* __real_mmap(void* address, size_t bytes, int protection, int flags, int file, off_t offset);
extern "C" void* __wrap_mmap(void* address, size_t bytes, int protection, int flags, int file, off_t offset) {
  if (bytes > kMemoryBytes) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  return __real_mmap(address, bytes, protection, flags, file, offset);
}

int main() {
  for (std::string bundle; std::getline(std::cin, bundle);) {
    svit_session* session = nullptr;
    char error[1024];
    const svit_status loaded = svit_load(bundle.c_str(), &session, error, sizeof error);
    int ran = -1;
    if (loaded == SVIT_OK) {
      std::vector<char> input(svit_input(session).bytes), output(svit_output(session).bytes);
      ran = svit_run(session, input.data(), input.size(), output.data(), output.size());
    } else if (session || !*error) {
      std::puts("a refusal without words");
      return 1;
    }
    svit_free(session);
    std::printf("%d %d\n", loaded, ran);
    std::fflush(stdout);
  }
}
