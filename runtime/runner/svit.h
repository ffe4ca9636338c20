/*
 * libsvit: runs one compiled spiking network (a bundle directory) on the CPU, or on the GPU that it was built for. C99,
 * usable from C, C++, ctypes and Rust.
 *
 *   char error[512];
 *   svit_session* session = NULL;
 *   if (svit_load("bundle", &session, error, sizeof error) != SVIT_OK) { fputs(error, stderr); return 1; }
 *   svit_run_frame(session, pixels, svit_frame(session).bytes, SVIT_HWC, logits, svit_output(session).bytes);
 *   svit_free(session);
 *
 * Input: frames of bytes as a camera or an image file gives them (svit_run_frame, svit_step_frame), or the normalized
 * float32 tensor (svit_run, svit_step). A network that was exported in sequence mode computes all its time steps in one
 * run; one that was exported in step mode computes one time step per step, see svit_steps.
 * Threads: a session belongs to one thread at a time; different sessions may run in different threads at once. A session
 * may have threads of its own to help with the work, see svit_set_threads.
 * Memory: everything is allocated by svit_load and svit_set_threads. No other function allocates, except to word an error.
 * GPU: a bundle says that it is for one, and svit_load looks for its driver (libcuda.so.1 or libOpenCL.so.1); no other
 * library is needed. If there is no such GPU, loading fails: nothing runs on the CPU instead. See svit_device.
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
  SVIT_LOAD_FAILED = 2,  /* the bundle is missing, damaged, for another device, or needs more memory than there is */
  SVIT_RUN_FAILED = 3    /* a kernel or a driver reported an error; call svit_reset before the next step */
} svit_status;

/* A loaded bundle with its neuron states. Opaque. */
typedef struct svit_session svit_session;

/* A dense, row-major tensor. The pointers belong to the session and live as long as it does. */
typedef struct svit_tensor {
  const char* name;
  const char* dtype;    /* "float32", "uint8", "int8", "int16", "int32", "uint16", "bool"; on a GPU "float16", "uint32" */
  const int64_t* shape; /* ndim extents, each >= 1 */
  size_t ndim;
  size_t bytes;
} svit_tensor;

/* In which order a frame's bytes lie. Rows come from the top, pixels of a row from the left, both without gaps. */
typedef enum svit_layout {
  SVIT_HWC = 0, /* all channels of a pixel together (R G B, R G B, ...): cameras, PNM and most image libraries */
  SVIT_CHW = 1  /* one channel after the other: data sets, the float32 input tensor */
} svit_layout;

/* The frames of one call, uint8. Channels are those of the training images in their order: RGB, or one of grey. */
typedef struct svit_frame_shape {
  size_t frames;   /* 1; in sequence mode, of a network that sees another frame at every time step, T, the first first */
  size_t height;   /* pixels */
  size_t width;    /* pixels */
  size_t channels; /* bytes per pixel */
  size_t bytes;    /* frames * height * width * channels */
} svit_frame_shape;

/* Bytes of the static memory plan. On a GPU all of it is the GPU's memory. */
typedef struct svit_sizes {
  uint64_t weights_bytes;   /* on the CPU read-only, mapped from weights.bin: shared between processes, paged in on demand */
  uint64_t state_bytes;     /* the neurons' memory from step to step */
  uint64_t workspace_bytes; /* what lives within one step, and weights that are stored without zeros */
  uint64_t expanded_bytes;  /* of the workspace, in whole pages: those weights, which svit_load writes; on a GPU 0 */
} svit_sizes;

/* What a session runs on. The texts belong to the session; none is NULL. */
typedef struct svit_device_info {
  const char* api;    /* "cpu", "cuda" or "opencl" */
  const char* type;   /* "cpu" or "gpu"; a device of OpenCL can be a CPU, if the bundle allows that */
  const char* name;   /* as the driver says it; "" with the api "cpu" */
  const char* driver; /* its version and what it does, for people to read; "" with the api "cpu" */
} svit_device_info;

