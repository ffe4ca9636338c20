// The spikes of every watched layer, as a file.
#ifndef SVIT_SPIKE_WRITER_H_
#define SVIT_SPIKE_WRITER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "files.h"
#include "svit.h"

namespace svit {

// Writes every tap's spikes as bytes 0 and 1 while the network runs.
class SpikeWriter {
 public:
  SpikeWriter(svit_session* session, const std::string& path);  // throws Error
  SpikeWriter(const SpikeWriter&) = delete;
  SpikeWriter& operator=(const SpikeWriter&) = delete;
  ~SpikeWriter();

  // Throws what went wrong inside the callbacks, where nothing may be thrown.
  void check() const;
  void commit() { file_.commit(); }

 private:
  struct Slot {
    std::size_t offset;
    bool is_float;
  };

  static void receive(void* user, std::size_t index, const void* data, std::size_t bytes);

  svit_session* session_;
  OutputFile file_;
  std::vector<Slot> taps_;
  std::vector<unsigned char> spikes_;
  std::size_t received_ = 0;
  std::optional<std::string> failure_;
};

}  // namespace svit

#endif  // SVIT_SPIKE_WRITER_H_
