// The static execution plan of a bundle: program.txt, parsed and checked.
#ifndef SVIT_PROGRAM_H_
#define SVIT_PROGRAM_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <dlpack/dlpack.h>

namespace svit {

// A bundle that cannot be loaded, or a kernel that failed; the text is for the user.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Space : std::uint8_t { weights, states, workspace };

inline constexpr std::size_t kSpaces = 3;
inline constexpr std::uint64_t kAlignment = 64;  // bytes; kernels are compiled for tensors aligned like this
inline constexpr std::uint64_t kGpuAlignment = 256;

struct DType {
  const char* name;
  DLDataType type;
  std::uint64_t bytes;  // per element; of uint1, per word of 32 elements
  double lowest;        // range of the values that a state can start with
  double highest;
  bool is_gpu_only;

  bool is_float32() const { return type.code == kDLFloat && type.bits == 32; }
  bool is_packed() const { return type.bits == 1; }  // element i is bit i % 32 of word i / 32; a row starts a new word
};

struct Tensor {
  std::string name;
  const DType* dtype;
  Space space;
  std::uint64_t offset;  // bytes from the start of the space, a multiple of kAlignment or kGpuAlignment
  std::uint64_t bytes;
  std::vector<std::int64_t> shape;

  std::uint64_t elements() const;
};

// Weights stored without their most frequent element: element i of `out` is the next of `values` where bit i of `bitmap`
// (of a byte the lowest bit first) is 1, and `background` elsewhere.
struct Expansion {
  std::size_t out;  // tensor ids
  std::size_t bitmap;
  std::size_t values;
  std::uint32_t background;  // its bits
};

struct State {
  std::size_t tensor;
  double initial;
};

inline constexpr std::size_t kMaxThreads = 64;
inline constexpr std::size_t kMaxArguments = 32;  // tensors of one call

enum class Api : std::uint8_t { cuda, opencl };

// What a program for a GPU wants of it.
struct Target {
  Api api;
  std::uint32_t capability;  // CUDA: the least compute capability, major * 10 + minor
  bool allows_cpu;           // OpenCL: a device that is a CPU will do
  std::string kernels;       // the file that holds them, as PTX or as OpenCL C
};

// One call of a kernel; on a GPU, one launch.
struct Call {
  std::string symbol;
  std::string layer;
  bool is_split;                       // made once for every part; else once, as part 0 of 1
  std::vector<std::size_t> arguments;  // tensor ids
  std::size_t line;
  std::array<std::uint32_t, 3> blocks;   // on a GPU: OpenCL calls them work-groups
  std::array<std::uint32_t, 3> threads;  // of one block: work-items
};

struct Tap {
  std::string name;
  std::size_t tensor;
  std::size_t call;  // the spikes are there after this call
  std::vector<std::int32_t> order;
};

// How frames of bytes become the input tensor, (frames, channels, height, width) float32: a byte x of channel c becomes
// (x / divisor - mean[c]) / std[c], each operation rounded to float32.
struct Frame {
  std::uint64_t frames;
  std::uint64_t channels;
  std::uint64_t height;
  std::uint64_t width;
  float divisor;
  std::vector<float> mean;
  std::vector<float> std;

  std::uint64_t bytes() const { return frames * channels * height * width; }
};

struct Golden {
  std::uint64_t count;  // inputs in golden_input.bin, outputs in golden_output.bin
  float tolerance;      // largest difference of a logit that is accepted
};

struct Program {
  std::uint64_t sizes[kSpaces] = {0, 0, 0};  // bytes, by Space
  std::size_t threads = 0;               // into how many parts a split call may be divided
  std::optional<Target> target;          // none: the CPU
  std::vector<Tensor> tensors;
  std::vector<Expansion> expansions;
  std::vector<State> states;
  std::size_t input = 0;
  std::size_t output = 0;
  std::vector<Call> preparations;  // on a GPU: launches when the program is loaded, after the expansions
  std::vector<Call> calls;
  std::vector<Tap> taps;
  // What programs of an earlier svitkit do not say.
  std::size_t steps = 0;              // of one inference: 1 in sequence mode, T in step mode; 0: not said
  std::vector<std::string> features;  // of the CPU, which the machine code uses
  std::vector<std::string> classes;   // names, none or one per logit
  std::optional<Frame> frame;
  std::optional<Golden> golden;
};

// Parses program.txt. Everything that a run relies on is checked here: ids, bounds, alignment, dtypes, completeness.
// Throws Error with the line number of the first mistake.
Program parse_program(std::string_view text);

}  // namespace svit

#endif  // SVIT_PROGRAM_H_
