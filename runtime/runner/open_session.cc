#include "open_session.h"

#include <string>

#include "program.h"

namespace svit {
namespace {

void check_device(const svit_session* session, const std::string& wanted) {
  const svit_device_info device = svit_device(session);
  if (wanted.empty() || wanted == device.type) return;
  const std::string name = *device.name ? ", '" + std::string(device.name) + "'" : "";
  throw Error("--require-device " + wanted + ": the network runs on a " + device.type + " (" + device.api + name + ")");
}

}  // namespace

SessionPointer open_session(const Options& options) {
  char error[1024];
  svit_session* loaded = nullptr;
  const svit_status status = options.bundle.empty() ? svit_load_linked(&loaded, error, sizeof error)
                                                    : svit_load(options.bundle.c_str(), &loaded, error, sizeof error);
  if (status != SVIT_OK) throw Error(error);
  SessionPointer session(loaded);
  check_device(loaded, options.device);
  return session;
}

}  // namespace svit
