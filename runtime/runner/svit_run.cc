// svit-run: times a bundle on this machine, writes its outputs and spikes, and prints one JSON object.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "clock.h"
#include "commands.h"
#include "cpu_features.h"
#include "energy.h"
#include "files.h"
#include "inference.h"
#include "json.h"
#include "linked_network.h"
#include "open_session.h"
#include "options.h"
#include "process.h"
#include "profile.h"
#include "program.h"
#include "resident.h"
#include "sensors.h"
#include "signals.h"
#include "spike_writer.h"
#include "stream.h"
#include "sustained.h"
#include "svit.h"
#include "warm_up.h"

namespace svit {
namespace {

constexpr std::size_t kMaxSamples = 100000;
constexpr std::size_t kMaxProfiled = 1000;

void set_threads(svit_session* session, std::uint64_t threads) {
  const std::size_t cpus = count_usable_cpus();
  if (threads > cpus) {
    throw Error("--threads " + std::to_string(threads) + ": this process may use " + std::to_string(cpus) +
                (cpus == 1 ? " CPU" : " CPUs") + ", and more threads than CPUs only wait for each other");
  }
  if (svit_set_threads(session, threads) != SVIT_OK) throw Error(svit_last_error(session));
}

struct Timing {
  std::uint64_t load_ns = 0;
  WarmUp warm_up{};
  std::vector<std::uint64_t> samples_ns;
};

struct Memory {
  std::optional<std::uint64_t> floor;             // what a network of no size would take
  std::optional<std::uint64_t> weights_resident;  // of the mapped weights, once the network has run
  ProcessMemory process;                          // once the network has run
};

// Also where that is a CPU through OpenCL: the network's memory is the driver's.
bool is_on_accelerator(const svit_session* session) { return std::strcmp(svit_device(session).api, "cpu") != 0; }

// Resident bytes of a program that has loaded a network and not run it: libraries, one input and one output. Of the
// network's memory the states and the weights that were expanded are touched by then, every page of them, and what is
// left of the stored weights: they are taken off. The machine code is paged in by running it, and is taken off as well,
// to be added when it has run.
std::optional<std::uint64_t> read_floor_without_code(const svit_session* session) {
  read_process_memory();  // so that the pages which reading itself needs are there
  const std::optional<std::uint64_t> resident = read_resident_bytes();
  const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  const svit_sizes sizes = svit_memory(session);
  const std::uint64_t states = (sizes.state_bytes + page - 1) / page * page;
  const std::uint64_t files = read_resident_code().value_or(0) + read_resident_weights().value_or(0);
  const std::uint64_t apart = states + sizes.expanded_bytes + files;
  if (!resident || *resident < apart) return std::nullopt;
  return *resident - apart;
}

std::uint64_t nanoseconds(double seconds) { return static_cast<std::uint64_t>(seconds * 1e9); }

std::vector<std::uint64_t> take_samples(const Infer& infer, const Options& options) {
  const std::uint64_t start = now_ns();
  std::vector<std::uint64_t> samples;
  const std::uint64_t min_ns = nanoseconds(options.min_time_s);
  while (samples.size() < options.repeat || (now_ns() - start < min_ns && samples.size() < kMaxSamples)) {
    samples.push_back(infer(samples.size()));
  }
  return samples;
}

void write_results(svit_session* session, Inference& inference, const Infer& infer, const Options& options) {
  if (options.output.empty() && options.spikes.empty()) return;
  std::unique_ptr<OutputFile> output;
  std::unique_ptr<SpikeWriter> spikes;
  if (!options.output.empty()) output = std::make_unique<OutputFile>(options.output);
  if (!options.spikes.empty()) spikes = std::make_unique<SpikeWriter>(session, options.spikes);
  for (std::uint64_t i = 0; i < options.count; ++i) {
    infer(i);
    if (output) output->write(inference.output().data(), inference.output().size() * sizeof(float));
    if (spikes) spikes->check();
  }
  if (output) output->commit();
  if (spikes) spikes->commit();
}

// Of the whole system: a GPU may share the memory with the CPU, and what its driver takes belongs to no process.
class SystemMemory {
 public:
  void look() {
    const std::optional<std::uint64_t> now = read_available_memory();
    if (now && lowest_) lowest_ = std::min(*lowest_, *now);
  }
  // The most that was taken since this was made, by whatever runs.
  std::optional<std::uint64_t> taken() const {
    if (!before_) return std::nullopt;
    return *before_ - *lowest_;
  }

