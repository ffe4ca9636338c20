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
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)), is_owner_(other.is_owner_) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(is_owner_, other.is_owner_);
  return *this;
}

Mapping::~Mapping() {
  if (data_ && is_owner_) munmap(data_, bytes_);
}

Mapping Mapping::of_file(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw Error("cannot open " + path + ": " + std::strerror(errno));
  struct stat status{};
  void* data = nullptr;
  const bool is_there = fstat(file, &status) == 0;
  const auto bytes = static_cast<std::size_t>(status.st_size);
  if (is_there && bytes > 0) data = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0);
  const int reason = errno;
  close(file);
  if (!is_there || data == MAP_FAILED) throw Error("cannot map " + path + ": " + std::strerror(reason));
  return {data, bytes, true};
}

Mapping Mapping::of_image(const unsigned char* data, std::uint64_t bytes) {
  return {const_cast<unsigned char*>(data), bytes, false};
}

Mapping Mapping::of_memory(const char* what, std::uint64_t bytes) {
  if (bytes == 0) return {};
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    throw Error("cannot allocate " + std::to_string(bytes) + " bytes for the " + what + ": " + std::strerror(errno));
  }
  return {data, bytes, true};
}

void Mapping::release(std::uint64_t offset, std::uint64_t bytes) const {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto start = reinterpret_cast<std::uintptr_t>(data_ + offset);
  const std::uintptr_t first = (start + page - 1) / page * page;
  const std::uintptr_t last = (start + bytes) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace svit
