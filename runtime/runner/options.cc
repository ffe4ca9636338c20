#include "options.h"

#include <charconv>
#include <string_view>

namespace svit {

const char* const kUsage =
    "svit-run BUNDLE --input FILE --count N [options]\n"
    "svit-run BUNDLE --classify FILE | --self-test | --info\n"
    "\n"
    "Runs a compiled spiking network on this machine and prints one JSON object: load time, first inference, every timed\n"
    "sample (ns), peak and current memory (bytes), CPU features. A program that has its network in it takes no BUNDLE.\n"
    "\n"
    "  --classify FILE    instead prints a line for each input of FILE: its number, its class, the class's name, its logit\n"
    "  --self-test        instead compares the logits of the golden inputs with those of build time\n"
    "  --info             instead prints the manifest, one JSON object\n"
    "  --input FILE       N inputs, raw, one after the other, in the input tensor's dtype and layout\n"
    "  --count N          how many inputs the file holds\n"
    "  --frames LAYOUT    the inputs are not tensors but frames of bytes, which are normalized here: 'hwc' (pixel by\n"
    "                     pixel, as cameras give them) or 'chw' (channel by channel)\n"
    "  --output FILE      writes the logits of every input: float32, (N, classes)\n"
    "  --spikes FILE      writes the spikes: for each input, for each time step (one in sequence mode), for each tap in\n"
    "                     the order of program.txt, one byte per neuron (0 or 1) in the tap tensor's own layout\n"
    "  --mode MODE        'sequence': one run per input; 'step': reset, then one step per time step; by default as the\n"
    "                     network was exported\n"
    "  --timesteps T      step mode only: steps of one inference; the file holds (N, T, step input), or (N, step input),\n"
    "                     which is then shown T times; the output is the mean over the steps\n"
    "  --warmup W         inferences before the timed ones (default 10)\n"
    "  --repeat R         timed inferences (default 100, at most 100000), cycling through the inputs\n"
    "  --min-time-s S     goes on with timed inferences, up to 100000, until S seconds have passed (default 0)\n"
    "  --threads N        threads that share the work (default 1), at most the CPUs that the program may use\n"
    "  --profile          then runs as many inferences again, at most 1000, and times every kernel call of them\n"
    "  --version, --help\n"
    "\n"
    "Exit status: 0 done, 1 failed or stopped by a signal, 2 wrong arguments.\n";

namespace {

constexpr std::uint64_t kMaxCount = 1000000000;
constexpr std::uint64_t kMaxTimesteps = 100000;
constexpr std::uint64_t kMaxRepeat = 100000;
constexpr std::uint64_t kMaxThreads = 1000000;
constexpr double kMaxSeconds = 86400;

std::uint64_t whole(std::string_view name, std::string_view text, std::uint64_t lowest, std::uint64_t highest) {
  std::uint64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size() || value < lowest || value > highest) {
    throw UsageError(std::string(name) + " wants a whole number from " + std::to_string(lowest) + " to " +
                     std::to_string(highest) + ", got '" + std::string(text) + "'");
  }
  return value;
}

double seconds(std::string_view name, std::string_view text) {
  double value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size() || !(value >= 0 && value <= kMaxSeconds)) {
    throw UsageError(std::string(name) + " wants seconds from 0 to 86400, got '" + std::string(text) + "'");
  }
  return value;
}

svit_layout layout(std::string_view text) {
  if (text == "hwc") return SVIT_HWC;
  if (text == "chw") return SVIT_CHW;
  throw UsageError("--frames is 'hwc' or 'chw', got '" + std::string(text) + "'");
}

struct Parsing {
  Options options;
  std::string mode = "sequence";

  void set(std::string_view name, const char* text) {
    if (name == "--input") {
      options.input = text;
    } else if (name == "--count") {
      options.count = whole(name, text, 1, kMaxCount);
    } else if (name == "--output") {
      options.output = text;
    } else if (name == "--spikes") {
      options.spikes = text;
    } else if (name == "--classify") {
      options.command = Command::classify;
      options.input = text;
    } else if (name == "--frames") {
      options.frames = layout(text);
    } else if (name == "--mode") {
      mode = text;
      options.has_mode = true;
    } else if (name == "--timesteps") {
      options.timesteps = whole(name, text, 1, kMaxTimesteps);
    } else if (name == "--warmup") {
      options.warmup = whole(name, text, 0, kMaxCount);
    } else if (name == "--repeat") {
      options.repeat = whole(name, text, 0, kMaxRepeat);
    } else if (name == "--threads") {
      options.threads = whole(name, text, 1, kMaxThreads);
    } else if (name == "--min-time-s") {
      options.min_time_s = seconds(name, text);
    } else {
      throw UsageError("unknown option '" + std::string(name) + "'");
    }
  }

  void check(bool has_network) const {
    if (options.bundle.empty() && !has_network) throw UsageError("BUNDLE is missing");
    if (!options.bundle.empty() && has_network) throw UsageError("the network is in this program, got '" + options.bundle + "'");
    if (options.command == Command::measure) check_inputs();
    if (mode != "sequence" && mode != "step") throw UsageError("--mode is 'sequence' or 'step', got '" + mode + "'");
    if (mode == "step" && options.timesteps == 0) throw UsageError("--mode step wants --timesteps T");
    if (mode == "sequence" && options.timesteps != 0) throw UsageError("--timesteps belongs to --mode step");
    if (!options.output.empty() && options.output == options.spikes) {
      throw UsageError("--output and --spikes name the same file");
    }
  }

  void check_inputs() const {
    if (options.input.empty()) throw UsageError("--input FILE is missing");
    if (options.count == 0) throw UsageError("--count N is missing");
  }
};

}  // namespace

Options parse_options(int argc, char** argv, bool has_network) {
  Parsing parsing;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--help") parsing.options.wants_help = true;
    if (word == "--version") parsing.options.wants_version = true;
    if (parsing.options.wants_help || parsing.options.wants_version) return parsing.options;
    if (word == "--profile") {
      parsing.options.profile = true;
    } else if (word == "--info") {
      parsing.options.command = Command::info;
    } else if (word == "--self-test") {
      parsing.options.command = Command::self_test;
    } else if (word.substr(0, 2) == "--") {
      if (i + 1 == argc) throw UsageError("'" + std::string(word) + "' wants a value");
      parsing.set(word, argv[++i]);
    } else if (parsing.options.bundle.empty()) {
      parsing.options.bundle = word;
    } else {
      throw UsageError("one BUNDLE only, got '" + parsing.options.bundle + "' and '" + std::string(word) + "'");
    }
  }
  parsing.check(has_network);
  return parsing.options;
}

}  // namespace svit
