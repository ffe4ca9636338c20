#include "cpu_features.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#else
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#endif

namespace svit {

#if defined(__aarch64__)
namespace {

// In the order of the bits; from Linux, arch/arm64/kernel/cpuinfo.c, hwcap_str.
constexpr const char* kHwcap[] = {
    "fp",       "asimd",   "evtstrm", "aes",     "pmull",   "sha1",     "sha2",  "crc32",   "atomics", "fphp", "asimdhp",
    "cpuid",    "asimdrdm", "jscvt",  "fcma",    "lrcpc",   "dcpop",    "sha3",  "sm3",     "sm4",     "asimddp",
    "sha512",   "sve",     "asimdfhm", "dit",    "uscat",   "ilrcpc",   "flagm", "ssbs",    "sb",      "paca", "pacg"};
constexpr const char* kHwcap2[] = {
    "dcpodp",   "sve2",    "sveaes",  "svepmull", "svebitperm", "svesha3", "svesm4", "flagm2", "frint", "svei8mm",
    "svef32mm", "svef64mm", "svebf16", "i8mm",   "bf16",    "dgh",      "rng",   "bti",     "mte",     "ecv",  "afp",
    "rpres"};

template <std::size_t N>
void add_names(unsigned long bits, const char* const (&names)[N], std::vector<std::string>& features) {
  for (std::size_t bit = 0; bit < N; ++bit) {
    if ((bits >> bit) & 1) features.emplace_back(names[bit]);
  }
}

}  // namespace

// Not from /proc/cpuinfo: user-mode emulators show the host's there.
std::vector<std::string> read_cpu_features() {
  std::vector<std::string> features;
  add_names(getauxval(AT_HWCAP), kHwcap, features);
  add_names(getauxval(AT_HWCAP2), kHwcap2, features);
  return features;
}

#else

// Of the first CPU, and not a line further: the system writes the rest of /proc/cpuinfo only for those who read it.
std::vector<std::string> read_cpu_features() {
  std::vector<std::string> features;
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen("/proc/cpuinfo", "re"), [](std::FILE* f) {
    return f ? std::fclose(f) : 0;
  });
  char* line = nullptr;
  std::size_t room = 0;
  while (file && features.empty() && getline(&line, &room, file.get()) > 0) {
    if (std::strncmp(line, "flags", 5) != 0) continue;
    char* rest = nullptr;
    strtok_r(line, ":", &rest);
    while (const char* word = strtok_r(nullptr, " \t\n", &rest)) features.emplace_back(word);
  }
  std::free(line);
  return features;
}

#endif

}  // namespace svit
