#include "driver.h"

#include <dlfcn.h>

#include <cstddef>

#include "program.h"

namespace svit {
namespace {

constexpr std::size_t kLogBytes = 700;

}  // namespace

bool Driver::open(const char* name) {
  close();
  name_ = name;
  handle_ = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);  // a driver has threads of its own: it stays loaded
  if (!handle_) error_ = dlerror();
  return handle_ != nullptr;
}

void Driver::close() {
  if (handle_) dlclose(handle_);
  handle_ = nullptr;
}

void* Driver::find(const char* symbol) const { return dlsym(handle_, symbol); }

void* Driver::needed(const char* symbol) const {
  void* function = find(symbol);
  if (!function) throw Error(name_ + " has no " + symbol + ": the driver is too old for this libsvit");
  return function;
}

std::string one_line(std::string_view log) {
  std::string line;
  for (const char c : log) {
    const bool is_blank = static_cast<unsigned char>(c) <= ' ';
    if (is_blank && (line.empty() || line.back() == ' ')) continue;
    if (line.size() == kLogBytes) return line + "...";
    line += is_blank ? ' ' : c;
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

}  // namespace svit
