// What the CPU offers to this process.
#ifndef SVIT_CPU_FEATURES_H_
#define SVIT_CPU_FEATURES_H_

#include <string>
#include <vector>

namespace svit {

// Names as in /proc/cpuinfo ("Features" on Arm, "flags" on x86), those that this process may use. Empty where the system
// does not tell.
std::vector<std::string> read_cpu_features();

}  // namespace svit

#endif  // SVIT_CPU_FEATURES_H_
