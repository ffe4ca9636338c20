// Plays a program on a GPU: everything is put there when it is loaded; a run copies the input in, launches the kernels in
// order, copies the output out, and waits once.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "accelerator.h"
#include "clock.h"
#include "contents.h"
#include "mapping.h"
#include "player.h"

namespace svit {
namespace {

constexpr std::uint64_t kMaxKernelBytes = 64u << 20;
constexpr std::uint64_t kPieceBytes = 8u << 20;  // of the weights, that are in the process's memory at a time

// A byte for each element, row by row; see DType::is_packed.
void unpack(const Tensor& tensor, const std::uint32_t* words, unsigned char* out) {
  const std::uint64_t columns = tensor.shape.empty() ? 1 : static_cast<std::uint64_t>(tensor.shape.back());
  const std::uint64_t row_words = (columns + 31) / 32;
  for (std::uint64_t row = 0; row < tensor.elements() / columns; ++row, words += row_words) {
    for (std::uint64_t i = 0; i < columns; ++i) *out++ = (words[i / 32] >> (i % 32)) & 1;
  }
}

class GpuPlayer : public Player {
 public:
  GpuPlayer(const Program& program, const Source& source, std::unique_ptr<Accelerator> accelerator)
      : program_(program), accelerator_(std::move(accelerator)) {
    accelerator_->allocate(program_.sizes);
    compile(source);
    prepare_host();
    for (const Call& call : program_.calls) launches_.push_back(accelerator_->bind(call));
    upload(source);
    reset();
    play_preparations();
    is_recorded_ = accelerator_->record([this] { enqueue(); });
  }

  const Device& device() const override { return accelerator_->device(); }
  std::uint64_t expanded_bytes() const override { return 0; }

  void reset() override {
    if (states_) accelerator_->write(Space::states, 0, states_, state_bytes());
  }

  void set_threads(std::size_t) override {}  // the program has one

  unsigned char* input() override { return input_; }

  const unsigned char* play(Watch& watch) override {
    if (watch.callback || watch.is_profiled) {
      play_watched(watch);
    } else if (is_recorded_) {
      accelerator_->replay();
    } else {
      enqueue();
    }
    accelerator_->wait();
    return output_;
  }

 private:
  std::uint64_t state_bytes() const { return program_.sizes[static_cast<std::size_t>(Space::states)]; }

  void compile(const Source& source) {
    const Mapping file = source.file(program_.target->kernels);
    const std::string& name = program_.target->kernels;
    if (file.bytes() == 0) throw Error(name + " is empty");
    if (file.bytes() > kMaxKernelBytes) throw Error(name + " is larger than 64 MiB: it holds no kernels");
    accelerator_->compile(file.text());
  }

  void prepare_host() {
    input_ = accelerator_->host_memory(program_.tensors[program_.input].bytes);
    output_ = accelerator_->host_memory(program_.tensors[program_.output].bytes);
    states_ = accelerator_->host_memory(state_bytes());
    for (const State& state : program_.states) {
      fill_state(program_, state, states_ + program_.tensors[state.tensor].offset);
    }
    std::uint64_t stored = 0, shown = 0;
    for (const Tap& tap : program_.taps) {
      stored = std::max(stored, program_.tensors[tap.tensor].bytes);
      shown = std::max(shown, program_.tensors[tap.tensor].elements());
    }
    stored_ = Mapping::of_memory("spikes", stored);  // touched once somebody watches
    shown_ = Mapping::of_memory("spikes", shown);
  }

  void upload(const Source& source) {
    const Mapping weights = map_weights(source, program_);
    for (std::uint64_t done = 0; done < weights.bytes(); done += kPieceBytes) {
      const std::uint64_t bytes = std::min(kPieceBytes, weights.bytes() - done);
      accelerator_->write(Space::weights, done, weights.data() + done, bytes);
      accelerator_->wait();
      weights.release(done, bytes);
    }
    for (const Expansion& expansion : program_.expansions) {
      const Tensor& tensor = program_.tensors[expansion.out];
      const Mapping expanded = Mapping::of_memory("expanded weights", tensor.bytes);
      expand_weights(program_, expansion, weights, expanded.data());
      accelerator_->write(tensor.space, tensor.offset, expanded.data(), tensor.bytes);
      accelerator_->wait();
    }
  }

  void play_preparations() {
    for (const Call& call : program_.preparations) accelerator_->launch(accelerator_->bind(call));
    accelerator_->wait();
  }

  void enqueue_input() {
    const Tensor& tensor = program_.tensors[program_.input];
    accelerator_->write(tensor.space, tensor.offset, input_, tensor.bytes);
  }

  void enqueue_output() {
    const Tensor& tensor = program_.tensors[program_.output];
    accelerator_->read(tensor.space, tensor.offset, output_, tensor.bytes);
  }

  void enqueue() {
    enqueue_input();
    for (const std::size_t launch : launches_) accelerator_->launch(launch);
    enqueue_output();
  }

  // One launch after the other: its cost is the time until it is done.
  void play_watched(Watch& watch) {
    enqueue_input();
    accelerator_->wait();
    for (std::size_t i = 0; i < launches_.size(); ++i) {
      const std::uint64_t start = now_ns();
      accelerator_->launch(launches_[i]);
      accelerator_->wait();
      if (watch.is_profiled) {
        watch.costs[i].total_ns += now_ns() - start;
        watch.costs[i].count += 1;
      }
      if (watch.callback) show_taps(i, watch);
    }
    enqueue_output();
  }

  void show_taps(std::size_t call, const Watch& watch) {
    for (std::size_t i = 0; i < program_.taps.size(); ++i) {
      if (program_.taps[i].call != call) continue;
      const Tensor& tensor = program_.tensors[program_.taps[i].tensor];
      accelerator_->read(tensor.space, tensor.offset, stored_.data(), tensor.bytes);
      accelerator_->wait();
      if (tensor.dtype->is_packed()) {
        unpack(tensor, reinterpret_cast<const std::uint32_t*>(stored_.data()), shown_.data());
        watch.callback(watch.user, i, shown_.data(), tensor.elements());
      } else {
        watch.callback(watch.user, i, stored_.data(), tensor.bytes);
      }
    }
  }

  const Program& program_;
  const std::unique_ptr<Accelerator> accelerator_;
  unsigned char* input_ = nullptr;  // of the accelerator's host memory
  unsigned char* output_ = nullptr;
  unsigned char* states_ = nullptr;  // initial values; NULL if there is none
  Mapping stored_;                   // a tap's tensor as it is on the device
  Mapping shown_;                    // and with a byte for each element
  std::vector<std::size_t> launches_;
  bool is_recorded_ = false;
};

}  // namespace

std::unique_ptr<Player> make_gpu_player(const Program& program, const Source& source) {
  auto accelerator = program.target->api == Api::cuda ? open_cuda(program) : open_opencl(program);
  return std::make_unique<GpuPlayer>(program, source, std::move(accelerator));
}

}  // namespace svit
