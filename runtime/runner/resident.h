// How much of a network's files is in memory, wherever the network comes from.
#ifndef SVIT_RESIDENT_H_
#define SVIT_RESIDENT_H_

#include <cstdint>
#include <optional>

namespace svit {

// Bytes of whole pages; empty where the kernel does not tell. The code of a network that is linked in is the program's.
std::optional<std::uint64_t> read_resident_code();
std::optional<std::uint64_t> read_resident_weights();

}  // namespace svit

#endif  // SVIT_RESIDENT_H_
