// Plays a program on the CPU: machine code that works on mapped memory.
#include <tvm/ffi/c_api.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "clock.h"
#include "contents.h"
#include "mapping.h"
#include "player.h"
#include "pool.h"

namespace svit {
namespace {

constexpr std::size_t kReasonBytes = 1024;  // see kernel_error.c

class CpuPlayer : public Player {
 public:
  CpuPlayer(const Program& program, Source& source);

  const Device& device() const override { return device_; }
  std::uint64_t expanded_bytes() const override { return expanded_bytes_; }
  void reset() override;
  void set_threads(std::size_t threads) override;
  unsigned char* input() override { return address(program_.input); }
  const unsigned char* play(Watch& watch) override;

 private:
  struct PreparedCall {
    TVMFFISafeCallType kernel;
    bool is_split;
    std::vector<TVMFFIAny> arguments;  // tensors, then part 0 of 1
  };
  struct SplitCall {
    CpuPlayer* player;
    const PreparedCall* call;
  };

  unsigned char* address(std::size_t tensor) const;
  void count_expanded();
  void prepare_tensors();
  void prepare_calls();
  template <bool kProfiled>
  void make_calls(Watch& watch);
  void make(std::size_t call);
  static void make_part(void* split_call, std::size_t part);
  const char* reason() const;
  void show_taps(std::size_t call, const Watch& watch) const;

