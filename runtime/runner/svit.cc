// The C API: no exception passes through here.
#include "svit.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "session.h"
#include "source.h"

struct svit_session {
  explicit svit_session(std::unique_ptr<svit::Source> source) : session(std::move(source)) {}

  svit::Session session;
  char error[1024] = "";
};

namespace {

void copy_text(const char* text, char* target, std::size_t bytes) {
  if (!target || bytes == 0) return;
  const std::size_t length = std::min(std::strlen(text), bytes - 1);
  std::memcpy(target, text, length);
  target[length] = 0;
}

svit_status refuse(svit_session* session, svit_status status, const char* text) {
  copy_text(text, session->error, sizeof session->error);
  return status;
}

template <typename Action>
svit_status guarded(svit_session* session, Action action) {
  try {
    action();
    return SVIT_OK;
  } catch (const std::exception& error) {
    return refuse(session, SVIT_RUN_FAILED, error.what());
  } catch (...) {
    return refuse(session, SVIT_RUN_FAILED, "unknown failure");
  }
}

svit_tensor describe(const svit::Tensor& tensor) {
  return {tensor.name.c_str(), tensor.dtype->name, tensor.shape.data(), tensor.shape.size(),
          static_cast<std::size_t>(tensor.bytes)};
}

// A packed tensor is shown with a byte for each element.
svit_tensor describe_shown(const svit::Tensor& tensor) {
  svit_tensor shown = describe(tensor);
  if (tensor.dtype->is_packed()) {
    shown.dtype = "uint8";
    shown.bytes = static_cast<std::size_t>(tensor.elements());
  }
  return shown;
}

svit_status check_buffers(svit_session* session, const void* input, std::size_t input_bytes, std::size_t wanted_input,
                          const void* output, std::size_t output_bytes) {
  if (!input || !output) return refuse(session, SVIT_BAD_ARGUMENT, "input or output is NULL");
  const std::size_t wanted_output = svit_output(session).bytes;
  if (input_bytes == wanted_input && output_bytes == wanted_output) return SVIT_OK;
  char text[160];
  std::snprintf(text, sizeof text, "input and output have %zu and %zu bytes, wanted %zu and %zu", input_bytes,
                output_bytes, wanted_input, wanted_output);
  return refuse(session, SVIT_BAD_ARGUMENT, text);
}

// A run resets the states, a step does not.
svit_status advance(svit_session* session, bool resets, const void* input, std::size_t input_bytes, void* output,
                    std::size_t output_bytes) {
  if (!session) return SVIT_BAD_ARGUMENT;
  const std::size_t wanted = svit_input(session).bytes;
  const svit_status status = check_buffers(session, input, input_bytes, wanted, output, output_bytes);
  if (status != SVIT_OK) return status;
  return guarded(session, [&] {
    if (resets) session->session.reset();
    session->session.step(input, output);
  });
}

svit_status advance_frame(svit_session* session, bool resets, const std::uint8_t* frame, std::size_t frame_bytes,
                          svit_layout layout, void* output, std::size_t output_bytes) {
  if (!session) return SVIT_BAD_ARGUMENT;
  const std::size_t wanted = svit_frame(session).bytes;
  if (wanted == 0) {
    return refuse(session, SVIT_BAD_ARGUMENT, "the bundle does not say how bytes become its input: build it again");
  }
  if (layout != SVIT_HWC && layout != SVIT_CHW) return refuse(session, SVIT_BAD_ARGUMENT, "layout is not one of svit_layout");
  const svit_status status = check_buffers(session, frame, frame_bytes, wanted, output, output_bytes);
  if (status != SVIT_OK) return status;
  return guarded(session, [&] {
    if (resets) session->session.reset();
    session->session.step_frame(frame, layout, output);
  });
}

template <typename Open>
svit_status load(Open open, svit_session** session, char* error, std::size_t error_bytes) {
  try {
    *session = new svit_session(open());
    return SVIT_OK;
  } catch (const std::bad_alloc&) {
    copy_text("out of memory", error, error_bytes);
  } catch (const std::exception& failure) {
    copy_text(failure.what(), error, error_bytes);
  } catch (...) {
    copy_text("unknown failure", error, error_bytes);
  }
  return SVIT_LOAD_FAILED;
}

}  // namespace

const char* svit_version(void) { return SVIT_VERSION; }

svit_status svit_load(const char* bundle, svit_session** session, char* error, size_t error_bytes) {
  copy_text("", error, error_bytes);
  if (session) *session = nullptr;
  if (!bundle || !session) {
    copy_text("bundle or session is NULL", error, error_bytes);
    return SVIT_BAD_ARGUMENT;
  }
  return load([&] { return svit::open_directory(bundle); }, session, error, error_bytes);
}

svit_status svit_load_linked(svit_session** session, char* error, size_t error_bytes) {
  copy_text("", error, error_bytes);
  if (!session) {
    copy_text("session is NULL", error, error_bytes);
    return SVIT_BAD_ARGUMENT;
  }
  *session = nullptr;
  return load(svit::open_linked, session, error, error_bytes);
}

