// A session for as long as its owner lives, of a bundle or of the network that is linked in.
#ifndef SVIT_OPEN_SESSION_H_
#define SVIT_OPEN_SESSION_H_

#include <memory>

#include "options.h"
#include "svit.h"

namespace svit {

struct FreeSession {
  void operator()(svit_session* session) const { svit_free(session); }
};
using SessionPointer = std::unique_ptr<svit_session, FreeSession>;

// Loads a bundle directory, or the network that is linked into this program if no bundle is named. Throws Error, also if
// the network does not run on the device that is required.
SessionPointer open_session(const Options& options);

}  // namespace svit

#endif  // SVIT_OPEN_SESSION_H_
