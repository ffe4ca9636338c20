#include "spike_writer.h"

#include <algorithm>
#include <cstring>

#include "program.h"

namespace svit {

SpikeWriter::SpikeWriter(svit_session* session, const std::string& path) : session_(session), file_(path) {
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

SpikeWriter::~SpikeWriter() { svit_set_tap_callback(session_, nullptr, nullptr); }

void SpikeWriter::check() const {
  if (failure_) throw Error(*failure_);
}

// Taps may fire in another order than the program lists them: a step is written once its last one is in.
void SpikeWriter::receive(void* user, std::size_t index, const void* data, std::size_t bytes) {
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

}  // namespace svit
