#include "open_session.h"

#include "program.h"

namespace svit {

SessionPointer open_session(const std::string& bundle) {
  char error[1024];
  svit_session* session = nullptr;
  const svit_status status = bundle.empty() ? svit_load_linked(&session, error, sizeof error)
                                            : svit_load(bundle.c_str(), &session, error, sizeof error);
  if (status != SVIT_OK) throw Error(error);
  return SessionPointer(session);
}

}  // namespace svit