 private:
  const std::optional<std::uint64_t> before_ = read_available_memory();
  std::optional<std::uint64_t> lowest_ = before_;
};

struct Report {
  Timing timing;
  Memory memory;
  std::optional<std::uint64_t> system_memory;  // of a network on a GPU
  std::optional<Profile> profile;
  std::optional<Sustained> sustained;
  std::optional<Stream> stream;
  std::optional<Energy> energy;
};

std::string profile_json(const Profile& profile) {
  char overhead[32];
  std::snprintf(overhead, sizeof overhead, "%.3f", profile.overhead_ns);
  return std::string(",\"profile_overhead_ns\":") + overhead +
         ",\"profile_p50_ns\":" + std::to_string(profile.p50_ns) + ",\"profile\":" +
         json_array(profile.calls, [](const CallCost& call) {
           return "{\"layer\":" + json_string(call.layer) + ",\"kernel\":" + json_string(call.kernel) +
                  ",\"p50_ns\":" + std::to_string(call.p50_ns) + ",\"total_ns\":" + std::to_string(call.total_ns) +
                  ",\"calls\":" + std::to_string(call.calls) + "}";
         });
}

std::string warm_up_json(const WarmUp& warm_up) {
  std::string json = ",\"first_ns\":" + std::to_string(warm_up.first_ns);
  json += ",\"warmup\":" + std::to_string(warm_up.inferences);
  if (warm_up.is_steady) json += std::string(",\"is_steady\":") + (*warm_up.is_steady ? "true" : "false");
  return json;
}

std::string memory_json(const svit_sizes& sizes, const Memory& memory) {
  return ",\"vm_hwm_bytes\":" + json_number(memory.process.vm_hwm) +
         ",\"pss_bytes\":" + json_number(memory.process.pss) +
         ",\"private_bytes\":" + json_number(memory.process.private_bytes) +
         ",\"floor_bytes\":" + json_number(memory.floor) +
         ",\"weights_resident_bytes\":" + json_number(memory.weights_resident) +
         ",\"weights_bytes\":" + std::to_string(sizes.weights_bytes) +
         ",\"state_bytes\":" + std::to_string(sizes.state_bytes) +
         ",\"workspace_bytes\":" + std::to_string(sizes.workspace_bytes);
}

std::string device_json(const svit_device_info& device) {
  return ",\"device\":{\"api\":" + json_string(device.api) + ",\"type\":" + json_string(device.type) +
         ",\"name\":" + json_string(device.name) + ",\"driver\":" + json_string(device.driver) + "}";
}

void print_report(const svit_session* session, const Options& options, const Report& report) {
  std::string json = "{\"load_ns\":" + std::to_string(report.timing.load_ns);
  json += warm_up_json(report.timing.warm_up) + ",\"samples_ns\":";
  json += json_array(report.timing.samples_ns, [](std::uint64_t sample) { return std::to_string(sample); });
  if (!options.output.empty()) json += ",\"accuracy_samples\":" + std::to_string(options.count);
  json += ",\"threads\":" + std::to_string(options.threads);
  json += device_json(svit_device(session));
  json += memory_json(svit_memory(session), report.memory);
  if (is_on_accelerator(session)) json += ",\"system_memory_bytes\":" + json_number(report.system_memory);
  if (report.profile) json += profile_json(*report.profile);
  if (report.sustained) json += ",\"sustained\":" + to_json(*report.sustained);
  if (report.stream) json += ",\"stream\":" + to_json(*report.stream);
  if (report.energy) json += ",\"energy\":" + to_json(*report.energy);
  json += ",\"cpu_features\":" + json_array(read_cpu_features(), json_string) + "}\n";
  if (std::fwrite(json.data(), 1, json.size(), stdout) != json.size() || std::fflush(stdout) != 0) {
    throw Error(std::string("cannot write to stdout: ") + std::strerror(errno));
  }
}

// What is asked for beside the samples.
void run_further(svit_session* session, Inference& inference, const Infer& infer, const Options& options,
                 Report& report) {
  const Sensors sensors(options.sensors, options.sensor_commands);
  if (options.profile) {
    report.profile = profile_calls(session, std::min(report.timing.samples_ns.size(), kMaxProfiled), infer);
  }
  if (options.sustain_s > 0) report.sustained = run_sustained(infer, nanoseconds(options.sustain_s), sensors);
  if (options.streamed > 0) {
    const auto infer_frame = [&](std::uint64_t number) {
      stop_if_asked();
      return inference.run_frame(number);
    };
    report.stream = run_stream(infer_frame, options.streamed, options.fps > 0 ? nanoseconds(1 / options.fps) : 0);
  }
  if (options.energy_s > 0) {
    report.energy =
        measure_energy(infer, nanoseconds(options.energy_s), nanoseconds(options.sensor_period_s), sensors);
  }
}

void run(const Options& options) {
  if (!options.cpus.empty()) stay_on_cpus(options.cpus);
  Report report;
  const std::uint64_t start = now_ns();
  SystemMemory system_memory;
  const SessionPointer session = open_session(options);
  set_threads(session.get(), options.threads);
  report.timing.load_ns = now_ns() - start;
  system_memory.look();
  Inference inference(session.get(), options);
  const Infer infer = [&](std::uint64_t number) {
    stop_if_asked();
    return inference.run(number % options.count);
  };
  if (!is_on_accelerator(session.get())) report.memory.floor = read_floor_without_code(session.get());
  const Infer first_infer = [&](std::uint64_t number) {
    const std::uint64_t spent = infer(number);
    if (number == 0) system_memory.look();
    return spent;
  };
  report.timing.warm_up = warm_up(first_infer, options.count, options.warmup, nanoseconds(options.warmup_s));
  system_memory.look();
  report.system_memory = system_memory.taken();
  // Before the samples and the spikes, which are the measurement's own: the network's memory does not grow any more.
  report.memory.process = read_process_memory();
  report.memory.weights_resident = read_resident_weights();
  if (report.memory.floor) *report.memory.floor += read_resident_code().value_or(0);
  report.timing.samples_ns = take_samples(infer, options);
  run_further(session.get(), inference, infer, options, report);
  write_results(session.get(), inference, infer, options);
  print_report(session.get(), options, report);
}

int run_command_line(int argc, char** argv) {
  try {
    const Options options = parse_options(argc, argv, svit_get_linked_network() != nullptr);
    if (options.wants_help) return std::fputs(kUsage, stdout) < 0;
    if (options.wants_version) return std::printf("svit-run %s\n", svit_version()) < 0;
    catch_signals();
    switch (options.command) {
      case Command::measure: run(options); break;
      case Command::info: show_info(options); break;
      case Command::self_test: test_self(options); break;
      case Command::classify: classify(options); break;
    }
    return 0;
  } catch (const UsageError& error) {
    std::fprintf(stderr, "svit-run: %s. See 'svit-run --help'.\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "svit-run: %s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace svit

int main(int argc, char** argv) { return svit::run_command_line(argc, argv); }
