// Threads that compute the parts of a call together with the thread that makes it.
#ifndef SVIT_POOL_H_
#define SVIT_POOL_H_

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace svit {

inline constexpr std::size_t kCacheLine = 64;  // bytes

// Every thread has its own part of every task, so that data stay in its core's cache. A part that its thread has not
// begun by the time the caller is done with its own is taken over by the caller: nobody waits for a thread that the
// system does not let run. Within a shift the threads wait awake, between shifts they sleep.
class Pool {
 public:
  using Task = void (*)(void* context, std::size_t part);  // must not throw

  // The calling thread counts: `threads` - 1 are started. Throws Error.
  explicit Pool(std::size_t threads);
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool();

  std::size_t threads() const { return claims_.size(); }
  // Calls `task` once for each part, 0 <= part < threads(), and returns when all are done.
  void run(Task task, void* context);

  // The time in which tasks follow each other closely. Does nothing without a pool.
  class Shift {
   public:
    explicit Shift(Pool* pool) : pool_(pool) {
      if (pool_) pool_->set_awake(true);
    }
    Shift(const Shift&) = delete;
    Shift& operator=(const Shift&) = delete;
    ~Shift() {
      if (pool_) pool_->set_awake(false);
    }

   private:
    Pool* pool_;
  };

 private:
  struct Worker {
    Pool* pool;
    std::size_t part;
    pthread_t thread;
  };
  struct alignas(kCacheLine) Claim {
    std::atomic<std::uint64_t> turn{0};  // the last turn in which somebody took the part
  };

  static void* enter(void* worker);
  void start(std::size_t part);
  void stop();
  void work(std::size_t part);
  std::uint64_t wait_for_turn(std::uint64_t seen);
  void sleep(std::uint64_t seen);
  void set_awake(bool is_awake);
  void take(std::size_t part, std::uint64_t turn);

  // Tasks count up; a new number tells that the task of that number is there.
  alignas(kCacheLine) std::atomic<std::uint64_t> turn_{0};
  std::atomic<bool> is_awake_{false};
  std::atomic<bool> is_over_{false};
  Task task_ = nullptr;  // stays until every part of the turn is done
  void* context_ = nullptr;
  alignas(kCacheLine) std::atomic<std::size_t> pending_{0};  // parts of the turn that are not done
  std::vector<Claim> claims_;                                // by part
  std::mutex mutex_;
  std::condition_variable wake_;
  std::size_t sleepers_ = 0;  // guarded by mutex_
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace svit

#endif  // SVIT_POOL_H_
