// svit-run: times a bundle on this machine, writes its outputs and spikes, and prints one JSON object.
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "files.h"
#include "options.h"
#include "process.h"
#include "program.h"
#include "svit.h"

namespace svit {
namespace {

constexpr std::size_t kMaxSamples = 100000;

volatile std::sig_atomic_t stop_signal = 0;

void catch_signals() {
  struct sigaction action{};
  action.sa_handler = [](int signal) { stop_signal = signal; };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void stop_if_asked() {
  if (stop_signal) throw Error("stopped by signal " + std::to_string(stop_signal));
}

struct FreeSession {
  void operator()(svit_session* session) const { svit_free(session); }
};
using SessionPointer = std::unique_ptr<svit_session, FreeSession>;

SessionPointer load(const std::string& bundle) {
  char error[1024];
  svit_session* session = nullptr;
  if (svit_load(bundle.c_str(), &session, error, sizeof error) != SVIT_OK) throw Error(error);
  return SessionPointer(session);
}

// One inference after the other on the inputs of a file, in sequence or step mode.
class Inference {
 public:
  Inference(svit_session* session, const Options& options)
      : session_(session),
        file_(options.input),
        steps_(options.timesteps),
        input_bytes_(svit_input(session).bytes),
        frames_(frames_per_input(options)),
        input_(input_bytes_ * frames_),
        output_(svit_output(session).bytes / sizeof(float)),
        step_output_(output_.size()) {}

  // Reads input number `index` of the file; not part of what is timed.
  void read(std::uint64_t index) {
    stop_if_asked();
    file_.read(index * input_.size(), input_.data(), input_.size());
  }

  void run() { steps_ == 0 ? run_sequence() : run_steps(); }

  std::uint64_t timed_run() {
    const std::uint64_t start = now_ns();
    run();
    return now_ns() - start;
  }

  const std::vector<float>& output() const { return output_; }

 private:
  std::size_t frames_per_input(const Options& options) const {
    const std::uint64_t pieces = file_.bytes() / input_bytes_;
    const bool is_whole = file_.bytes() % input_bytes_ == 0;
    if (is_whole && pieces == options.count) return 1;
    if (is_whole && steps_ > 0 && pieces == options.count * steps_) return steps_;
    std::string wanted = std::to_string(options.count) + " inputs of " + std::to_string(input_bytes_) + " bytes";
    if (steps_ > 0) wanted += ", once or for each of " + std::to_string(steps_) + " time steps";
    throw Error(options.input + " has " + std::to_string(file_.bytes()) + " bytes, wanted " + wanted);
  }

  void check(svit_status status) const {
    if (status != SVIT_OK) throw Error(svit_last_error(session_));
  }

  void run_sequence() {
    check(svit_run(session_, input_.data(), input_.size(), output_.data(), output_.size() * sizeof(float)));
  }

  void run_steps() {
    check(svit_reset(session_));
    std::fill(output_.begin(), output_.end(), 0.0f);
    for (std::size_t t = 0; t < steps_; ++t) {
      const unsigned char* frame = input_.data() + (frames_ == 1 ? 0 : t * input_bytes_);
      check(svit_step(session_, frame, input_bytes_, step_output_.data(), step_output_.size() * sizeof(float)));
      for (std::size_t i = 0; i < output_.size(); ++i) output_[i] += step_output_[i];
    }
    for (float& value : output_) value /= static_cast<float>(steps_);
  }

  svit_session* session_;
  InputFile file_;
  std::size_t steps_;
  std::size_t input_bytes_;
  std::size_t frames_;
  std::vector<unsigned char> input_;
  std::vector<float> output_;
  std::vector<float> step_output_;
};

// Writes every tap's spikes as bytes 0 and 1 while the network runs.
class SpikeWriter {
 public:
  SpikeWriter(svit_session* session, const std::string& path) : session_(session), file_(path) {
    taps_.resize(svit_tap_count(session));
    if (taps_.empty()) throw Error("--spikes: this bundle has no taps");
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < taps_.size(); ++i) {
      svit_tap tap{};
      svit_tap_at(session, i, &tap);
      const bool is_float = std::strcmp(tap.tensor.dtype, "float32") == 0;
      taps_[i] = {bytes, is_float};
      bytes += is_float ? tap.tensor.bytes / sizeof(float) : tap.tensor.bytes;
    }
    spikes_.resize(bytes);
    svit_set_tap_callback(session, &SpikeWriter::receive, this);
  }
  SpikeWriter(const SpikeWriter&) = delete;
  SpikeWriter& operator=(const SpikeWriter&) = delete;
  ~SpikeWriter() { svit_set_tap_callback(session_, nullptr, nullptr); }

  // Throws what went wrong inside the callbacks, where nothing may be thrown.
  void check() const {
    if (failure_) throw Error(*failure_);
  }
  void commit() { file_.commit(); }

 private:
  struct Slot {
    std::size_t offset;
    bool is_float;
  };

  // Taps may fire in another order than the program lists them: a step is written once its last one is in.
  static void receive(void* user, std::size_t index, const void* data, std::size_t bytes) {
    auto* self = static_cast<SpikeWriter*>(user);
    const Slot slot = self->taps_[index];
    unsigned char* target = self->spikes_.data() + slot.offset;
    if (slot.is_float) {
      const float* values = static_cast<const float*>(data);
      std::transform(values, values + bytes / sizeof(float), target, [](float s) { return s != 0 ? 1 : 0; });
    } else {
      const unsigned char* values = static_cast<const unsigned char*>(data);
      std::transform(values, values + bytes, target, [](unsigned char s) { return s != 0 ? 1 : 0; });
    }
    if (++self->received_ % self->taps_.size() != 0) return;
    try {
      self->file_.write(self->spikes_.data(), self->spikes_.size());
    } catch (const Error& error) {
      if (!self->failure_) self->failure_ = error.what();
    }
  }

  svit_session* session_;
  OutputFile file_;
  std::vector<Slot> taps_;
  std::vector<unsigned char> spikes_;
  std::size_t received_ = 0;
  std::optional<std::string> failure_;
};

struct Timing {
  std::uint64_t load_ns = 0;
  std::uint64_t first_ns = 0;
  std::vector<std::uint64_t> samples_ns;
};

void measure(Inference& inference, const Options& options, Timing& timing) {
  inference.read(0);
  timing.first_ns = inference.timed_run();
  for (std::uint64_t i = 0; i < options.warmup; ++i) {
    inference.read(i % options.count);
    inference.run();
  }
  const auto min_ns = static_cast<std::uint64_t>(options.min_time_s * 1e9);
  const std::uint64_t start = now_ns();
  std::vector<std::uint64_t>& samples = timing.samples_ns;
  while (samples.size() < options.repeat || (now_ns() - start < min_ns && samples.size() < kMaxSamples)) {
    inference.read(samples.size() % options.count);
    samples.push_back(inference.timed_run());
  }
}

void write_results(svit_session* session, Inference& inference, const Options& options) {
  if (options.output.empty() && options.spikes.empty()) return;
  std::unique_ptr<OutputFile> output;
  std::unique_ptr<SpikeWriter> spikes;
  if (!options.output.empty()) output = std::make_unique<OutputFile>(options.output);
  if (!options.spikes.empty()) spikes = std::make_unique<SpikeWriter>(session, options.spikes);
  for (std::uint64_t i = 0; i < options.count; ++i) {
    inference.read(i);
    inference.run();
    if (output) output->write(inference.output().data(), inference.output().size() * sizeof(float));
    if (spikes) spikes->check();
  }
  if (output) output->commit();
  if (spikes) spikes->commit();
}

std::string number_or_null(const std::optional<std::uint64_t>& value) {
  return value ? std::to_string(*value) : "null";
}

void print_json(const svit_session* session, const Options& options, const Timing& timing, const ProcessMemory& memory) {
  std::string json = "{\"load_ns\":" + std::to_string(timing.load_ns);
  json += ",\"first_ns\":" + std::to_string(timing.first_ns) + ",\"samples_ns\":[";
  for (const std::uint64_t sample : timing.samples_ns) json += std::to_string(sample) + ",";
  if (!timing.samples_ns.empty()) json.pop_back();
  json += "]";
  if (!options.output.empty()) json += ",\"accuracy_samples\":" + std::to_string(options.count);
  const svit_sizes sizes = svit_memory(session);
  json += ",\"vm_hwm_bytes\":" + number_or_null(memory.vm_hwm) + ",\"pss_bytes\":" + number_or_null(memory.pss);
  json += ",\"private_bytes\":" + number_or_null(memory.private_bytes);
  json += ",\"weights_bytes\":" + std::to_string(sizes.weights_bytes);
  json += ",\"state_bytes\":" + std::to_string(sizes.state_bytes);
  json += ",\"workspace_bytes\":" + std::to_string(sizes.workspace_bytes) + ",\"cpu_features\":[";
  const std::vector<std::string> features = read_cpu_features();
  for (const std::string& feature : features) json += "\"" + feature + "\",";
  if (!features.empty()) json.pop_back();
  json += "]}\n";
  if (std::fwrite(json.data(), 1, json.size(), stdout) != json.size() || std::fflush(stdout) != 0) {
    throw Error(std::string("cannot write to stdout: ") + std::strerror(errno));
  }
}

void run(const Options& options) {
  Timing timing;
  const std::uint64_t start = now_ns();
  const SessionPointer session = load(options.bundle);
  timing.load_ns = now_ns() - start;
  Inference inference(session.get(), options);
  measure(inference, options, timing);
  const ProcessMemory memory = read_process_memory();  // before the spikes' buffers
  write_results(session.get(), inference, options);
  print_json(session.get(), options, timing, memory);
}

int run_command_line(int argc, char** argv) {
  try {
    const Options options = parse_options(argc, argv);
    if (options.wants_help) return std::fputs(kUsage, stdout) < 0;
    if (options.wants_version) return std::printf("svit-run %s\n", svit_version()) < 0;
    catch_signals();
    run(options);
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