/* A layer whose spikes can be watched. The pointers belong to the session. */
typedef struct svit_tap {
  const char* name;     /* the layer's name in the trained network, for example "blocks.0.attn.qkv_lif" */
  svit_tensor tensor;   /* "uint8" or "float32"; not 0 where a neuron fired. What is packed on a GPU comes as "uint8" */
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
  uint64_t total_ns;  /* CLOCK_MONOTONIC, one reading of the clock included per call; on a GPU with launch and wait */
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

/*
 * Loads the network that is linked into the program, as into those of 'svitkit build --single-file'; otherwise like
 * svit_load. SVIT_LOAD_FAILED if the program has none.
 */
SVIT_API svit_status svit_load_linked(svit_session** session, char* error, size_t error_bytes);

/* Frees a session; NULL is allowed. */
SVIT_API void svit_free(svit_session* session);

/* Describes the tensor that svit_run and svit_step read. All zero if the session is NULL. */
SVIT_API svit_tensor svit_input(const svit_session* session);

/* Describes the tensor that svit_run and svit_step write: float32 logits. All zero if the session is NULL. */
SVIT_API svit_tensor svit_output(const svit_session* session);

/* Describes the frames that svit_run_frame and svit_step_frame read. All zero if the bundle does not say how bytes become
 * its input, or if the session is NULL. */
SVIT_API svit_frame_shape svit_frame(const svit_session* session);

/* Returns the name of class `index`, 0 <= index < svit_output(session).bytes / sizeof(float), in UTF-8; "" if the bundle
 * names none, the index is out of range or the session is NULL. The text belongs to the session. */
SVIT_API const char* svit_class_name(const svit_session* session, size_t index);

/* Returns the steps of one inference, whose logits are then averaged: 1 in sequence mode, the number of time steps in step
 * mode; 0 if the bundle does not say so or the session is NULL. A stream of events or video has no such end. */
SVIT_API size_t svit_steps(const svit_session* session);

/* Returns the memory plan. All zero if the session is NULL. */
SVIT_API svit_sizes svit_memory(const svit_session* session);

/* Tells what the session runs on. All NULL if the session is NULL. */
SVIT_API svit_device_info svit_device(const svit_session* session);

/* Sets every neuron state to its initial value. */
SVIT_API svit_status svit_reset(svit_session* session);

/*
 * Resets, then runs the network once.
 *   input, input_bytes    the input tensor's content; input_bytes == svit_input(session).bytes
 *   output, output_bytes  receives the output tensor; output_bytes == svit_output(session).bytes
 */
SVIT_API svit_status svit_run(svit_session* session, const void* input, size_t input_bytes, void* output,
                              size_t output_bytes);

/* Runs the network once and keeps the states: one time step of a network that was exported in step mode. Otherwise like
 * svit_run. */
SVIT_API svit_status svit_step(svit_session* session, const void* input, size_t input_bytes, void* output,
                               size_t output_bytes);

/*
 * Resets, then runs the network once on bytes.
 *   frame, frame_bytes    uint8 pixels or event counts; frame_bytes == svit_frame(session).bytes
 *   layout                how they lie
 *   output, output_bytes  receives the output tensor; output_bytes == svit_output(session).bytes
 * The logits are, bit for bit, those of svit_run on the normalized image: a byte x of channel c becomes
 * (x / 255 - mean[c]) / std[c] (of event counts, (x - mean[c]) / std[c]), as float32 and in this order, by a table with an
 * entry for each of the 256 values that svit_load makes; where the first convolution pads, it pads the normalized image
 * with 0. Normalization costs one look-up per byte, and no other buffer.
 * SVIT_BAD_ARGUMENT also if the bundle does not say how bytes become its input, see svit_frame.
 */
SVIT_API svit_status svit_run_frame(svit_session* session, const uint8_t* frame, size_t frame_bytes, svit_layout layout,
                                    void* output, size_t output_bytes);

/* Runs the network once on bytes and keeps the states, like svit_step; otherwise like svit_run_frame. */
SVIT_API svit_status svit_step_frame(svit_session* session, const uint8_t* frame, size_t frame_bytes, svit_layout layout,
                                     void* output, size_t output_bytes);

/* Returns the most threads that the bundle was built for, 1 for a GPU; 0 if the session is NULL. */
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
 * While it is off it costs one comparison per run or step, and none per call. While it is on, or a tap callback is set, a
 * GPU is waited for after every call.
 */
SVIT_API svit_status svit_set_profile(svit_session* session, int on);

/* Returns the number of kernel calls of one run or step; 0 if the session is NULL. */
SVIT_API size_t svit_call_count(const svit_session* session);

/* Tells what one call has cost, 0 <= index < svit_call_count(session), in the order of execution. */
SVIT_API svit_status svit_profile_call(svit_session* session, size_t index, svit_call_profile* profile);

/* Returns the reason of the session's last failure, "" if there was none, on one line. Valid until the session's next
 * failure. */
SVIT_API const char* svit_last_error(const svit_session* session);

#ifdef __cplusplus
}
#endif

#endif /* SVIT_H_ */
