#include "session.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "clock.h"
#include "cpu_features.h"
#include "frames.h"

namespace svit {
namespace {

constexpr std::size_t kMaxProgramBytes = 16u << 20;
constexpr std::size_t kReasonBytes = 1024;  // see kernel_error.c

Program read_program(const Source& source) {
  const Mapping file = source.file("program.txt");
  if (file.bytes() > kMaxProgramBytes) throw Error("program.txt is larger than 16 MiB: it is no svit program");
  return parse_program(file.text());
}

Mapping map_weights(const Source& source, std::uint64_t wanted) {
  Mapping file = source.file("weights.bin");
  if (file.bytes() == wanted) return file;
  throw Error("weights.bin has " + std::to_string(file.bytes()) + " bytes, program.txt says " + std::to_string(wanted));
}

template <typename T>
void fill(unsigned char* data, std::uint64_t bytes, double value) {
  std::fill_n(reinterpret_cast<T*>(data), bytes / sizeof(T), static_cast<T>(value));
}

void fill(const DType& dtype, unsigned char* data, std::uint64_t bytes, double value) {
  if (dtype.type.code == kDLFloat) return fill<float>(data, bytes, value);
  // Every other dtype is an integer whose range the parser has checked: the two's complement bits are the value's.
  const auto whole = static_cast<std::int64_t>(value);
  if (dtype.bytes == 1) return fill<std::uint8_t>(data, bytes, static_cast<double>(whole & 0xff));
  if (dtype.bytes == 2) return fill<std::uint16_t>(data, bytes, static_cast<double>(whole & 0xffff));
  fill<std::int32_t>(data, bytes, value);
}

// Whether the bitmap has exactly as many bits as there are values, and none behind the last element.
template <typename T>
bool scatter(const unsigned char* bitmap, const T* values, std::size_t count, T background, T* out, std::size_t elements) {
  std::fill_n(out, elements, background);
  std::size_t used = 0;
  for (std::size_t byte = 0; byte < (elements + 7) / 8; ++byte) {
    for (unsigned bits = bitmap[byte]; bits != 0; bits &= bits - 1) {
      const std::size_t element = 8 * byte + static_cast<std::size_t>(__builtin_ctz(bits));
      if (element >= elements || used == count) return false;
      out[element] = values[used++];
    }
  }
  return used == count;
}

template <typename T>
bool expand(const unsigned char* bitmap, const unsigned char* values, const Tensor& from, std::uint32_t background,
            unsigned char* out, const Tensor& to) {
  return scatter(bitmap, reinterpret_cast<const T*>(values), from.bytes / sizeof(T), static_cast<T>(background),
                 reinterpret_cast<T*>(out), to.bytes / sizeof(T));
}

// Before anything that could end in SIGILL. Where the system does not tell what the CPU has, the user knows better.
void check_features(const std::vector<std::string>& wanted) {
  const std::vector<std::string> found = wanted.empty() ? wanted : read_cpu_features();
  std::string missing;
  for (const std::string& feature : wanted) {
    if (found.empty() || std::find(found.begin(), found.end(), feature) != found.end()) continue;
    missing += (missing.empty() ? "" : ", ") + feature;
  }
  if (missing.empty()) return;
  throw Error("this CPU has no " + missing + ", which the machine code uses: build the network for the board that this is");
}

TVMFFIAny integer(std::int64_t value) {
  TVMFFIAny argument{};
  argument.type_index = kTVMFFIInt;
  argument.v_int64 = value;
  return argument;
}

}  // namespace

Session::Session(std::unique_ptr<Source> source) : source_(std::move(source)), program_(read_program(*source_)) {
  check_features(program_.features);
  source_->load_kernels();
  if (program_.frame) levels_ = make_levels(*program_.frame);
  spaces_[0] = map_weights(*source_, program_.sizes[0]);
  spaces_[1] = Mapping::of_memory("states", program_.sizes[1]);
  spaces_[2] = Mapping::of_memory("workspace", program_.sizes[2]);
  expand_weights();
  count_expanded();
  prepare_tensors();
  prepare_calls();
  reset();
}

unsigned char* Session::address(std::size_t tensor) const {
  const Tensor& t = program_.tensors[tensor];
  return spaces_[static_cast<std::size_t>(t.space)].data() + t.offset;
}

void Session::expand_weights() {
  for (const Expansion& each : program_.expansions) {
    const Tensor &to = program_.tensors[each.out], &from = program_.tensors[each.values];
    const auto write = to.dtype->bytes == 1   ? expand<std::uint8_t>
                       : to.dtype->bytes == 2 ? expand<std::uint16_t>
                                              : expand<std::uint32_t>;
    if (!write(address(each.bitmap), address(each.values), from, each.background, address(each.out), to)) {
      throw Error("weights.bin is damaged: the bitmap of '" + to.name + "' does not fit its values");
    }
    for (const std::size_t stored : {each.bitmap, each.values}) {
      const Tensor& tensor = program_.tensors[stored];
      spaces_[0].release(tensor.offset, tensor.bytes);
    }
  }
}

void Session::count_expanded() {
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

void Session::prepare_tensors() {
  tensors_.reserve(program_.tensors.size());
  for (std::size_t id = 0; id < program_.tensors.size(); ++id) {
    Tensor& tensor = program_.tensors[id];
    DLTensor view{};
    view.data = address(id);
    view.device = {kDLCPU, 0};
    view.ndim = static_cast<std::int32_t>(tensor.shape.size());
    view.dtype = tensor.dtype->type;
    view.shape = tensor.shape.data();
    tensors_.push_back(view);
  }
}

void Session::prepare_calls() {
  calls_.reserve(program_.calls.size());
  for (const Call& call : program_.calls) {
    PreparedCall prepared{};
    prepared.is_split = call.is_split;
    prepared.kernel = source_->kernel(call.symbol);
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
  costs_.resize(calls_.size());
}

void Session::reset() {
  for (const State& state : program_.states) {
    const Tensor& tensor = program_.tensors[state.tensor];
    fill(*tensor.dtype, address(state.tensor), tensor.bytes, state.initial);
  }
}

void Session::set_threads(std::size_t threads) {
  pool_.reset();
  failures_.assign(threads, {});
  for (std::string& failure : failures_) failure.reserve(kReasonBytes);
  if (threads > 1) pool_ = std::make_unique<Pool>(threads);
}

void Session::step(const void* input, void* output) {
  std::memcpy(address(program_.input), input, program_.tensors[program_.input].bytes);
  play_into(output);
}

void Session::step_frame(const std::uint8_t* frame, svit_layout layout, void* output) {
  auto* input = reinterpret_cast<float*>(address(program_.input));
  write_frames(frame, layout, *program_.frame, levels_.data(), input);
  play_into(output);
}

void Session::play_into(void* output) {
  is_profiled_ ? play<true>() : play<false>();
  std::memcpy(output, address(program_.output), program_.tensors[program_.output].bytes);
}

// Two loops from one text, so that the one without profile reads no clock and asks no question. The clock is read once
// per call: a call's end is the next one's start.
template <bool kProfiled>
void Session::play() {
  const Pool::Shift shift(pool_.get());
  std::uint64_t start = kProfiled ? now_ns() : 0;
  for (std::size_t i = 0; i < calls_.size(); ++i) {
    make(i);
    if constexpr (kProfiled) {
      const std::uint64_t stop = now_ns();
      costs_[i].total_ns += stop - start;
      costs_[i].count += 1;
      start = stop;
    }
    if (callback_) {
      show_taps(i);
      if constexpr (kProfiled) start = now_ns();
    }
  }
}

void Session::make(std::size_t i) {
  const PreparedCall& call = calls_[i];
  if (!pool_ || !call.is_split) {
    TVMFFIAny result{};  // kTVMFFINone
    const auto count = static_cast<std::int32_t>(call.arguments.size());
    if (call.kernel(nullptr, call.arguments.data(), count, &result) != 0) fail(i, reason());
    return;
  }
  SplitCall split{this, &call};
  pool_->run(&Session::make_part, &split);
  for (std::string& failure : failures_) {
    if (failure.empty()) continue;
    const std::string why = failure;
    for (std::string& other : failures_) other.clear();
    fail(i, why.c_str());
  }
}

// In the thread that computes the part: a kernel keeps its error there.
void Session::make_part(void* split_call, std::size_t part) {
  const SplitCall& split = *static_cast<SplitCall*>(split_call);
  Session& session = *split.session;
  const std::vector<TVMFFIAny>& prepared = split.call->arguments;
  TVMFFIAny arguments[kMaxArguments + 2];
  std::copy(prepared.begin(), prepared.end(), arguments);
  arguments[prepared.size() - 2].v_int64 = static_cast<std::int64_t>(part);
  arguments[prepared.size() - 1].v_int64 = static_cast<std::int64_t>(session.pool_->threads());
  TVMFFIAny result{};
  const auto count = static_cast<std::int32_t>(prepared.size());
  if (split.call->kernel(nullptr, arguments, count, &result) != 0) session.failures_[part] = session.reason();
}

// Of this thread's last failed kernel.
const char* Session::reason() const {
  const char* reason = source_->kernel_error();
  return *reason ? reason : "it gave no reason";
}

void Session::set_tap_callback(svit_tap_callback callback, void* user) {
  callback_ = callback;
  user_ = user;
}

void Session::set_profile(bool on) {
  is_profiled_ = on;
  std::fill(costs_.begin(), costs_.end(), Cost{});
}

void Session::show_taps(std::size_t call) const {
  for (std::size_t i = 0; i < program_.taps.size(); ++i) {
    const Tap& tap = program_.taps[i];
    if (tap.call == call) callback_(user_, i, address(tap.tensor), program_.tensors[tap.tensor].bytes);
  }
}

void Session::fail(std::size_t call, const char* why) const {
  const Call& failed = program_.calls[call];
  throw Error("kernel '" + failed.symbol + "' of layer '" + failed.layer + "' failed: " + why);
}

}  // namespace svit
