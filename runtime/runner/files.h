// Input that is read piece by piece, and output that is whole or absent.
#ifndef SVIT_FILES_H_
#define SVIT_FILES_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace svit {

// A file of equal pieces, read with pread so that it adds nothing to the process's memory; or such content that is in
// memory already. Throws Error.
class InputFile {
 public:
  explicit InputFile(const std::string& path, std::string_view content = {});
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile();

  std::uint64_t bytes() const { return bytes_; }
  void read(std::uint64_t offset, void* data, std::size_t bytes) const;

 private:
  std::string path_;
  std::string_view content_;
  int file_;  // -1 where there is content
  std::uint64_t bytes_;
};

// Written under a temporary name beside its path; commit() renames it, the destructor removes what was not committed.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);  // throws Error
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();

  void write(const void* data, std::size_t bytes);  // throws Error
  void commit();                                    // throws Error

 private:
  [[noreturn]] void fail() const;

  std::string path_;
  std::string staged_;
  std::FILE* file_;
};

}  // namespace svit

#endif  // SVIT_FILES_H_
