#include "program.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "line_parser.h"

namespace svit {
namespace {

constexpr std::size_t kMaxDims = 8;
constexpr std::size_t kMaxTensors = 1000000;
constexpr std::size_t kMaxSteps = 100000;
constexpr std::size_t kMaxChannels = 256;
constexpr std::uint64_t kMaxLaunched = 0x7fffffff;  // threads of one launch
constexpr std::uint64_t kMaxCapability = 999;
constexpr std::size_t kMaxFileName = 60;
constexpr std::size_t kDeviceLine = 4;
constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 47;  // more than any user address space holds

constexpr DType kDTypes[] = {
    {"float32", {kDLFloat, 32, 1}, 4, -3.4028234663852886e38, 3.4028234663852886e38, false},
    {"uint8", {kDLUInt, 8, 1}, 1, 0, 255, false},
    {"int8", {kDLInt, 8, 1}, 1, -128, 127, false},
    {"int16", {kDLInt, 16, 1}, 2, -32768, 32767, false},
    {"uint16", {kDLUInt, 16, 1}, 2, 0, 65535, false},
    {"int32", {kDLInt, 32, 1}, 4, -2147483648.0, 2147483647.0, false},
    {"bool", {kDLBool, 8, 1}, 1, 0, 1, false},
    {"float16", {kDLFloat, 16, 1}, 2, -65504, 65504, true},
    {"uint32", {kDLUInt, 32, 1}, 4, 0, 4294967295.0, true},
    {"uint1", {kDLUInt, 1, 1}, 4, 0, 0, true},
};
constexpr std::string_view kSpaceNames[] = {"weights", "states", "workspace"};

bool is_symbol(std::string_view word) {
  return std::all_of(word.begin(), word.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

// A name without a folder, and no hidden file.
bool is_plain_file_name(std::string_view word) {
  const auto fits = [](char c) { return c == '.' || c == '-' || is_symbol({&c, 1}); };
  return word.size() <= kMaxFileName && word[0] != '.' && std::all_of(word.begin(), word.end(), fits);
}

class Parser : private LineParser {
 public:
  Program parse(std::string_view text) {
    for (; !text.empty() && !ended_; ++line_) {
      const std::size_t stop = text.find('\n');
      statement(split(text.substr(0, stop)));
      text.remove_prefix(stop == std::string_view::npos ? text.size() : stop + 1);
    }
    if (!ended_) fail("the file stops without 'end': it was cut off");
    if (!text.empty()) fail("something follows 'end'");
    return std::move(program_);
  }

 private:
  void statement(const Words& words) {
    const std::string_view kind = words[0];
    if (line_ == 1) return header(words);
    if (line_ == 2) return sizes(words);
    if (line_ == 3) return threads(words);
    if (kind == "device") return device(words);
    if (kind == "tensor") return tensor(words);
    if (kind == "expand") return expand(words);
    if (kind == "state") return state(words);
    if (kind == "input") return endpoint(words, input_);
    if (kind == "output") return endpoint(words, output_);
    if (kind == "call") return call(words);
    if (kind == "prepare") return launch(words, program_.preparations);
    if (kind == "launch") return launch(words, program_.calls);
    if (kind == "tap") return tap(words);
    if (kind == "taporder") return taporder(words);
    if (kind == "steps") return steps(words);
    if (kind == "features") return features(words);
    if (kind == "class") return class_name(words);
    if (kind == "frame") return frame(words);
    if (kind == "golden") return golden(words);
    if (kind == "end") return end(words);
    fail("unknown statement " + quoted(kind));
  }

  std::size_t tensor_id(std::string_view word) const {
    if (program_.tensors.empty()) fail("no tensor is declared above");
    return static_cast<std::size_t>(number(word, program_.tensors.size() - 1, "tensor id"));
  }

  void header(const Words& words) const {
    if (words[0] != "svit-program" || words.size() != 2) fail("this is no svit program");
    if (words[1] != "2") fail("program format " + quoted(words[1]) + ", this libsvit reads format 2");
  }

  void sizes(const Words& words) {
    expect_words(words, 7);
    expect_word(words[0], "sizes");
    for (std::size_t space = 0; space < kSpaces; ++space) {
      expect_word(words[1 + 2 * space], kSpaceNames[space]);
      program_.sizes[space] = number(words[2 + 2 * space], kMaxBytes, "size in bytes");
    }
  }

  // threads <most parts>
  void threads(const Words& words) {
    expect_word(words[0], "threads");
    expect_words(words, 2);
    program_.threads = static_cast<std::size_t>(number(words[1], kMaxThreads, "number of threads"));
    if (program_.threads == 0) fail("a program without threads");
  }

  // device cuda <least compute capability> <file> | device opencl gpu|any <file>
  void device(const Words& words) {
    if (line_ != kDeviceLine) fail("'device' belongs on line " + std::to_string(kDeviceLine));
    expect_words(words, 4);
    Target target{Api::cuda, 0, false, std::string(words[3])};
    if (words[1] == "cuda") {
      target.capability = static_cast<std::uint32_t>(number(words[2], kMaxCapability, "compute capability"));
      if (target.capability < 10) fail("compute capability " + quoted(words[2]) + ", the first one was 10");
    } else if (words[1] == "opencl") {
      target.api = Api::opencl;
      target.allows_cpu = words[2] == "any";
      if (!target.allows_cpu) expect_word(words[2], "gpu");
    } else {
      fail("unknown device " + quoted(words[1]) + ": cuda or opencl");
    }
    if (!is_plain_file_name(words[3])) fail("not the name of a file: " + quoted(words[3]));
    if (program_.threads != 1) fail("a program for a GPU has 1 thread");
    program_.target = std::move(target);
  }

  Space space(std::string_view word) const {
    const auto* found = std::find(std::begin(kSpaceNames), std::end(kSpaceNames), word);
    if (found == std::end(kSpaceNames)) fail("unknown space " + quoted(word) + ": weights, states or workspace");
    return static_cast<Space>(found - std::begin(kSpaceNames));
  }

  const DType* dtype(std::string_view word) const {
    const auto* found = std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](const DType& d) { return d.name == word; });
    if (found == std::end(kDTypes) || (found->is_gpu_only && !program_.target)) fail("unknown dtype " + quoted(word));
    return found;
  }

  // tensor <id> <name> <dtype> <space> <offset> <ndim> <dim...>
  void tensor(const Words& words) {
    expect_at_least(words, 7);
    const std::size_t next = program_.tensors.size();
    if (number(words[1], kMaxTensors, "tensor id") != next) {
      fail("tensor ids count up from 0: expected " + std::to_string(next) + ", got " + quoted(words[1]));
    }
    Tensor tensor{std::string(words[2]), dtype(words[3]), space(words[4]), 0, 0, {}};
    tensor.offset = number(words[5], kMaxBytes, "offset");
    const std::uint64_t alignment = program_.target ? kGpuAlignment : kAlignment;
    if (tensor.offset % alignment != 0) {
      fail("offset " + quoted(words[5]) + " is no multiple of " + std::to_string(alignment));
    }
    const std::uint64_t ndim = number(words[6], kMaxDims, "number of axes");
    expect_words(words, 7 + static_cast<std::size_t>(ndim));
    tensor.bytes = tensor.dtype->bytes;
    for (std::size_t axis = 7; axis < words.size(); ++axis) {
      const std::uint64_t extent = number(words[axis], kMaxBytes, "extent");
      if (extent == 0) fail("a tensor without elements");
      const std::uint64_t stored = tensor.dtype->is_packed() && axis + 1 == words.size() ? (extent + 31) / 32 : extent;
      if (tensor.bytes > kMaxBytes / extent) fail("the tensor is too large");
      tensor.bytes *= stored;
      tensor.shape.push_back(static_cast<std::int64_t>(extent));
    }
    const std::uint64_t room = program_.sizes[static_cast<std::size_t>(tensor.space)];
    if (tensor.offset > room || tensor.bytes > room - tensor.offset) {
      fail("the tensor ends at byte " + std::to_string(tensor.offset + tensor.bytes) + " of " + quoted(words[4]) +
           ", which has " + std::to_string(room));
    }
    program_.tensors.push_back(std::move(tensor));
  }

  // expand <tensor id> <bitmap's tensor id> <values' tensor id> <background>
  void expand(const Words& words) {
    expect_words(words, 5);
    const std::size_t out = tensor_id(words[1]), bitmap = tensor_id(words[2]), values = tensor_id(words[3]);
    const Tensor &to = program_.tensors[out], &bits = program_.tensors[bitmap], &from = program_.tensors[values];
    if (to.space != Space::workspace) fail("tensor " + quoted(to.name) + " does not lie in 'workspace'");
    if (bits.space != Space::weights) fail("tensor " + quoted(bits.name) + " does not lie in 'weights'");
    if (from.space != Space::weights) fail("tensor " + quoted(from.name) + " does not lie in 'weights'");
    if (to.dtype->is_packed()) fail("the values are packed");
    if (from.dtype != to.dtype) fail("the values are " + quoted(from.dtype->name) + ", not " + quoted(to.dtype->name));
    const std::uint64_t elements = to.bytes / to.dtype->bytes;
    if (bits.bytes != (elements + 7) / 8) {
      fail("the bitmap has " + std::to_string(bits.bytes) + " bytes for " + std::to_string(elements) + " elements");
    }
    const std::uint64_t highest = (std::uint64_t{1} << (8 * to.dtype->bytes)) - 1;
    const auto background = static_cast<std::uint32_t>(number(words[4], highest, "background"));
    program_.expansions.push_back({out, bitmap, values, background});
  }

  // state <tensor id> <initial value>
  void state(const Words& words) {
    expect_words(words, 3);
    const std::size_t id = tensor_id(words[1]);
    const Tensor& tensor = program_.tensors[id];
    if (tensor.space != Space::states) fail("tensor " + quoted(tensor.name) + " does not lie in 'states'");
    const auto same = [&](const State& state) { return state.tensor == id; };
    if (std::any_of(program_.states.begin(), program_.states.end(), same)) fail("a second initial value for this tensor");
    const double initial = real(words[2], "initial value");
    const bool is_whole = std::trunc(initial) == initial;
    const bool fits = initial >= tensor.dtype->lowest && initial <= tensor.dtype->highest;
    if (!fits || (tensor.dtype->type.code != kDLFloat && !is_whole)) {
      fail("the initial value " + quoted(words[2]) + " is no " + tensor.dtype->name);
    }
    program_.states.push_back({id, initial});
  }

  // input <tensor id> | output <tensor id>
  void endpoint(const Words& words, std::optional<std::size_t>& slot) const {
    expect_words(words, 2);
    if (slot) fail("a second " + std::string(words[0]));
    slot = tensor_id(words[1]);
    if (program_.tensors[*slot].space != Space::workspace) fail("the " + std::string(words[0]) + " must lie in 'workspace'");
  }

  // call <symbol> <layer> split|whole <n> <tensor id...>
  void call(const Words& words) {
    if (program_.target) fail("a program for a GPU has no 'call'");
    expect_at_least(words, 5);
    const bool is_split = words[3] == "split";
    if (!is_split) expect_word(words[3], "whole");
    program_.calls.push_back({symbol(words[1]), std::string(words[2]), is_split, arguments(words, 4), line_, {}, {}});
  }

  // prepare | launch <symbol> <layer> <blocks, x y z> <threads of a block, x y z> <n> <tensor id...>
  void launch(const Words& words, std::vector<Call>& calls) const {
    if (!program_.target) fail("a program for the CPU has no " + quoted(words[0]));
    expect_at_least(words, 10);
    Call call{symbol(words[1]), std::string(words[2]), false, arguments(words, 9), line_, {}, {}};
    std::uint64_t launched = 1;
    for (std::size_t i = 0; i < 6; ++i) {
      const std::uint64_t extent = number(words[3 + i], kMaxLaunched, "extent");
      if (extent == 0) fail("a launch without threads");
      if (extent > kMaxLaunched / launched) fail("a launch of more than " + std::to_string(kMaxLaunched) + " threads");
      launched *= extent;
      (i < 3 ? call.blocks : call.threads)[i % 3] = static_cast<std::uint32_t>(extent);
    }
    calls.push_back(std::move(call));
  }

  std::string symbol(std::string_view word) const {
    if (!is_symbol(word)) fail("not a symbol: " + quoted(word));
    return std::string(word);
  }

  // ... <n> <tensor id...>
  std::vector<std::size_t> arguments(const Words& words, std::size_t first) const {
    const std::uint64_t count = number(words[first], kMaxArguments, "number of arguments");
    if (count == 0) fail("a call without arguments");
    expect_words(words, first + 1 + static_cast<std::size_t>(count));
    std::vector<std::size_t> ids;
    for (std::size_t i = first + 1; i < words.size(); ++i) ids.push_back(tensor_id(words[i]));
    return ids;
  }

  // tap <lif name> <tensor id> <call index>
  void tap(const Words& words) {
    expect_words(words, 4);
    if (find_tap(words[1])) fail("a second tap " + quoted(words[1]));
    const std::size_t id = tensor_id(words[2]);
    const DType& type = *program_.tensors[id].dtype;
    if (type.name != std::string_view("uint8") && !type.is_float32() && !type.is_packed()) {
      fail("spikes are uint8 or float32, not " + quoted(type.name));
    }
    if (program_.calls.empty()) fail("a tap before the first call");
    const std::uint64_t call = number(words[3], program_.calls.size() - 1, "call index");
    program_.taps.push_back({std::string(words[1]), id, static_cast<std::size_t>(call), {}});
  }

  // taporder <lif name> <ndim> <permutation...>
  void taporder(const Words& words) {
    expect_at_least(words, 3);
    Tap* tap = find_tap(words[1]);
    if (!tap) fail("no tap " + quoted(words[1]) + " is declared above");
    if (!tap->order.empty()) fail("a second order for this tap");
    const std::size_t ndim = program_.tensors[tap->tensor].shape.size();
    if (number(words[2], kMaxDims, "number of axes") != ndim) {
      fail("the tap's tensor has " + std::to_string(ndim) + " axes, not " + quoted(words[2]));
    }
    expect_words(words, 3 + ndim);
    for (std::size_t i = 3; i < words.size(); ++i) {
      const auto axis = static_cast<std::int32_t>(number(words[i], ndim - 1, "axis"));
      if (std::find(tap->order.begin(), tap->order.end(), axis) != tap->order.end()) fail("an axis comes twice");
      tap->order.push_back(axis);
    }
  }

  Tap* find_tap(std::string_view name) {
    for (Tap& tap : program_.taps) {
      if (tap.name == name) return &tap;
    }
    return nullptr;
  }

  // steps <calls of one inference>
  void steps(const Words& words) {
    expect_words(words, 2);
    if (program_.steps != 0) fail("a second number of steps");
    program_.steps = static_cast<std::size_t>(number(words[1], kMaxSteps, "number of steps"));
    if (program_.steps == 0) fail("an inference without steps");
  }

  // features <name...>
  void features(const Words& words) {
    expect_at_least(words, 2);
    if (!program_.features.empty()) fail("a second list of CPU features");
    program_.features.assign(words.begin() + 1, words.end());
  }

  // class [name], in the order of the logits; in a name, %20 is a blank, and so on
  void class_name(const Words& words) {
    if (words.size() > 1) expect_words(words, 2);
    program_.classes.push_back(words.size() > 1 ? decoded(words[1]) : "");
  }

  // frame <frames> <channels> <height> <width> <divisor> <mean of each channel...> <std of each channel...>
  void frame(const Words& words) {
    expect_at_least(words, 6);
    if (program_.frame) fail("a second description of frames");
    std::uint64_t sizes[4];
    std::uint64_t elements = 1;
    for (std::size_t i = 0; i < 4; ++i) {
      sizes[i] = number(words[1 + i], kMaxBytes, "extent");
      if (sizes[i] == 0) fail("frames without elements");
      if (elements > kMaxBytes / sizes[i]) fail("the frames are too large");
      elements *= sizes[i];
    }
    const std::uint64_t channels = number(words[2], kMaxChannels, "number of channels");
    expect_words(words, 6 + 2 * static_cast<std::size_t>(channels));
    Frame frame{sizes[0], channels, sizes[2], sizes[3], static_cast<float>(number(words[5], 255, "divisor")), {}, {}};
    if (frame.divisor == 0) fail("the divisor is 0");
    for (std::size_t i = 0; i < channels; ++i) {
      frame.mean.push_back(static_cast<float>(real(words[6 + i], "mean")));
      frame.std.push_back(static_cast<float>(real(words[6 + channels + i], "standard deviation")));
      if (!(frame.std.back() > 0)) fail("a standard deviation is not above 0");
    }
    program_.frame = std::move(frame);
  }

  // golden <inputs> <largest difference>
  void golden(const Words& words) {
    expect_words(words, 3);
    if (program_.golden) fail("a second golden check");
    const std::uint64_t count = number(words[1], kMaxBytes, "number of inputs");
    program_.golden = {count, static_cast<float>(real(words[2], "tolerance"))};
  }

  void check_facts() const {
    const Tensor& input = program_.tensors[program_.input];
    const std::uint64_t logits = program_.tensors[program_.output].bytes / sizeof(float);
    if (!program_.classes.empty() && program_.classes.size() != logits) {
      fail(std::to_string(program_.classes.size()) + " classes have names, there are " + std::to_string(logits) + " logits");
    }
    if (!program_.frame) return;
    if (!input.dtype->is_float32() || input.bytes / sizeof(float) != program_.frame->bytes()) {
      fail("the frames have " + std::to_string(program_.frame->bytes()) + " elements, the input " +
           std::to_string(input.bytes / input.dtype->bytes) + " of type " + input.dtype->name);
    }
  }

  void end(const Words& words) {
    expect_words(words, 1);
    if (!input_) fail("no input is declared");
    if (!output_) fail("no output is declared");
    if (program_.calls.empty()) fail(program_.target ? "no launch is declared" : "no call is declared");
    program_.input = *input_;
    program_.output = *output_;
    if (!program_.tensors[*output_].dtype->is_float32()) fail("the output must be float32");
    if (program_.tensors[*input_].dtype->is_packed()) fail("the input must not be packed");
    for (const Tap& tap : program_.taps) {
      if (tap.order.size() != program_.tensors[tap.tensor].shape.size()) fail("tap " + quoted(tap.name) + " has no order");
    }
    std::vector<bool> starts(program_.tensors.size(), false);
    for (const State& state : program_.states) starts[state.tensor] = true;
    for (std::size_t id = 0; id < starts.size(); ++id) {
      const Tensor& tensor = program_.tensors[id];
      if (tensor.space == Space::states && !starts[id]) fail("state " + quoted(tensor.name) + " has no initial value");
    }
    check_facts();
    ended_ = true;
  }

  Program program_;
  std::optional<std::size_t> input_;
  std::optional<std::size_t> output_;
  bool ended_ = false;
};

}  // namespace

std::uint64_t Tensor::elements() const {
  std::uint64_t elements = 1;
  for (const std::int64_t extent : shape) elements *= static_cast<std::uint64_t>(extent);
  return elements;
}

Program parse_program(std::string_view text) { return Parser().parse(text); }

}  // namespace svit
