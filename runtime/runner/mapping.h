// Memory from mmap, unmapped when the owner goes, or of the program itself.
#ifndef SVIT_MAPPING_H_
#define SVIT_MAPPING_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace svit {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  // Maps a whole file read-only. Throws Error.
  static Mapping of_file(const std::string& path);
  // What is linked into the program, and stays when the owner goes.
  static Mapping of_image(const unsigned char* data, std::uint64_t bytes);
  // Zeroed, page-aligned memory that the system commits on first touch. Throws Error.
  static Mapping of_memory(const char* what, std::uint64_t bytes);

  // Gives whole pages of a file's mapping back to the system, which reads them again if they are needed.
  void release(std::uint64_t offset, std::uint64_t bytes) const;

  unsigned char* data() const { return data_; }  // NULL if 0 bytes are mapped
  std::uint64_t bytes() const { return bytes_; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), bytes_}; }

 private:
  Mapping(void* data, std::size_t bytes, bool is_owner)
      : data_(static_cast<unsigned char*>(data)), bytes_(bytes), is_owner_(is_owner) {}

  unsigned char* data_ = nullptr;
  std::size_t bytes_ = 0;
  bool is_owner_ = false;
};

}  // namespace svit

#endif  // SVIT_MAPPING_H_
