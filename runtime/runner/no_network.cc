// Of every program and library that gets its network from a directory. A single file has a function of its own instead.
#include "linked_network.h"

const svit_linked_network* svit_get_linked_network(void) { return nullptr; }
