#include "source.h"

#include <dlfcn.h>

#include <algorithm>

#include "linked_network.h"
#include "program.h"

namespace svit {
namespace {

// A shared library, closed when the owner goes.
class Library {
 public:
  explicit Library(const std::string& path) : handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (!handle_) throw Error(std::string("cannot load the kernels: ") + dlerror());
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library() { dlclose(handle_); }

  void* symbol(const std::string& name) const { return dlsym(handle_, name.c_str()); }

 private:
  void* handle_;
};

class Directory : public Source {
 public:
  explicit Directory(const std::string& path) : path_(path) {}

  Mapping file(const std::string& name) const override { return Mapping::of_file(path_ + "/" + name); }

  void load_kernels() override {
    library_ = std::make_unique<Library>(path_ + "/model.so");
    kernel_error_ = reinterpret_cast<const char* (*)()>(library_->symbol("svit_kernel_error"));
    if (!kernel_error_) throw Error("model.so has no symbol svit_kernel_error: it was not linked by svitkit");
  }

  TVMFFISafeCallType kernel(const std::string& symbol) const override {
    return reinterpret_cast<TVMFFISafeCallType>(library_->symbol("__tvm_ffi_" + symbol));
  }

  const char* kernel_error() const override { return kernel_error_(); }

 private:
  std::string path_;
  std::unique_ptr<Library> library_;
  const char* (*kernel_error_)() = nullptr;
};

class Linked : public Source {
 public:
  explicit Linked(const svit_linked_network& network) : network_(network) {}

  Mapping file(const std::string& name) const override {
    const auto* last = network_.files + network_.file_count;
    const auto* found = std::find_if(network_.files, last, [&](const svit_linked_file& file) { return file.name == name; });
    if (found == last) throw Error("no " + name + " is linked into this program");
    return Mapping::of_image(found->start, static_cast<std::uint64_t>(found->end - found->start));
  }

  void load_kernels() override {}  // they have come with the program

  TVMFFISafeCallType kernel(const std::string& symbol) const override {
    const auto* last = network_.kernels + network_.kernel_count;
    const auto* found = std::find_if(network_.kernels, last, [&](const svit_linked_kernel& k) { return k.symbol == symbol; });
    return found == last ? nullptr : found->function;
  }

  const char* kernel_error() const override { return network_.kernel_error(); }

 private:
  const svit_linked_network& network_;
};

}  // namespace

std::unique_ptr<Source> open_directory(const std::string& path) { return std::make_unique<Directory>(path); }

std::unique_ptr<Source> open_linked() {
  const svit_linked_network* network = svit_get_linked_network();
  if (!network) throw Error("no network is linked into this program: 'svitkit build --single-file' makes one with");
  return std::make_unique<Linked>(*network);
}

}  // namespace svit
