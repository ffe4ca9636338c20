// The shared library of a device's driver, found on the machine where the program runs.
#ifndef SVIT_DRIVER_H_
#define SVIT_DRIVER_H_

#include <string>
#include <string_view>

namespace svit {

class Driver {
 public:
  Driver() = default;
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;
  ~Driver() { close(); }

  // Loads a library in place of the last one. False if it cannot be loaded; error() then says why.
  bool open(const char* name);
  void close();

  const std::string& name() const { return name_; }
  const std::string& error() const { return error_; }
  // NULL if it has none.
  void* find(const char* symbol) const;
  // Throws Error if it has none.
  template <typename Function>
  void need(const char* symbol, Function& function) const {
    function = reinterpret_cast<Function>(needed(symbol));
  }

 private:
  void* needed(const char* symbol) const;

  void* handle_ = nullptr;
  std::string name_;
  std::string error_;
};

// What a compiler has said, on one line and cut to what an error message can hold.
std::string one_line(std::string_view log);

}  // namespace svit

#endif  // SVIT_DRIVER_H_
