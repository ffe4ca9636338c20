/*
 * Linked into every model.so: keeps the error that a kernel raises where libsvit can read it.
 *
 * TVM's machine code raises errors through one function of TVM's runtime. Defining it here, hidden, makes model.so need no
 * TVM library on the board, and keeps it apart from a TVM that the same process may have loaded.
 */
#include <stddef.h>
#include <stdint.h>

static _Thread_local char message[1024];

/* Appends on one line. */
static size_t append(size_t length, const char* part) {
  for (; part && *part && length + 1 < sizeof message; ++part) message[length++] = *part == '\n' ? ' ' : *part;
  message[length] = 0;
  return length;
}

/* Same signature as in tvm/ffi/c_api.h: the message is the concatenation of the parts; a part may be NULL. */
__attribute__((visibility("hidden"))) void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts,
                                                                             int32_t num_parts);

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t num_parts) {
  size_t length = append(append(0, kind), ": ");
  for (int32_t i = 0; i < num_parts; ++i) length = append(length, parts[i]);
}

/* Returns the error that this thread's last failed kernel raised, "" if there was none. */
__attribute__((visibility("default"))) const char* svit_kernel_error(void);

const char* svit_kernel_error(void) { return message; }
