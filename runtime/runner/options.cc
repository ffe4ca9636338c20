#include "options.h"

#include <charconv>
#include <cstdio>
#include <string_view>

namespace svit {

const char* const kUsage =
    "svit-run BUNDLE --input FILE --count N [options]\n"
    "svit-run BUNDLE --classify FILE | --self-test | --info\n"
    "\n"
    "Runs a compiled spiking network on this machine and prints one JSON object: load time, first inference, every timed\n"
    "sample (ns), peak and current memory (bytes), device, CPU features. A program that has its network in it takes no BUNDLE.\n"
    "\n"
    "  --classify FILE    instead prints a line for each input of FILE: its number, its class, the class's name, its logit\n"
    "  --self-test        instead compares the logits of the golden inputs with those of build time\n"
    "  --info             instead prints the manifest, one JSON object; for a GPU, on stderr also which one runs it\n"
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
    "  --warmup-s S       goes on with them until the times are steady, at most S seconds (default 0: no)\n"
    "  --repeat R         timed inferences (default 100, at most 100000), cycling through the inputs\n"
    "  --min-time-s S     goes on with timed inferences, up to 100000, until S seconds have passed (default 0)\n"
    "  --threads N        threads that share the work (default 1), at most the CPUs that the program may use\n"
    "  --cpus LIST        CPUs to run on, such as 4-7 or 0,2; all threads stay on them\n"
    "  --require-device D fails if the network does not run on a 'cpu' or on a 'gpu'\n"
    "\n"
    "After the timed inferences, in this order:\n"
    "  --profile          runs as many inferences again, at most 1000, and times every kernel call of them\n"
    "  --sustain-s S      runs without a break for S seconds; windows with their median, and the sensors between them\n"
    "  --stream N         takes N frames: one step each in step mode, with the states kept, else one inference\n"
    "  --fps F            they arrive F a second, late or not; without it each comes when the last one is done\n"
    "  --energy-s S       rests, runs and rests, S seconds each, while a thread reads the sensors\n"
    "  --sensor FILE      a sensor is the first line of a file; may be given again\n"
    "  --sensor-command C a sensor is what a command prints; after the files; may be given again\n"
    "  --sensor-period-s S  between two readings of the thread (default 0.05)\n"
    "\n"
    "  --version, --help\n"
    "\n"
    "Exit status: 0 done, 1 failed or stopped by a signal, 2 wrong arguments.\n";

namespace {

constexpr std::uint64_t kMaxCount = 1000000000;
constexpr std::uint64_t kMaxTimesteps = 100000;
constexpr std::uint64_t kMaxRepeat = 100000;
constexpr std::uint64_t kMaxThreads = 1000000;
constexpr std::uint64_t kMaxCpu = 8191;
constexpr double kMaxSeconds = 86400;
constexpr double kMinPeriod = 0.001;
constexpr double kMinRate = 0.001;
constexpr double kMaxRate = 1e9;

std::uint64_t whole(std::string_view name, std::string_view text, std::uint64_t lowest, std::uint64_t highest) {
  std::uint64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size() || value < lowest || value > highest) {
    throw UsageError(std::string(name) + " wants a whole number from " + std::to_string(lowest) + " to " +
                     std::to_string(highest) + ", got '" + std::string(text) + "'");
  }
  return value;
}

double number(std::string_view name, std::string_view text, double lowest, double highest, const char* unit) {
  double value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size() || !(value >= lowest && value <= highest)) {
    char range[64];
    std::snprintf(range, sizeof range, " from %g to %g", lowest, highest);
    throw UsageError(std::string(name) + " wants " + unit + range + ", got '" + std::string(text) + "'");
  }
  return value;
}

// "4-7,9" as the kernel writes it.
std::vector<int> cpu_list(std::string_view name, std::string_view text) {
  std::vector<int> cpus;
  while (true) {
    const std::string_view part = text.substr(0, text.find(','));
    const std::size_t dash = part.find('-');
    const std::uint64_t first = whole(name, part.substr(0, dash), 0, kMaxCpu);
    const std::uint64_t last =
        dash == std::string_view::npos ? first : whole(name, part.substr(dash + 1), first, kMaxCpu);
    for (std::uint64_t cpu = first; cpu <= last; ++cpu) cpus.push_back(static_cast<int>(cpu));
    if (part.size() == text.size()) return cpus;
    text.remove_prefix(part.size() + 1);
  }
}

svit_layout layout(std::string_view text) {
  if (text == "hwc") return SVIT_HWC;
  if (text == "chw") return SVIT_CHW;
  throw UsageError("--frames is 'hwc' or 'chw', got '" + std::string(text) + "'");
}

std::string device(std::string_view text) {
  if (text == "cpu" || text == "gpu") return std::string(text);
  throw UsageError("--require-device is 'cpu' or 'gpu', got '" + std::string(text) + "'");
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
      options.min_time_s = number(name, text, 0, kMaxSeconds, "seconds");
    } else if (name == "--warmup-s") {
      options.warmup_s = number(name, text, 0, kMaxSeconds, "seconds");
    } else if (name == "--sustain-s") {
      options.sustain_s = number(name, text, 0, kMaxSeconds, "seconds");
    } else if (name == "--energy-s") {
      options.energy_s = number(name, text, 0, kMaxSeconds, "seconds");
    } else if (name == "--sensor-period-s") {
      options.sensor_period_s = number(name, text, kMinPeriod, kMaxSeconds, "seconds");
    } else if (name == "--fps") {
      options.fps = number(name, text, kMinRate, kMaxRate, "frames per second");
    } else if (name == "--stream") {
      options.streamed = whole(name, text, 1, kMaxRepeat);
    } else if (name == "--require-device") {
      options.device = device(text);
    } else if (name == "--cpus") {
      options.cpus = cpu_list(name, text);
    } else if (name == "--sensor") {
      options.sensors.emplace_back(text);
    } else if (name == "--sensor-command") {
      options.sensor_commands.emplace_back(text);
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
    if (options.fps > 0 && options.streamed == 0) throw UsageError("--fps belongs to --stream");
    if (options.energy_s > 0 && options.sensors.empty() && options.sensor_commands.empty()) {
      throw UsageError("--energy-s wants a --sensor");
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
