#include "mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "program.h"

namespace svit {

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Mapping::~Mapping() {
  if (data_) munmap(data_, bytes_);
}

Mapping Mapping::of_file(const std::string& path, std::uint64_t bytes) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw Error("cannot open " + path + ": " + std::strerror(errno));
  struct stat status{};
  void* data = MAP_FAILED;
  const bool has_size = fstat(file, &status) == 0 && static_cast<std::uint64_t>(status.st_size) == bytes;
  if (has_size && bytes > 0) data = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0);
  const int reason = errno;
  close(file);
  if (!has_size) {
    throw Error(path + " has " + std::to_string(status.st_size) + " bytes, program.txt says " + std::to_string(bytes));
  }
  if (bytes == 0) return {};
  if (data == MAP_FAILED) throw Error("cannot map " + path + ": " + std::strerror(reason));
  return {data, bytes};
}

Mapping Mapping::of_memory(const char* what, std::uint64_t bytes) {
  if (bytes == 0) return {};
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    throw Error("cannot allocate " + std::to_string(bytes) + " bytes for the " + what + ": " + std::strerror(errno));
  }
  return {data, bytes};
}

void Mapping::release(std::uint64_t offset, std::uint64_t bytes) const {
  const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  const std::uint64_t first = (offset + page - 1) / page * page;
  const std::uint64_t last = (offset + bytes) / page * page;
  if (first < last) madvise(data_ + first, last - first, MADV_DONTNEED);
}

}  // namespace svit
