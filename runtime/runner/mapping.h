// Memory from mmap, unmapped when the owner goes.
#ifndef SVIT_MAPPING_H_
#define SVIT_MAPPING_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace svit {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  // Maps a whole file read-only; the file must have exactly `bytes` bytes. Throws Error.
  static Mapping of_file(const std::string& path, std::uint64_t bytes);
  // Zeroed, page-aligned memory that the system commits on first touch. Throws Error.
  static Mapping of_memory(const char* what, std::uint64_t bytes);

  // Gives whole pages of a file's mapping back to the system, which reads them again if they are needed.
  void release(std::uint64_t offset, std::uint64_t bytes) const;

  unsigned char* data() const { return data_; }  // NULL if 0 bytes are mapped

 private:
  Mapping(void* data, std::size_t bytes) : data_(static_cast<unsigned char*>(data)), bytes_(bytes) {}

  unsigned char* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace svit

#endif  // SVIT_MAPPING_H_
