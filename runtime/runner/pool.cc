#include "pool.h"

#include <sched.h>
#include <signal.h>

#include <cstring>
#include <string>

#include "clock.h"
#include "program.h"

namespace svit {
namespace {

constexpr std::size_t kStackBytes = 256 * 1024;  // kernels keep a few vectors there
// Longer than most calls that are not split, and than a caller takes from one inference to the next.
constexpr std::uint64_t kSpinNs = 50'000;
constexpr int kTriesPerReading = 32;  // of the clock

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield" ::: "memory");
#endif
}

// Calls `is_done` until it is true or kSpinNs have passed; returns what it said last.
template <typename Condition>
bool spin(Condition is_done) {
  for (std::uint64_t start = 0;;) {
    for (int i = 0; i < kTriesPerReading; ++i) {
      if (is_done()) return true;
      relax();
    }
    const std::uint64_t now = now_ns();
    if (start == 0) start = now;
    if (now - start > kSpinNs) return false;
  }
}

}  // namespace

Pool::Pool(std::size_t threads) : claims_(threads) {
  // Signals are for the program's own threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    for (std::size_t part = 1; part < threads; ++part) start(part);
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    stop();
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Pool::~Pool() { stop(); }

void Pool::start(std::size_t part) {
  workers_.push_back(std::make_unique<Worker>(Worker{this, part, {}}));
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  const int status = pthread_create(&workers_.back()->thread, &attributes, &Pool::enter, workers_.back().get());
  pthread_attr_destroy(&attributes);
  if (status == 0) return;
  workers_.pop_back();
  throw Error("cannot start thread " + std::to_string(part + 1) + " of " + std::to_string(threads()) + ": " +
              std::strerror(status));
}

void Pool::stop() {
  is_over_ = true;
  set_awake(true);
  for (const auto& worker : workers_) pthread_join(worker->thread, nullptr);
}

void* Pool::enter(void* worker) {
  const Worker& self = *static_cast<Worker*>(worker);
  self.pool->work(self.part);
  return nullptr;
}

void Pool::work(std::size_t part) {
  std::uint64_t seen = 0;
  while (!is_over_) {
    seen = wait_for_turn(seen);
    take(part, seen);
  }
}

// Returns the number of a turn after `seen`, or `seen` once the pool is over.
std::uint64_t Pool::wait_for_turn(std::uint64_t seen) {
  std::uint64_t turn = seen;
  const auto is_there = [&] { return (turn = turn_.load(std::memory_order_acquire)) != seen || is_over_; };
  while (!spin(is_there)) {
    // A thread that has waited in vain gives way to those that it waits for, if they share its CPU.
    while (is_awake_ && !is_there()) sched_yield();
    if (!is_there()) sleep(seen);
  }
  return turn;
}

void Pool::sleep(std::uint64_t seen) {
  std::unique_lock<std::mutex> lock(mutex_);
  ++sleepers_;
  wake_.wait(lock, [&] { return is_awake_ || turn_ != seen; });
  --sleepers_;
}

void Pool::set_awake(bool is_awake) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_awake_ = is_awake;
    if (!is_awake || sleepers_ == 0) return;
  }
  wake_.notify_all();
}

void Pool::run(Task task, void* context) {
  task_ = task;
  context_ = context;
  pending_.store(threads(), std::memory_order_relaxed);
  const std::uint64_t turn = turn_.load(std::memory_order_relaxed) + 1;
  turn_.store(turn, std::memory_order_release);
  for (std::size_t part = 0; part < threads(); ++part) take(part, turn);
  const auto is_done = [&] { return pending_.load(std::memory_order_acquire) == 0; };
  if (spin(is_done)) return;
  while (!is_done()) sched_yield();
}

// Computes a part of a turn unless somebody has it. A turn ends when all its parts are done, so a part that can still be
// taken belongs to the present turn, and its task stays until it is done.
void Pool::take(std::size_t part, std::uint64_t turn) {
  std::uint64_t last = turn - 1;
  if (!claims_[part].turn.compare_exchange_strong(last, turn, std::memory_order_acq_rel)) return;
  task_(context_, part);
  pending_.fetch_sub(1, std::memory_order_release);
}

}  // namespace svit
