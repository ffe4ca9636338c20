/* A network that is part of the program: what 'svitkit build --single-file' generates and links. Read by C and C++. */
#ifndef SVIT_LINKED_NETWORK_H_
#define SVIT_LINKED_NETWORK_H_

#include <stddef.h>
#include <stdint.h>

#include <tvm/ffi/c_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A file of the bundle. */
typedef struct svit_linked_file {
  const char* name;
  const unsigned char* start;
  const unsigned char* end;
} svit_linked_file;

/* A function of the machine code. */
typedef struct svit_linked_kernel {
  const char* symbol;
  TVMFFISafeCallType function;
} svit_linked_kernel;

typedef struct svit_linked_network {
  const svit_linked_file* files;
  size_t file_count;
  const svit_linked_kernel* kernels;
  size_t kernel_count;
  const char* (*kernel_error)(void); /* see kernel_error.c */
} svit_linked_network;

/* Returns the network that is linked in, NULL where there is none. */
const svit_linked_network* svit_get_linked_network(void);

#ifdef __cplusplus
}
#endif

#endif /* SVIT_LINKED_NETWORK_H_ */
