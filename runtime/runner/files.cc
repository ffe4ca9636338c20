#include "files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "program.h"

namespace svit {

InputFile::InputFile(const std::string& path, std::string_view content)
    : path_(path), content_(content), file_(-1), bytes_(content.size()) {
  if (!content.empty()) return;
  file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_ < 0) throw Error("cannot open " + path + ": " + std::strerror(errno));
  struct stat status{};
  if (fstat(file_, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(file_);
    throw Error(path + " is no regular file");
  }
  bytes_ = static_cast<std::uint64_t>(status.st_size);
}

InputFile::~InputFile() {
  if (file_ >= 0) close(file_);
}

void InputFile::read(std::uint64_t offset, void* data, std::size_t bytes) const {
  if (file_ < 0) {
    std::memcpy(data, content_.substr(offset, bytes).data(), bytes);
    return;
  }
  std::size_t done = 0;
  while (done < bytes) {
    const ssize_t got = pread(file_, static_cast<char*>(data) + done, bytes - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw Error("cannot read " + path_ + ": " + (got == 0 ? "it became shorter" : std::strerror(errno)));
    done += static_cast<std::size_t>(got);
  }
}

OutputFile::OutputFile(const std::string& path)
    : path_(path), staged_(path + ".part-" + std::to_string(getpid())), file_(std::fopen(staged_.c_str(), "wbe")) {
  if (!file_) fail();
}

OutputFile::~OutputFile() {
  if (file_) std::fclose(file_);
  if (!staged_.empty()) unlink(staged_.c_str());
}

void OutputFile::write(const void* data, std::size_t bytes) {
  if (std::fwrite(data, 1, bytes, file_) != bytes) fail();
}

void OutputFile::commit() {
  if (std::fflush(file_) != 0 || fsync(fileno(file_)) != 0) fail();
  std::FILE* file = file_;
  file_ = nullptr;
  if (std::fclose(file) != 0 || std::rename(staged_.c_str(), path_.c_str()) != 0) fail();
  staged_.clear();
}

void OutputFile::fail() const { throw Error("cannot write " + path_ + ": " + std::strerror(errno)); }

}  // namespace svit
