#include "resident.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <string>
#include <string_view>

#include "linked_network.h"
#include "mapping.h"
#include "process.h"
#include "source.h"

namespace svit {
namespace {

// Of memory that shares its mapping with other things: page by page. An entry's highest bit says whether the page is there
// (Linux, Documentation/admin-guide/mm/pagemap.rst).
std::optional<std::uint64_t> read_resident_range(const unsigned char* data, std::uint64_t bytes) {
  const int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  std::uintptr_t next = reinterpret_cast<std::uintptr_t>(data) / page;
  const std::uintptr_t end = (reinterpret_cast<std::uintptr_t>(data) + bytes + page - 1) / page;
  std::uint64_t entries[512];
  std::optional<std::uint64_t> resident = 0;
  while (next < end && resident) {
    const std::size_t wanted = std::min<std::size_t>(std::size(entries), end - next) * sizeof entries[0];
    const ssize_t got = pread(file, entries, wanted, static_cast<off_t>(next * sizeof entries[0]));
    if (got != static_cast<ssize_t>(wanted)) {
      resident.reset();
      break;
    }
    const std::size_t count = wanted / sizeof entries[0];
    *resident += page * static_cast<std::uint64_t>(std::count_if(entries, entries + count, [](auto e) { return e >> 63; }));
    next += count;
  }
  close(file);
  return resident;
}

std::optional<std::uint64_t> read_resident_program() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  if (length <= 0) return std::nullopt;
  const std::string_view name(path, static_cast<std::size_t>(length));
  return read_resident_bytes(name.substr(name.rfind('/') + 1));
}

}  // namespace

std::optional<std::uint64_t> read_resident_weights() {
  if (!svit_get_linked_network()) return read_resident_bytes("weights.bin");
  const Mapping weights = open_linked()->file("weights.bin");
  return read_resident_range(weights.data(), weights.bytes());
}

std::optional<std::uint64_t> read_resident_code() {
  if (!svit_get_linked_network()) return read_resident_bytes("model.so");
  const std::optional<std::uint64_t> program = read_resident_program();
  const std::optional<std::uint64_t> weights = read_resident_weights();
  if (!program || !weights || *program < *weights) return std::nullopt;
  return *program - *weights;
}

}  // namespace svit