  const Program& program_;
  Source& source_;
  const Device device_{"cpu", "cpu", "", ""};
  Mapping spaces_[kSpaces];
  std::vector<DLTensor> tensors_;
  std::vector<PreparedCall> calls_;
  std::uint64_t expanded_bytes_ = 0;
  std::vector<std::string> failures_;  // of the parts of a call, "" where there was none; room for a reason each
  std::unique_ptr<Pool> pool_;         // none: one thread. Goes first, as its threads use all the rest.
};

TVMFFIAny integer(std::int64_t value) {
  TVMFFIAny argument{};
  argument.type_index = kTVMFFIInt;
  argument.v_int64 = value;
  return argument;
}

CpuPlayer::CpuPlayer(const Program& program, Source& source) : program_(program), source_(source) {
  source_.load_kernels();
  spaces_[0] = map_weights(source_, program_);
  spaces_[1] = Mapping::of_memory("states", program_.sizes[1]);
  spaces_[2] = Mapping::of_memory("workspace", program_.sizes[2]);
  for (const Expansion& each : program_.expansions) expand_weights(program_, each, spaces_[0], address(each.out));
  count_expanded();
  prepare_tensors();
  prepare_calls();
}

unsigned char* CpuPlayer::address(std::size_t tensor) const {
  const Tensor& t = program_.tensors[tensor];
  return spaces_[static_cast<std::size_t>(t.space)].data() + t.offset;
}

void CpuPlayer::count_expanded() {
  const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  std::vector<std::pair<std::uint64_t, std::uint64_t>> pages;  // first, and the one behind the last
  for (const Expansion& each : program_.expansions) {
    const Tensor& tensor = program_.tensors[each.out];
    pages.emplace_back(tensor.offset / page, (tensor.offset + tensor.bytes + page - 1) / page);
  }
  std::sort(pages.begin(), pages.end());
  std::uint64_t counted = 0;  // pages below are
  for (const auto& [first, behind] : pages) {
    if (behind > counted) expanded_bytes_ += (behind - std::max(first, counted)) * page;
    counted = std::max(counted, behind);
  }
}

void CpuPlayer::prepare_tensors() {
  tensors_.reserve(program_.tensors.size());
  for (std::size_t id = 0; id < program_.tensors.size(); ++id) {
    const Tensor& tensor = program_.tensors[id];
    DLTensor view{};
    view.data = address(id);
    view.device = {kDLCPU, 0};
    view.ndim = static_cast<std::int32_t>(tensor.shape.size());
    view.dtype = tensor.dtype->type;
    view.shape = const_cast<std::int64_t*>(tensor.shape.data());  // DLPack knows no const
    tensors_.push_back(view);
  }
}

void CpuPlayer::prepare_calls() {
  calls_.reserve(program_.calls.size());
  for (const Call& call : program_.calls) {
    PreparedCall prepared{};
    prepared.is_split = call.is_split;
    prepared.kernel = source_.kernel(call.symbol);
    if (!prepared.kernel) {
      throw Error("program.txt line " + std::to_string(call.line) + ": model.so has no kernel '" + call.symbol + "'");
    }
    for (const std::size_t id : call.arguments) {
      TVMFFIAny argument{};
      argument.type_index = kTVMFFIDLTensorPtr;
      argument.v_ptr = &tensors_[id];
      prepared.arguments.push_back(argument);
    }
    prepared.arguments.push_back(integer(0));
    prepared.arguments.push_back(integer(1));
    calls_.push_back(std::move(prepared));
  }
}

void CpuPlayer::reset() {
  for (const State& state : program_.states) fill_state(program_, state, address(state.tensor));
}

void CpuPlayer::set_threads(std::size_t threads) {
  pool_.reset();
  failures_.assign(threads, {});
  for (std::string& failure : failures_) failure.reserve(kReasonBytes);
  if (threads > 1) pool_ = std::make_unique<Pool>(threads);
}

const unsigned char* CpuPlayer::play(Watch& watch) {
  watch.is_profiled ? make_calls<true>(watch) : make_calls<false>(watch);
  return address(program_.output);
}

// Two loops from one text, so that the one without profile reads no clock and asks no question. The clock is read once
// per call: a call's end is the next one's start.
template <bool kProfiled>
void CpuPlayer::make_calls(Watch& watch) {
  const Pool::Shift shift(pool_.get());
  std::uint64_t start = kProfiled ? now_ns() : 0;
  for (std::size_t i = 0; i < calls_.size(); ++i) {
    make(i);
    if constexpr (kProfiled) {
      const std::uint64_t stop = now_ns();
      watch.costs[i].total_ns += stop - start;
      watch.costs[i].count += 1;
      start = stop;
    }
    if (watch.callback) {
      show_taps(i, watch);
      if constexpr (kProfiled) start = now_ns();
    }
  }
}

void CpuPlayer::make(std::size_t i) {
  const PreparedCall& call = calls_[i];
  if (!pool_ || !call.is_split) {
    TVMFFIAny result{};  // kTVMFFINone
    const auto count = static_cast<std::int32_t>(call.arguments.size());
    if (call.kernel(nullptr, call.arguments.data(), count, &result) != 0) fail_call(program_.calls[i], reason());
    return;
  }
  SplitCall split{this, &call};
  pool_->run(&CpuPlayer::make_part, &split);
  for (std::string& failure : failures_) {
    if (failure.empty()) continue;
    const std::string why = failure;
    for (std::string& other : failures_) other.clear();
    fail_call(program_.calls[i], why);
  }
}

// In the thread that computes the part: a kernel keeps its error there.
void CpuPlayer::make_part(void* split_call, std::size_t part) {
  const SplitCall& split = *static_cast<SplitCall*>(split_call);
  CpuPlayer& player = *split.player;
  const std::vector<TVMFFIAny>& prepared = split.call->arguments;
  TVMFFIAny arguments[kMaxArguments + 2];
  std::copy(prepared.begin(), prepared.end(), arguments);
  arguments[prepared.size() - 2].v_int64 = static_cast<std::int64_t>(part);
  arguments[prepared.size() - 1].v_int64 = static_cast<std::int64_t>(player.pool_->threads());
  TVMFFIAny result{};
  const auto count = static_cast<std::int32_t>(prepared.size());
  if (split.call->kernel(nullptr, arguments, count, &result) != 0) player.failures_[part] = player.reason();
}

// Of this thread's last failed kernel.
const char* CpuPlayer::reason() const {
  const char* reason = source_.kernel_error();
  return *reason ? reason : "it gave no reason";
}

void CpuPlayer::show_taps(std::size_t call, const Watch& watch) const {
  for (std::size_t i = 0; i < program_.taps.size(); ++i) {
    const Tap& tap = program_.taps[i];
    if (tap.call == call) watch.callback(watch.user, i, address(tap.tensor), program_.tensors[tap.tensor].bytes);
  }
}

}  // namespace

std::unique_ptr<Player> make_cpu_player(const Program& program, Source& source) {
  return std::make_unique<CpuPlayer>(program, source);
}

}  // namespace svit
