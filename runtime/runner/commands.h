// What svit-run does beside measuring.
#ifndef SVIT_COMMANDS_H_
#define SVIT_COMMANDS_H_

#include "options.h"

namespace svit {

// Prints the manifest: one JSON object. Of a network for a GPU it says on stderr which one runs it. Throws Error.
void show_info(const Options& options);

// Runs the golden inputs and says how the logits compare with those of build time. Throws Error if they differ.
void test_self(const Options& options);

// Prints a line for each input: its number, its class, the class's name, its logit; tabs between them. Throws Error.
void classify(const Options& options);

}  // namespace svit

#endif  // SVIT_COMMANDS_H_
