// What the running process can say about itself: memory, CPU features, time.
#ifndef SVIT_PROCESS_H_
#define SVIT_PROCESS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace svit {

// Bytes; empty where the kernel does not tell.
struct ProcessMemory {
  std::optional<std::uint64_t> vm_hwm;        // peak resident set
  std::optional<std::uint64_t> pss;           // resident now, shared pages divided by their users
  std::optional<std::uint64_t> private_bytes; // resident now and in no other process
};

ProcessMemory read_process_memory();

// Names as in /proc/cpuinfo ("Features" on Arm, "flags" on x86), those that this process may use.
std::vector<std::string> read_cpu_features();

// CLOCK_MONOTONIC.
std::uint64_t now_ns();

}  // namespace svit

#endif  // SVIT_PROCESS_H_
