// Where the parts of a bundle come from: a directory, or the program that they are linked into.
#ifndef SVIT_SOURCE_H_
#define SVIT_SOURCE_H_

#include <memory>
#include <string>

#include <tvm/ffi/c_api.h>

#include "mapping.h"

namespace svit {

class Source {
 public:
  virtual ~Source() = default;

  // Throws Error if there is no such file.
  virtual Mapping file(const std::string& name) const = 0;
  // Makes the machine code ready. Throws Error.
  virtual void load_kernels() = 0;
  // NULL if there is none. Kernels must have been loaded.
  virtual TVMFFISafeCallType kernel(const std::string& symbol) const = 0;
  // Returns the error that the calling thread's last failed kernel raised, "" if there was none.
  virtual const char* kernel_error() const = 0;
};

// A bundle directory: machine code from model.so.
std::unique_ptr<Source> open_directory(const std::string& path);

// The network that is linked into this program. Throws Error if there is none.
std::unique_ptr<Source> open_linked();

}  // namespace svit

#endif  // SVIT_SOURCE_H_
