// What tensors hold before the first call: the weights of a file, weights without their most frequent element, states.
#ifndef SVIT_CONTENTS_H_
#define SVIT_CONTENTS_H_

#include "mapping.h"
#include "program.h"
#include "source.h"

namespace svit {

// Maps weights.bin. Throws Error if its size is not the program's.
Mapping map_weights(const Source& source, const Program& program);

// Writes an expanded tensor and gives the pages of what it is made of back to the system. Throws Error if the bitmap and
// the values do not belong together.
void expand_weights(const Program& program, const Expansion& expansion, const Mapping& weights, unsigned char* out);

// Writes a state's initial value.
void fill_state(const Program& program, const State& state, unsigned char* out);

}  // namespace svit

#endif  // SVIT_CONTENTS_H_
