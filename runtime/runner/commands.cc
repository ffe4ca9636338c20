#include "commands.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "files.h"
#include "inference.h"
#include "mapping.h"
#include "open_session.h"
#include "program.h"
#include "source.h"

namespace svit {
namespace {

std::unique_ptr<Source> open_source(const Options& options) {
  return options.bundle.empty() ? open_linked() : open_directory(options.bundle);
}

SessionPointer open_threaded(const Options& options) {
  SessionPointer session = open_session(options);
  if (svit_set_threads(session.get(), options.threads) != SVIT_OK) throw Error(svit_last_error(session.get()));
  return session;
}

std::size_t best(const float* logits, std::size_t classes) {
  return static_cast<std::size_t>(std::max_element(logits, logits + classes) - logits);
}

void print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw Error("cannot write to stdout");
  }
}

struct Comparison {
  float largest = 0;       // difference of two logits; infinite where one is no number
  std::size_t others = 0;  // inputs with another class

  void add(const float* got, const float* wanted, std::size_t classes) {
    for (std::size_t i = 0; i < classes; ++i) {
      const float difference = std::abs(got[i] - wanted[i]);
      largest = std::isnan(difference) ? INFINITY : std::max(largest, difference);
    }
    others += best(got, classes) != best(wanted, classes);
  }
};

// All of the file where nothing is said; in step mode, where an input may be one piece or one for every step, one input.
std::uint64_t count_inputs(svit_session* session, const Options& options) {
  const std::size_t piece = options.frames ? svit_frame(session).bytes : svit_input(session).bytes;
  const bool is_step = options.timesteps > 0 || svit_steps(session) > 1;
  if (options.count > 0 || is_step || piece == 0) return std::max<std::uint64_t>(options.count, 1);
  return std::max<std::uint64_t>(InputFile(options.input).bytes() / piece, 1);
}

}  // namespace

void show_info(const Options& options) {
  const std::unique_ptr<Source> source = open_source(options);
  print(std::string(source->file("manifest.json").text()));
  const bool is_for_gpu = parse_program(source->file("program.txt").text()).target.has_value();
  if (!is_for_gpu && options.device.empty()) return;
  const SessionPointer session = open_session(options);
  const svit_device_info device = svit_device(session.get());
  if (is_for_gpu) std::fprintf(stderr, "runs on a %s: %s (%s, %s)\n", device.type, device.name, device.api, device.driver);
}

void test_self(const Options& options) {
  const std::unique_ptr<Source> source = open_source(options);
  const std::optional<Golden> golden = parse_program(source->file("program.txt").text()).golden;
  if (!golden || golden->count == 0) throw Error("the network has no golden inputs: build it again");
  const Mapping inputs = source->file("golden_input.bin");
  const Mapping outputs = source->file("golden_output.bin");
  const SessionPointer session = open_threaded(options);
  Options checked = options;
  checked.input = "golden_input.bin";
  checked.content = inputs.text();
  checked.count = golden->count;
  Inference inference(session.get(), checked);
  const std::size_t classes = inference.output().size();
  if (outputs.bytes() != golden->count * classes * sizeof(float)) throw Error("golden_output.bin has a wrong size");
  Comparison comparison;
  std::vector<float> wanted(classes);
  for (std::uint64_t i = 0; i < golden->count; ++i) {
    inference.run(i);
    std::memcpy(wanted.data(), outputs.data() + i * classes * sizeof(float), classes * sizeof(float));
    comparison.add(inference.output().data(), wanted.data(), classes);
  }
  const bool is_equal = comparison.largest <= golden->tolerance && comparison.others == 0;
  char text[160];
  std::snprintf(text, sizeof text, "golden check: %s on %llu inputs (largest difference %g, accepted %g; other class: %zu)",
                is_equal ? "equal" : "NOT equal", static_cast<unsigned long long>(golden->count),
                static_cast<double>(comparison.largest), static_cast<double>(golden->tolerance), comparison.others);
  if (!is_equal) throw Error(text);
  print(std::string(text) + "\n");
}

void classify(const Options& options) {
  const SessionPointer session = open_threaded(options);
  Options counted = options;
  counted.count = count_inputs(session.get(), options);
  Inference inference(session.get(), counted);
  for (std::uint64_t i = 0; i < counted.count; ++i) {
    inference.run(i);
    const std::vector<float>& logits = inference.output();
    const std::size_t index = best(logits.data(), logits.size());
    char logit[32];
    std::snprintf(logit, sizeof logit, "%.9g", static_cast<double>(logits[index]));
    print(std::to_string(i) + "\t" + std::to_string(index) + "\t" + svit_class_name(session.get(), index) + "\t" + logit +
          "\n");
  }
}

}  // namespace svit
