// A test double of CUDA's driver, built as libcuda.so.1: it takes OpenCL C where the driver takes PTX, and PoCL runs it
// in shared virtual memory. It is stricter than the driver: what is queued happens in cuStreamSynchronize and not before,
// captured copies want pinned memory, every pointer must lie in an allocation, memory is not zero, and what is left when
// the context goes is reported. It says nothing about speed.
//
//   DOUBLE_CAPABILITY  its compute capability, 87 unless given; DOUBLE_NAME its name
//   DOUBLE_MEMORY      bytes that it has
//   DOUBLE_FAILS       name of a function that gives CUDA_ERROR_NOT_SUPPORTED
//   DOUBLE_COUNTS      file that gets the number of calls of every function, and what was left
// Compiled with -DLIKE_CUDA_10 it is an early driver with graphs, with -DWITHOUT_GRAPHS one that has none.
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "opencl_api.h"

using namespace svit::opencl;

namespace {

enum Result {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNotInitialized = 3,
  kNoDevice = 100,
  kInvalidContext = 201,
  kInvalidPtx = 218,
  kInvalidHandle = 400,
  kNotFound = 500,
  kIllegalAddress = 700,
  kNotSupported = 801,
  kCaptureUnsupported = 900,
};
struct Meaning {
  int code;
  const char* name;
  const char* text;
};
constexpr Meaning kMeanings[] = {
    {kInvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {kNotInitialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {kNoDevice, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {kInvalidPtx, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {kNotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {kNotSupported, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {kCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
};

const Meaning* meaning(int code) {
  const auto fits = [&](const Meaning& each) { return each.code == code; };
  const auto* found = std::find_if(std::begin(kMeanings), std::end(kMeanings), fits);
  return found == std::end(kMeanings) ? nullptr : found;
}

using Operation = std::function<int()>;
using Operations = std::vector<Operation>;

struct Module {
  cl_program program;
};
struct Kernel {
  cl_kernel kernel;
  cl_uint parameters;
};
struct Stream {
  Operations queued;
  Operations captured;
  bool is_capturing = false;
};

struct OpenCl {
  Functions f{};
  void* (*clSVMAlloc)(cl_context, cl_bitfield, std::size_t, cl_uint) = nullptr;
  void (*clSVMFree)(cl_context, void*) = nullptr;
  cl_int (*clSetKernelArgSVMPointer)(cl_kernel, cl_uint, const void*) = nullptr;
  cl_device_id device = nullptr;
  cl_context context = nullptr;
  cl_command_queue queue = nullptr;
};

OpenCl cl;
bool is_initialized = false;
int retained = 0;
thread_local int current = 0;                      // contexts on this thread's stack
std::map<std::uintptr_t, std::size_t> memory;      // of the device
std::map<std::uintptr_t, std::size_t> pinned;      // of the host
std::map<std::string, int> counts;
int handles = 0;  // streams, modules and graphs that were not given back
std::vector<Kernel*> kernels;

template <typename T>
void find(void* library, const char* name, T& function) {
  function = reinterpret_cast<T>(dlsym(library, name));
}

bool open_opencl() {
  void* library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!library) return false;
#define FIND(name) find(library, #name, cl.f.name)
  FIND(clGetPlatformIDs);
  FIND(clGetDeviceIDs);
  FIND(clCreateContext);
  FIND(clCreateCommandQueue);
  FIND(clCreateProgramWithSource);
  FIND(clBuildProgram);
  FIND(clGetProgramBuildInfo);
  FIND(clReleaseProgram);
  FIND(clCreateKernel);
  FIND(clGetKernelInfo);
  FIND(clReleaseKernel);
  FIND(clEnqueueNDRangeKernel);
  FIND(clFinish);
  find(library, "clSVMAlloc", cl.clSVMAlloc);
  find(library, "clSVMFree", cl.clSVMFree);
  find(library, "clSetKernelArgSVMPointer", cl.clSetKernelArgSVMPointer);
  cl_platform_id platform = nullptr;
  if (cl.f.clGetPlatformIDs(1, &platform, nullptr) != 0) return false;
  if (cl.f.clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &cl.device, nullptr) != 0) return false;
  cl.context = cl.f.clCreateContext(nullptr, 1, &cl.device, nullptr, nullptr, nullptr);
  cl.queue = cl.f.clCreateCommandQueue(cl.context, cl.device, 0, nullptr);
  return true;
}

// What every function begins with.
int enter(const char* name, bool wants_context) {
  ++counts[name];
  const char* fails = std::getenv("DOUBLE_FAILS");
  if (fails && std::string(fails) == name) return kNotSupported;
  if (!is_initialized) return kNotInitialized;
  return wants_context && current == 0 ? kInvalidContext : kSuccess;
}

bool lies_in(const std::map<std::uintptr_t, std::size_t>& blocks, std::uintptr_t address, std::size_t bytes) {
  auto next = blocks.upper_bound(address);
  if (next == blocks.begin()) return false;
  --next;
  return address + bytes <= next->first + next->second;
}

int queue(Stream* stream, Operation operation) {
  if (!stream) return kInvalidHandle;
  (stream->is_capturing ? stream->captured : stream->queued).push_back(std::move(operation));
  return kSuccess;
}

int copy(Stream* stream, void* target, const void* origin, std::size_t bytes, const void* device, const void* host) {
  if (!lies_in(memory, reinterpret_cast<std::uintptr_t>(device), bytes)) return kInvalidValue;
  const bool is_pinned = lies_in(pinned, reinterpret_cast<std::uintptr_t>(host), bytes);
  if (stream && stream->is_capturing && !is_pinned) return kCaptureUnsupported;
  return queue(stream, [=] {
    std::memcpy(target, origin, bytes);
    return kSuccess;
  });
}

void report() {
  const char* path = std::getenv("DOUBLE_COUNTS");
  std::FILE* file = path ? std::fopen(path, "w") : nullptr;
  if (!file) return;
  for (const auto& [name, count] : counts) std::fprintf(file, "%s %d\n", name.c_str(), count);
  std::fprintf(file, "left %zu\n", memory.size() + pinned.size() + static_cast<std::size_t>(handles));
  std::fclose(file);
}

}  // namespace

#define DOUBLE extern "C" __attribute__((visibility("default"))) int
#define ENTER_WITHOUT_CONTEXT() \
  if (const int code = enter(__func__, false); code != kSuccess) return code
#define ENTER() \
  if (const int code = enter(__func__, true); code != kSuccess) return code

DOUBLE cuInit(unsigned flags) {
  if (flags != 0) return kInvalidValue;
  is_initialized = is_initialized || open_opencl();
  return is_initialized ? enter(__func__, false) : kNoDevice;
}

DOUBLE cuDriverGetVersion(int* version) {
#ifdef LIKE_CUDA_10
  *version = 10020;
#else
  *version = 12060;
#endif
  return kSuccess;
}

DOUBLE cuGetErrorName(int code, const char** text) {
  const Meaning* found = meaning(code);
  *text = found ? found->name : nullptr;
  return found ? kSuccess : kInvalidValue;
}

DOUBLE cuGetErrorString(int code, const char** text) {
  const Meaning* found = meaning(code);
  *text = found ? found->text : nullptr;
  return found ? kSuccess : kInvalidValue;
}

DOUBLE cuDeviceGetCount(int* count) {
  ENTER_WITHOUT_CONTEXT();
  *count = 1;
  return kSuccess;
}

DOUBLE cuDeviceGet(int* device, int ordinal) {
  ENTER_WITHOUT_CONTEXT();
  *device = 0;
  return ordinal == 0 ? kSuccess : kInvalidValue;
}

DOUBLE cuDeviceGetName(char* name, int bytes, int) {
  ENTER_WITHOUT_CONTEXT();
  const char* given = std::getenv("DOUBLE_NAME");
  std::snprintf(name, static_cast<std::size_t>(bytes), "%s", given ? given : "a double");
  return kSuccess;
}

DOUBLE cuDeviceGetAttribute(int* value, int attribute, int) {
  ENTER_WITHOUT_CONTEXT();
  const char* given = std::getenv("DOUBLE_CAPABILITY");
  const int capability = given ? std::atoi(given) : 87;
  if (attribute != 75 && attribute != 76) return kInvalidValue;
  *value = attribute == 75 ? capability / 10 : capability % 10;
  return kSuccess;
}

DOUBLE cuDevicePrimaryCtxRetain(void** context, int) {
  ENTER_WITHOUT_CONTEXT();
  ++retained;
  *context = &retained;
  return kSuccess;
}

#ifdef LIKE_CUDA_10
DOUBLE cuDevicePrimaryCtxRelease(int) {
#else
DOUBLE cuDevicePrimaryCtxRelease_v2(int) {
#endif
  ENTER_WITHOUT_CONTEXT();
  if (retained == 0 || current != 0) return kInvalidContext;
  if (--retained > 0) return kSuccess;
  for (const Kernel* kernel : kernels) {
    cl.f.clReleaseKernel(kernel->kernel);
    delete kernel;
  }
  kernels.clear();
  report();
  return kSuccess;
}

DOUBLE cuCtxPushCurrent_v2(void* context) {
  ENTER_WITHOUT_CONTEXT();
  if (context != &retained || retained == 0) return kInvalidContext;
  ++current;
  return kSuccess;
}

DOUBLE cuCtxPopCurrent_v2(void** context) {
  ENTER();
  --current;
  *context = &retained;
  return kSuccess;
}

DOUBLE cuModuleLoadDataEx(Module** module, const void* image, unsigned count, int* options, void** values) {
  ENTER();
  auto* source = static_cast<const char*>(image);
  const cl_program program = cl.f.clCreateProgramWithSource(cl.context, 1, &source, nullptr, nullptr);
  if (cl.f.clBuildProgram(program, 1, &cl.device, "-cl-std=CL1.2", nullptr, nullptr) == CL_SUCCESS) {
    *module = new Module{program};
    ++handles;
    return kSuccess;
  }
  char* log = nullptr;
  std::size_t bytes = 0;
  for (unsigned i = 0; i < count; ++i) {
    if (options[i] == 5) log = static_cast<char*>(values[i]);
    if (options[i] == 6) bytes = reinterpret_cast<std::size_t>(values[i]);
  }
  std::string text(1 << 16, 0);
  cl.f.clGetProgramBuildInfo(program, cl.device, CL_PROGRAM_BUILD_LOG, text.size(), text.data(), nullptr);
  if (log && bytes > 0) std::snprintf(log, bytes, "%s", text.c_str());
  cl.f.clReleaseProgram(program);
  return kInvalidPtx;
}

DOUBLE cuModuleUnload(Module* module) {
  ENTER();
  cl.f.clReleaseProgram(module->program);
  delete module;
  --handles;
  return kSuccess;
}

// Every call gives a kernel of its own: it lives as long as the context.
DOUBLE cuModuleGetFunction(Kernel** function, Module* module, const char* name) {
  ENTER();
  cl_int code = 0;
  const cl_kernel kernel = cl.f.clCreateKernel(module->program, name, &code);
  if (code != CL_SUCCESS) return kNotFound;
  kernels.push_back(new Kernel{kernel, 0});
  cl.f.clGetKernelInfo(kernel, CL_KERNEL_NUM_ARGS, sizeof(cl_uint), &kernels.back()->parameters, nullptr);
  *function = kernels.back();
  return kSuccess;
}

DOUBLE cuFuncGetAttribute(int* value, int attribute, Kernel*) {
  ENTER();
  *value = 1024;
  return attribute == 0 ? kSuccess : kInvalidValue;
}

DOUBLE cuMemAlloc_v2(unsigned long long* address, std::size_t bytes) {
  ENTER();
  std::size_t used = bytes;
  for (const auto& [_, block] : memory) used += block;
  const char* limit = std::getenv("DOUBLE_MEMORY");
  if (bytes == 0) return kInvalidValue;
  if (limit && used > std::strtoull(limit, nullptr, 10)) return kOutOfMemory;
  constexpr cl_bitfield kFineGrained = 1 << 10;
  void* block = cl.clSVMAlloc(cl.context, CL_MEM_READ_WRITE | kFineGrained, bytes, 0);
  if (!block) return kOutOfMemory;
  std::memset(block, 0xa5, bytes);  // as it may look
  *address = reinterpret_cast<std::uintptr_t>(block);
  memory[reinterpret_cast<std::uintptr_t>(block)] = bytes;
  return kSuccess;
}

DOUBLE cuMemFree_v2(unsigned long long address) {
  ENTER();
  if (memory.erase(static_cast<std::uintptr_t>(address)) == 0) return kInvalidValue;
  cl.clSVMFree(cl.context, reinterpret_cast<void*>(static_cast<std::uintptr_t>(address)));
  return kSuccess;
}

DOUBLE cuMemAllocHost_v2(void** block, std::size_t bytes) {
  ENTER();
  *block = std::malloc(bytes);
  pinned[reinterpret_cast<std::uintptr_t>(*block)] = bytes;
  return *block ? kSuccess : kOutOfMemory;
}

DOUBLE cuMemFreeHost(void* block) {
  ENTER();
  if (pinned.erase(reinterpret_cast<std::uintptr_t>(block)) == 0) return kInvalidValue;
  std::free(block);
  return kSuccess;
}

DOUBLE cuMemcpyHtoDAsync_v2(unsigned long long target, const void* origin, std::size_t bytes, Stream* stream) {
  ENTER();
  auto* device = reinterpret_cast<void*>(static_cast<std::uintptr_t>(target));
  return copy(stream, device, origin, bytes, device, origin);
}

DOUBLE cuMemcpyDtoHAsync_v2(void* target, unsigned long long origin, std::size_t bytes, Stream* stream) {
  ENTER();
  auto* device = reinterpret_cast<const void*>(static_cast<std::uintptr_t>(origin));
  return copy(stream, target, device, bytes, device, target);
}

DOUBLE cuStreamCreate(Stream** stream, unsigned flags) {
  ENTER();
  if (flags > 1) return kInvalidValue;
  *stream = new Stream;
  ++handles;
  return kSuccess;
}

DOUBLE cuStreamDestroy_v2(Stream* stream) {
  ENTER();
  delete stream;
  --handles;
  return kSuccess;
}

DOUBLE cuStreamSynchronize(Stream* stream) {
  ENTER();
  if (stream->is_capturing) return kCaptureUnsupported;
  Operations queued;
  queued.swap(stream->queued);
  for (const Operation& operation : queued) {
    if (const int code = operation(); code != kSuccess) return code;
  }
  return kSuccess;
}

DOUBLE cuLaunchKernel(Kernel* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, Stream* stream, void** parameters, void** extra) {
  ENTER();
  if (shared != 0 || extra || gx * gy * gz * bx * by * bz == 0 || gy > 65535 || gz > 65535) return kInvalidValue;
  std::vector<std::uintptr_t> arguments;
  for (cl_uint i = 0; i < kernel->parameters; ++i) {
    arguments.push_back(static_cast<std::uintptr_t>(*static_cast<unsigned long long*>(parameters[i])));
  }
  return queue(stream, [=] {
    for (cl_uint i = 0; i < kernel->parameters; ++i) {
      if (!lies_in(memory, arguments[i], 1)) return kIllegalAddress;
      cl.clSetKernelArgSVMPointer(kernel->kernel, i, reinterpret_cast<void*>(arguments[i]));
    }
    const std::size_t local[] = {bx, by, bz};
    const std::size_t global[] = {std::size_t{gx} * bx, std::size_t{gy} * by, std::size_t{gz} * bz};
    if (cl.f.clEnqueueNDRangeKernel(cl.queue, kernel->kernel, 3, nullptr, global, local, 0, nullptr, nullptr) != 0) {
      return kInvalidValue;
    }
    return cl.f.clFinish(cl.queue) == 0 ? kSuccess : kIllegalAddress;
  });
}

#ifndef WITHOUT_GRAPHS
DOUBLE cuStreamBeginCapture_v2(Stream* stream, int mode) {
  ENTER();
  if (mode < 0 || mode > 2 || stream->is_capturing) return kInvalidValue;
  stream->is_capturing = true;
  return kSuccess;
}

DOUBLE cuStreamEndCapture(Stream* stream, Operations** graph) {
  ENTER();
  if (!stream->is_capturing) return kInvalidValue;
  stream->is_capturing = false;
  *graph = new Operations(std::move(stream->captured));
  stream->captured.clear();
  ++handles;
  return kSuccess;
}

#ifdef LIKE_CUDA_10
DOUBLE cuGraphInstantiate(Operations** executable, Operations* graph, void**, char*, std::size_t) {
#else
DOUBLE cuGraphInstantiateWithFlags(Operations** executable, Operations* graph, unsigned long long) {
#endif
  ENTER();
  *executable = new Operations(*graph);
  ++handles;
  return kSuccess;
}

DOUBLE cuGraphLaunch(Operations* executable, Stream* stream) {
  ENTER();
  stream->queued.insert(stream->queued.end(), executable->begin(), executable->end());
  return kSuccess;
}

DOUBLE cuGraphDestroy(Operations* graph) {
  ENTER();
  delete graph;
  --handles;
  return kSuccess;
}

DOUBLE cuGraphExecDestroy(Operations* executable) {
  ENTER();
  delete executable;
  --handles;
  return kSuccess;
}
#endif
