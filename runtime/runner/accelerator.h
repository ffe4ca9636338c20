// A GPU as a program needs it: three blocks of memory, kernels, and one queue in which everything happens in order.
#ifndef SVIT_ACCELERATOR_H_
#define SVIT_ACCELERATOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "player.h"
#include "program.h"

namespace svit {

// Everything throws Error if it fails. What is queued may fail later, at the latest in wait().
class Accelerator {
 public:
  virtual ~Accelerator() = default;

  virtual const Device& device() const = 0;

  // Once, in this order: memory for the spaces, then the kernels; then every launch is bound to its arguments.
  virtual void allocate(const std::uint64_t (&sizes)[kSpaces]) = 0;
  virtual void compile(std::string_view kernels) = 0;
  // Returns the number of the launch.
  virtual std::size_t bind(const Call& call) = 0;
  // Memory of this process from which the device copies fast; lives as long as the accelerator. NULL for 0 bytes.
  virtual unsigned char* host_memory(std::uint64_t bytes) = 0;

  // Queued: `data` must be there until wait() returns.
  virtual void write(Space space, std::uint64_t offset, const void* data, std::uint64_t bytes) = 0;
  virtual void read(Space space, std::uint64_t offset, void* data, std::uint64_t bytes) = 0;
  virtual void launch(std::size_t number) = 0;
  virtual void wait() = 0;

  // Keeps what `enqueue` queues, to be queued as one piece by replay(). False if the driver cannot.
  virtual bool record(const std::function<void()>& enqueue) = 0;
  virtual void replay() = 0;
};

// The program must outlive the accelerator. Throws Error that says what was looked for if there is no such device.
std::unique_ptr<Accelerator> open_cuda(const Program& program);
std::unique_ptr<Accelerator> open_opencl(const Program& program);

}  // namespace svit

#endif  // SVIT_ACCELERATOR_H_
