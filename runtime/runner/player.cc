#include "player.h"

namespace svit {

void fail_call(const Call& call, const std::string& why) {
  throw Error("kernel '" + call.symbol + "' of layer '" + call.layer + "' failed: " + why);
}

}  // namespace svit
