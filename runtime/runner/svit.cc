// The C API: no exception passes through here.
#include "svit.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "session.h"

struct svit_session {
  explicit svit_session(const char* bundle) : session(bundle) {}

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

svit_status check_buffers(svit_session* session, const void* input, std::size_t input_bytes, const void* output,
                          std::size_t output_bytes) {
  if (!session) return SVIT_BAD_ARGUMENT;
  if (!input || !output) return refuse(session, SVIT_BAD_ARGUMENT, "input or output is NULL");
  const std::size_t wanted_input = svit_input(session).bytes;
  const std::size_t wanted_output = svit_output(session).bytes;
  if (input_bytes == wanted_input && output_bytes == wanted_output) return SVIT_OK;
  char text[160];
  std::snprintf(text, sizeof text, "input and output have %zu and %zu bytes, wanted %zu and %zu", input_bytes,
                output_bytes, wanted_input, wanted_output);
  return refuse(session, SVIT_BAD_ARGUMENT, text);
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
  try {
    *session = new svit_session(bundle);
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

svit_sizes svit_memory(const svit_session* session) {
  if (!session) return {};
  const std::uint64_t* sizes = session->session.program().sizes;
  return {sizes[0], sizes[1], sizes[2], session->session.expanded_bytes()};
}

svit_status svit_reset(svit_session* session) {
  if (!session) return SVIT_BAD_ARGUMENT;
  session->session.reset();
  return SVIT_OK;
}

svit_status svit_run(svit_session* session, const void* input, size_t input_bytes, void* output, size_t output_bytes) {
  const svit_status status = check_buffers(session, input, input_bytes, output, output_bytes);
  if (status != SVIT_OK) return status;
  return guarded(session, [&] {
    session->session.reset();
    session->session.step(input, output);
  });
}

svit_status svit_step(svit_session* session, const void* input, size_t input_bytes, void* output, size_t output_bytes) {
  const svit_status status = check_buffers(session, input, input_bytes, output, output_bytes);
  if (status != SVIT_OK) return status;
  return guarded(session, [&] { session->session.step(input, output); });
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
  *tap = {found.name.c_str(), describe(program.tensors[found.tensor]), found.order.data()};
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
