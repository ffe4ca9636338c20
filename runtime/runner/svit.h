/*
 * libsvit: runs one compiled spiking network (a bundle directory) on the CPU. C API, usable from C, C++, ctypes and Rust.
 *
 *   char error[512];
 *   svit_session* session = NULL;
 *   if (svit_load("bundle", &session, error, sizeof error) != SVIT_OK) { fputs(error, stderr); return 1; }
 *   svit_run(session, image, svit_input(session).bytes, logits, svit_output(session).bytes);
 *   svit_free(session);
 *
 * Threads: a session belongs to one thread at a time; different sessions may run in different threads at once. A session
 * may have threads of its own to help with the work, see svit_set_threads.
 * Memory: everything is allocated by svit_load and svit_set_threads. No other function allocates, except to word an error.
 * Errors: a function that returns svit_status gives SVIT_OK (0) or says why not in svit_last_error.
 */
#ifndef SVIT_H_
#define SVIT_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SVIT_API __attribute__((visibility("default")))
#else
#define SVIT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What became of a call. */
typedef enum svit_status {
  SVIT_OK = 0,
  SVIT_BAD_ARGUMENT = 1, /* a null pointer, an index out of range or a buffer of the wrong size */
  SVIT_LOAD_FAILED = 2,  /* the bundle is missing, damaged or needs more memory than there is */
  SVIT_RUN_FAILED = 3    /* a kernel reported an error; call svit_reset before the next step */
} svit_status;

/* A loaded bundle with its neuron states. Opaque. */
typedef struct svit_session svit_session;

/* A dense, row-major tensor. The pointers belong to the session and live as long as it does. */
typedef struct svit_tensor {
  const char* name;
  const char* dtype;    /* "float32", "uint8", "int8", "int16", "int32", "uint16" or "bool" */
  const int64_t* shape; /* ndim extents, each >= 1 */
  size_t ndim;
  size_t bytes;
} svit_tensor;

/* Bytes of the static memory plan. */
typedef struct svit_sizes {
  uint64_t weights_bytes;   /* read-only, mapped from weights.bin: shared between processes, paged in on demand */
  uint64_t state_bytes;     /* the neurons' memory from step to step */
  uint64_t workspace_bytes; /* what lives within one step, and weights that are stored without zeros */
  uint64_t expanded_bytes;  /* of the workspace, in whole pages: what svit_load writes, which are those weights */
} svit_sizes;

/* A layer whose spikes can be watched. The pointers belong to the session. */
typedef struct svit_tap {
  const char* name;     /* the layer's name in the trained network, for example "blocks.0.attn.qkv_lif" */
  svit_tensor tensor;   /* "uint8" or "float32"; not 0 where a neuron fired */
  const int32_t* order; /* tensor.ndim axes: transposing by them gives the exported graph's order without the batch axis */
} svit_tap;

/*
 * Receives a layer's spikes while the network runs.
 *   user     what was given to svit_set_tap_callback
 *   index    of the tap, 0 <= index < svit_tap_count
 *   data     the tap's tensor; valid only during the callback
 *   bytes    size of the tensor
 * It must not throw, and must not call functions that run, reset or free the session.
 */
typedef void (*svit_tap_callback)(void* user, size_t index, const void* data, size_t bytes);

/* What one kernel call has cost since svit_set_profile. The pointers belong to the session. */
typedef struct svit_call_profile {
  const char* layer;  /* the layer's name in the trained network; of an operation without one, the graph's own name */
  const char* kernel; /* the function in the machine code */
  uint64_t total_ns;  /* CLOCK_MONOTONIC, one reading of the clock included per call */
  uint64_t count;     /* how often it was called */
} svit_call_profile;

/* Returns the library's version, "major.minor.patch". */
SVIT_API const char* svit_version(void);

/*
 * Loads a bundle directory and resets its states. File checksums are not verified here.
 *   bundle       path of the directory
 *   session      receives the session, to be given to svit_free; NULL after a failure
 *   error        receives the reason of a failure, cut to error_bytes including the final 0; may be NULL
 */
SVIT_API svit_status svit_load(const char* bundle, svit_session** session, char* error, size_t error_bytes);

/* Frees a session; NULL is allowed. */
SVIT_API void svit_free(svit_session* session);

/* Describes the tensor that svit_run and svit_step read. All zero if the session is NULL. */
SVIT_API svit_tensor svit_input(const svit_session* session);

/* Describes the tensor that svit_run and svit_step write: float32 logits. All zero if the session is NULL. */
SVIT_API svit_tensor svit_output(const svit_session* session);

/* Returns the memory plan. All zero if the session is NULL. */
SVIT_API svit_sizes svit_memory(const svit_session* session);

/* Sets every neuron state to its initial value. */
SVIT_API svit_status svit_reset(svit_session* session);

/*
 * Resets, then runs the network once.
 *   input, input_bytes    the input tensor's content; input_bytes == svit_input(session).bytes
 *   output, output_bytes  receives the output tensor; output_bytes == svit_output(session).bytes
 */
SVIT_API svit_status svit_run(svit_session* session, const void* input, size_t input_bytes, void* output,
                              size_t output_bytes);

/* Runs the network once and keeps the states: one time step of a network that was exported in step mode. */
SVIT_API svit_status svit_step(svit_session* session, const void* input, size_t input_bytes, void* output,
                               size_t output_bytes);

/* Returns the most threads that the bundle was built for; 0 if the session is NULL. */
SVIT_API size_t svit_max_threads(const svit_session* session);

/*
 * Has later runs and steps use `threads` threads: the one that calls, and threads - 1 of the session's own. These wait
 * awake during a run, and sleep a moment after it. Results do not depend on the number of threads.
 *   threads   1 <= threads <= svit_max_threads(session); 1, as after svit_load, ends the session's own threads. More than
 *             the CPUs that the process may use are no error here, and slower.
 * SVIT_RUN_FAILED if the system starts no more threads; the session then goes on with one.
 */
SVIT_API svit_status svit_set_threads(svit_session* session, size_t threads);

/* Returns the number of layers that can be watched; 0 if the session is NULL. */
SVIT_API size_t svit_tap_count(const svit_session* session);

/* Describes one tap, 0 <= index < svit_tap_count(session). */
SVIT_API svit_status svit_tap_at(svit_session* session, size_t index, svit_tap* tap);

/* Has the callback called for every tap of every later run or step; NULL ends it. */
SVIT_API svit_status svit_set_tap_callback(svit_session* session, svit_tap_callback callback, void* user);

/*
 * Sets every call's cost to 0 and has later runs and steps add to it (on != 0) or not (on == 0, as after svit_load).
 * While it is off it costs one comparison per run or step, and none per call.
 */
SVIT_API svit_status svit_set_profile(svit_session* session, int on);

/* Returns the number of kernel calls of one run or step; 0 if the session is NULL. */
SVIT_API size_t svit_call_count(const svit_session* session);

/* Tells what one call has cost, 0 <= index < svit_call_count(session), in the order of execution. */
SVIT_API svit_status svit_profile_call(svit_session* session, size_t index, svit_call_profile* profile);

/* Returns the reason of the session's last failure, "" if there was none. Valid until the session's next failure. */
SVIT_API const char* svit_last_error(const svit_session* session);

#ifdef __cplusplus
}
#endif

#endif /* SVIT_H_ */
