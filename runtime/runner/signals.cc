#include "signals.h"

#include <cerrno>
#include <csignal>
#include <ctime>
#include <string>

#include "program.h"

namespace svit {
namespace {

volatile std::sig_atomic_t stop_signal = 0;

}  // namespace

void catch_signals() {
  struct sigaction action{};
  action.sa_handler = [](int signal) { stop_signal = signal; };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void stop_if_asked() {
  if (stop_signal) throw Error("stopped by signal " + std::to_string(stop_signal));
}

void sleep_until(std::uint64_t at_ns) {
  timespec time{};
  time.tv_sec = static_cast<std::time_t>(at_ns / 1000000000u);
  time.tv_nsec = static_cast<long>(at_ns % 1000000000u);
  do {
    stop_if_asked();
  } while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nullptr) == EINTR);
}

}  // namespace svit
