#include "process.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

#include "program.h"

namespace svit {
namespace {

// Calls `visit(line)` for every line of a text file; false if it cannot be opened. Allocates nothing that lasts.
template <typename Visit>
bool for_each_line(const char* path, Visit visit) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "re"), [](std::FILE* f) {
    return f ? std::fclose(f) : 0;
  });
  if (!file) return false;
  char* line = nullptr;
  std::size_t room = 0;
  while (getline(&line, &room, file.get()) > 0) visit(static_cast<const char*>(line));
  std::free(line);
  return true;
}

// Adds the kilobytes of a line "Key:   12 kB" to `bytes` if the key is `key`.
void add_kilobytes(const char* line, const char* key, std::optional<std::uint64_t>& bytes) {
  const std::size_t length = std::strlen(key);
  if (std::strncmp(line, key, length) != 0 || line[length] != ':') return;
  bytes = bytes.value_or(0) + std::strtoull(line + length + 1, nullptr, 10) * 1024;
}

constexpr int kMaxCpus = 8192;  // the most that a kernel can be configured for
const std::size_t kCpuSetBytes = CPU_ALLOC_SIZE(kMaxCpus);
using CpuSet = std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)>;

CpuSet make_cpu_set() {
  return {CPU_ALLOC(kMaxCpus), [](cpu_set_t* set) { CPU_FREE(set); }};
}

}  // namespace

ProcessMemory read_process_memory() {
  ProcessMemory memory;
  for_each_line("/proc/self/status", [&](const char* line) { add_kilobytes(line, "VmHWM", memory.vm_hwm); });
  const auto add = [&](const char* line) {
    add_kilobytes(line, "Pss", memory.pss);
    add_kilobytes(line, "Private_Clean", memory.private_bytes);
    add_kilobytes(line, "Private_Dirty", memory.private_bytes);
  };
  // Linux before 4.14 (JetPack 4 has 4.9) has the same lines per mapping only.
  if (!for_each_line("/proc/self/smaps_rollup", add)) for_each_line("/proc/self/smaps", add);
  return memory;
}

std::optional<std::uint64_t> read_resident_bytes() {
  std::optional<std::uint64_t> bytes;
  const auto add = [&](const char* line) { add_kilobytes(line, "Rss", bytes); };
  if (for_each_line("/proc/self/smaps_rollup", add) || for_each_line("/proc/self/smaps", add)) return bytes;
  for_each_line("/proc/self/status", [&](const char* line) { add_kilobytes(line, "VmRSS", bytes); });
  return bytes;
}

std::optional<std::uint64_t> read_resident_bytes(std::string_view file_name) {
  std::optional<std::uint64_t> bytes;
  bool is_wanted = false;
  for_each_line("/proc/self/smaps", [&](const char* line) {
    const std::string_view text(line, std::strcspn(line, "\n"));
    const std::size_t key = text.find(':');
    const bool is_figure = key != std::string_view::npos && text.find(' ') > key;  // else a mapping's own line
    if (is_figure && is_wanted) add_kilobytes(line, "Rss", bytes);
    if (!is_figure) {
      const std::size_t slash = text.rfind('/');
      is_wanted = slash != std::string_view::npos && text.substr(slash + 1) == file_name;
    }
  });
  return bytes;
}

std::optional<std::uint64_t> read_available_memory() {
  std::optional<std::uint64_t> bytes;
  for_each_line("/proc/meminfo", [&](const char* line) { add_kilobytes(line, "MemAvailable", bytes); });
  return bytes;
}

std::size_t count_usable_cpus() {
  const CpuSet set = make_cpu_set();
  if (!set || sched_getaffinity(0, kCpuSetBytes, set.get()) != 0) return 1;
  return static_cast<std::size_t>(std::max(1, CPU_COUNT_S(kCpuSetBytes, set.get())));
}

void stay_on_cpus(const std::vector<int>& cpus) {
  const CpuSet set = make_cpu_set();
  if (!set) throw Error("no memory for a set of CPUs");
  for (const int cpu : cpus) {
    CPU_ZERO_S(kCpuSetBytes, set.get());  // one by one: the system takes a set of which only some are there
    CPU_SET_S(cpu, kCpuSetBytes, set.get());
    if (sched_setaffinity(0, kCpuSetBytes, set.get()) != 0) {
      throw Error("cannot run on CPU " + std::to_string(cpu) + ": " + std::strerror(errno));
    }
  }
  for (const int cpu : cpus) CPU_SET_S(cpu, kCpuSetBytes, set.get());
  if (sched_setaffinity(0, kCpuSetBytes, set.get()) != 0) throw Error("cannot stay on CPUs");
}

}  // namespace svit
