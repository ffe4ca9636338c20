// What the running process can say about itself: memory and CPUs.
#ifndef SVIT_PROCESS_H_
#define SVIT_PROCESS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace svit {

// Bytes; empty where the kernel does not tell.
struct ProcessMemory {
  std::optional<std::uint64_t> vm_hwm;        // peak resident set
  std::optional<std::uint64_t> pss;           // resident now, shared pages divided by their users
  std::optional<std::uint64_t> private_bytes; // resident now and in no other process
};

ProcessMemory read_process_memory();

// Bytes that are resident now, counted page by page where the kernel does so; empty where it does not tell.
std::optional<std::uint64_t> read_resident_bytes();

// The same of the files of that name that this process has mapped.
std::optional<std::uint64_t> read_resident_bytes(std::string_view file_name);

// Bytes that the whole system can still give to programs; empty where the kernel does not tell.
std::optional<std::uint64_t> read_available_memory();

// CPUs that this process may run on, at least 1.
std::size_t count_usable_cpus();

// Keeps this thread, and those that it starts, on some CPUs. Throws Error if one of them is absent or switched off.
void stay_on_cpus(const std::vector<int>& cpus);

}  // namespace svit

#endif  // SVIT_PROCESS_H_