void svit_free(svit_session* session) { delete session; }

svit_tensor svit_input(const svit_session* session) {
  if (!session) return {};
  const svit::Program& program = session->session.program();
  return describe(program.tensors[program.input]);
}

svit_tensor svit_output(const svit_session* session) {
  if (!session) return {};
  const svit::Program& program = session->session.program();
  return describe(program.tensors[program.output]);
}

svit_frame_shape svit_frame(const svit_session* session) {
  if (!session || !session->session.program().frame) return {};
  const svit::Frame& frame = *session->session.program().frame;
  return {static_cast<std::size_t>(frame.frames), static_cast<std::size_t>(frame.height),
          static_cast<std::size_t>(frame.width), static_cast<std::size_t>(frame.channels),
          static_cast<std::size_t>(frame.bytes())};
}

const char* svit_class_name(const svit_session* session, size_t index) {
  if (!session || index >= session->session.program().classes.size()) return "";
  return session->session.program().classes[index].c_str();
}

size_t svit_steps(const svit_session* session) { return session ? session->session.program().steps : 0; }

svit_sizes svit_memory(const svit_session* session) {
  if (!session) return {};
  const std::uint64_t* sizes = session->session.program().sizes;
  return {sizes[0], sizes[1], sizes[2], session->session.expanded_bytes()};
}

svit_device_info svit_device(const svit_session* session) {
  if (!session) return {};
  const svit::Device& device = session->session.device();
  return {device.api.c_str(), device.type.c_str(), device.name.c_str(), device.driver.c_str()};
}

svit_status svit_reset(svit_session* session) {
  if (!session) return SVIT_BAD_ARGUMENT;
  return guarded(session, [&] { session->session.reset(); });
}

svit_status svit_run(svit_session* session, const void* input, size_t input_bytes, void* output, size_t output_bytes) {
  return advance(session, true, input, input_bytes, output, output_bytes);
}

svit_status svit_step(svit_session* session, const void* input, size_t input_bytes, void* output, size_t output_bytes) {
  return advance(session, false, input, input_bytes, output, output_bytes);
}

svit_status svit_run_frame(svit_session* session, const uint8_t* frame, size_t frame_bytes, svit_layout layout,
                           void* output, size_t output_bytes) {
  return advance_frame(session, true, frame, frame_bytes, layout, output, output_bytes);
}

svit_status svit_step_frame(svit_session* session, const uint8_t* frame, size_t frame_bytes, svit_layout layout,
                            void* output, size_t output_bytes) {
  return advance_frame(session, false, frame, frame_bytes, layout, output, output_bytes);
}

size_t svit_max_threads(const svit_session* session) { return session ? session->session.program().threads : 0; }

svit_status svit_set_threads(svit_session* session, size_t threads) {
  if (!session) return SVIT_BAD_ARGUMENT;
  const std::size_t most = svit_max_threads(session);
  if (threads >= 1 && threads <= most) return guarded(session, [&] { session->session.set_threads(threads); });
  char text[160];
  std::snprintf(text, sizeof text, "%zu threads are wanted, the bundle was built for 1 to %zu", threads, most);
  return refuse(session, SVIT_BAD_ARGUMENT, text);
}

size_t svit_tap_count(const svit_session* session) { return session ? session->session.program().taps.size() : 0; }

svit_status svit_tap_at(svit_session* session, size_t index, svit_tap* tap) {
  if (!session) return SVIT_BAD_ARGUMENT;
  const svit::Program& program = session->session.program();
  if (!tap || index >= program.taps.size()) return refuse(session, SVIT_BAD_ARGUMENT, "no such tap, or tap is NULL");
  const svit::Tap& found = program.taps[index];
  *tap = {found.name.c_str(), describe_shown(program.tensors[found.tensor]), found.order.data()};
  return SVIT_OK;
}

svit_status svit_set_tap_callback(svit_session* session, svit_tap_callback callback, void* user) {
  if (!session) return SVIT_BAD_ARGUMENT;
  session->session.set_tap_callback(callback, user);
  return SVIT_OK;
}

svit_status svit_set_profile(svit_session* session, int on) {
  if (!session) return SVIT_BAD_ARGUMENT;
  session->session.set_profile(on != 0);
  return SVIT_OK;
}

size_t svit_call_count(const svit_session* session) { return session ? session->session.program().calls.size() : 0; }

svit_status svit_profile_call(svit_session* session, size_t index, svit_call_profile* profile) {
  if (!session) return SVIT_BAD_ARGUMENT;
  const svit::Program& program = session->session.program();
  if (!profile || index >= program.calls.size()) {
    return refuse(session, SVIT_BAD_ARGUMENT, "no such call, or profile is NULL");
  }
  const svit::Call& call = program.calls[index];
  const svit::Cost& cost = session->session.costs()[index];
  *profile = {call.layer.c_str(), call.symbol.c_str(), cost.total_ns, cost.count};
  return SVIT_OK;
}

const char* svit_last_error(const svit_session* session) { return session ? session->error : "the session is NULL"; }
