// Of a single file: it is linked statically, and a GPU's driver is a shared library.
#include "player.h"

namespace svit {

std::unique_ptr<Player> make_gpu_player(const Program&, const Source&) {
  throw Error("this program is one static file, which cannot load a GPU's driver: build a bundle without --single-file");
}

}  // namespace svit
