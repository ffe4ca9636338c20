/* Prints what a network sees in an image: classify BUNDLE IMAGE, the image in PGM or PPM (P5 or P6, 8 bits). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <svit.h>

enum { TOP = 3 };

/* Reads the next number of a PNM header; -1 if there is none. */
static long next_number(FILE* file) {
  int c = fgetc(file);
  while (c == '#' || c == ' ' || c == '\t' || c == '\n' || c == '\r') {
    if (c == '#') while (c != '\n' && c != EOF) c = fgetc(file);
    c = fgetc(file);
  }
  if (c < '0' || c > '9') return -1;
  long value = 0;
  for (; c >= '0' && c <= '9' && value < 100000; c = fgetc(file)) value = 10 * value + (c - '0');
  return value;
}

/* Reads the pixels of an image that must have the size that the network wants. Returns 0 if it has. */
static int read_image(const char* path, svit_frame_shape wanted, uint8_t* pixels) {
  FILE* file = fopen(path, "rb");
  if (!file) return fprintf(stderr, "cannot open %s\n", path), 1;
  char kind[2] = {0, 0};
  const int is_pnm = fread(kind, 1, 2, file) == 2 && kind[0] == 'P' && (kind[1] == '5' || kind[1] == '6');
  const long channels = kind[1] == '6' ? 3 : 1;
  const long width = is_pnm ? next_number(file) : -1, height = next_number(file), levels = next_number(file);
  const int fits = channels == (long)wanted.channels && width == (long)wanted.width && height == (long)wanted.height;
  const int is_whole = is_pnm && levels == 255 && fits && fread(pixels, 1, wanted.bytes, file) == wanted.bytes;
  fclose(file);
  if (is_whole) return 0;
  fprintf(stderr, "%s: wanted a whole PGM or PPM image of %zux%zu pixels with %zu channel(s) of 8 bits\n", path,
          wanted.width, wanted.height, wanted.channels);
  return 1;
}

static void print_best(const svit_session* session, float* logits, size_t classes) {
  for (size_t rank = 0; rank < TOP && rank < classes; ++rank) {
    size_t best = 0;
    for (size_t i = 1; i < classes; ++i) best = logits[i] > logits[best] ? i : best;
    printf("%zu\t%s\t%.6g\n", best, svit_class_name(session, best), (double)logits[best]);
    logits[best] = -3.4e38f;
  }
}

/* Runs the network once, or in step mode as often as it has time steps, and averages the logits. */
static svit_status infer(svit_session* session, const uint8_t* pixels, float* logits, size_t classes, float* step) {
  const size_t steps = svit_steps(session), bytes = svit_frame(session).bytes;
  memset(logits, 0, classes * sizeof *logits);
  svit_status status = svit_reset(session);
  for (size_t t = 0; t < steps && status == SVIT_OK; ++t) {
    status = svit_step_frame(session, pixels, bytes, SVIT_HWC, step, classes * sizeof *step);
    for (size_t i = 0; i < classes; ++i) logits[i] += step[i] / (float)steps;
  }
  return status;
}

int main(int argc, char** argv) {
  if (argc != 3) return fputs("classify BUNDLE IMAGE\n", stderr), 2;
  char error[512];
  svit_session* session = NULL;
  if (svit_load(argv[1], &session, error, sizeof error) != SVIT_OK) return fprintf(stderr, "%s\n", error), 1;
  const svit_frame_shape shape = svit_frame(session);
  const size_t classes = svit_output(session).bytes / sizeof(float);
  uint8_t* pixels = malloc(shape.bytes + 1);
  float* logits = malloc(2 * classes * sizeof *logits);
  int failed = 1;
  if (shape.bytes == 0 || shape.frames != 1) {
    fputs("this network does not read single images\n", stderr);
  } else if (pixels && logits && read_image(argv[2], shape, pixels) == 0) {
    failed = infer(session, pixels, logits, classes, logits + classes) != SVIT_OK;
    if (failed) fprintf(stderr, "%s\n", svit_last_error(session));
    if (!failed) print_best(session, logits, classes);
  }
  free(logits);
  free(pixels);
  svit_free(session);
  return failed;
}
