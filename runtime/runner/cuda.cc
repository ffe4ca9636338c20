// CUDA through the driver alone, which also compiles the kernels: the same library runs on every JetPack. Where the
// driver has graphs, a run is one graph: it is launched by one call instead of one for each kernel.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "accelerator.h"
#include "cuda_api.h"
#include "driver.h"

namespace svit {
namespace {

using namespace cuda;

constexpr const char* kLibraries[] = {
    "libcuda.so.1",
    "/usr/lib/aarch64-linux-gnu/tegra/libcuda.so.1",   // JetPack 4 and 5
    "/usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1",  // JetPack 6
    "/usr/lib/wsl/lib/libcuda.so.1",
};
constexpr const char* kSpaceNames[kSpaces] = {"weights", "states", "workspace"};
constexpr std::size_t kLogBytes = 8192;

void open_library(Driver& driver) {
  std::string searched;
  for (const char* name : kLibraries) {
    if (driver.open(name)) return;
    searched += (searched.empty() ? "" : "; ") + driver.error();
  }
  throw Error("no CUDA driver on this machine. Looked for: " + searched +
              ". Install the GPU's driver, or build the network for this machine's CPU");
}

Functions load_functions(const Driver& driver) {
  Functions f{};
#define SVIT_NEED(name) driver.need(#name, f.name)
  SVIT_NEED(cuInit);
  SVIT_NEED(cuDriverGetVersion);
  SVIT_NEED(cuGetErrorName);
  SVIT_NEED(cuGetErrorString);
  SVIT_NEED(cuDeviceGetCount);
  SVIT_NEED(cuDeviceGet);
  SVIT_NEED(cuDeviceGetName);
  SVIT_NEED(cuDeviceGetAttribute);
  SVIT_NEED(cuDevicePrimaryCtxRetain);
  SVIT_NEED(cuCtxPushCurrent_v2);
  SVIT_NEED(cuCtxPopCurrent_v2);
  SVIT_NEED(cuModuleLoadDataEx);
  SVIT_NEED(cuModuleUnload);
  SVIT_NEED(cuModuleGetFunction);
  SVIT_NEED(cuFuncGetAttribute);
  SVIT_NEED(cuMemAlloc_v2);
  SVIT_NEED(cuMemFree_v2);
  SVIT_NEED(cuMemAllocHost_v2);
  SVIT_NEED(cuMemFreeHost);
  SVIT_NEED(cuMemcpyHtoDAsync_v2);
  SVIT_NEED(cuMemcpyDtoHAsync_v2);
  SVIT_NEED(cuStreamCreate);
  SVIT_NEED(cuStreamDestroy_v2);
  SVIT_NEED(cuStreamSynchronize);
  SVIT_NEED(cuLaunchKernel);
#undef SVIT_NEED
  const bool is_recent = driver.find("cuDevicePrimaryCtxRelease_v2") != nullptr;  // from CUDA 11 on
  driver.need(is_recent ? "cuDevicePrimaryCtxRelease_v2" : "cuDevicePrimaryCtxRelease", f.cuDevicePrimaryCtxRelease);
#define SVIT_FIND(name, member) f.member = reinterpret_cast<decltype(f.member)>(driver.find(name))
  SVIT_FIND("cuStreamBeginCapture_v2", cuStreamBeginCapture_v2);
  SVIT_FIND("cuStreamEndCapture", cuStreamEndCapture);
  SVIT_FIND("cuGraphInstantiateWithFlags", cuGraphInstantiateWithFlags);
  SVIT_FIND("cuGraphInstantiate_v2", cuGraphInstantiate);
  if (!f.cuGraphInstantiate) SVIT_FIND("cuGraphInstantiate", cuGraphInstantiate);
  SVIT_FIND("cuGraphLaunch", cuGraphLaunch);
  SVIT_FIND("cuGraphDestroy", cuGraphDestroy);
  SVIT_FIND("cuGraphExecDestroy", cuGraphExecDestroy);
#undef SVIT_FIND
  return f;
}

std::string error_text(const Functions& f, CUresult code) {
  const char* name = nullptr;
  const char* meaning = nullptr;
  if (f.cuGetErrorName(code, &name) != CUDA_SUCCESS || f.cuGetErrorString(code, &meaning) != CUDA_SUCCESS) {
    return "error " + std::to_string(code);
  }
  return std::string(name) + " (" + meaning + ")";
}

void check(const Functions& f, CUresult code, const std::string& what) {
  if (code != CUDA_SUCCESS) throw Error(what + " gave " + error_text(f, code));
}

int read_attribute(const Functions& f, CUdevice device, int attribute) {
  int value = 0;
  check(f, f.cuDeviceGetAttribute(&value, attribute, device), "cuDeviceGetAttribute");
  return value;
}

std::uint32_t read_capability(const Functions& f, CUdevice device) {
  return static_cast<std::uint32_t>(10 * read_attribute(f, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
                                    read_attribute(f, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
}

std::string read_name(const Functions& f, CUdevice device) {
  char name[256] = "";
  check(f, f.cuDeviceGetName(name, sizeof name, device), "cuDeviceGetName");
  return one_line(name);
}

// The first GPU that can run the kernels.
CUdevice choose_device(const Functions& f, std::uint32_t wanted) {
  int count = 0;
  check(f, f.cuDeviceGetCount(&count), "cuDeviceGetCount");
  std::string found;
  for (int i = 0; i < count; ++i) {
    CUdevice device = 0;
    check(f, f.cuDeviceGet(&device, i), "cuDeviceGet");
    const std::uint32_t capability = read_capability(f, device);
    if (capability >= wanted) return device;
    const std::string number = std::to_string(capability / 10) + "." + std::to_string(capability % 10);
    found += (found.empty() ? "'" : ", '") + read_name(f, device) + "' with compute capability " + number + " (sm_" +
             std::to_string(capability) + ")";
  }
  throw Error("the kernels need sm_" + std::to_string(wanted) + " or newer, this machine has " +
              (found.empty() ? "no GPU" : found) + ": build the network for the board that this is");
}

// The context that all CUDA programs of a process share.
class Context {
 public:
  Context(const Functions& f, CUdevice device) : f_(f), device_(device) {
    check(f_, f_.cuDevicePrimaryCtxRetain(&context_, device_), "cuDevicePrimaryCtxRetain");
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() { f_.cuDevicePrimaryCtxRelease(device_); }

  // Makes the context the calling thread's, for as long as this lives. If that fails, so does the call that needs it.
  class Current {
   public:
    explicit Current(const Context& context)
        : f_(context.f_), is_current_(f_.cuCtxPushCurrent_v2(context.context_) == CUDA_SUCCESS) {}
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;
    ~Current() {
      CUcontext popped = nullptr;
      if (is_current_) f_.cuCtxPopCurrent_v2(&popped);
    }

   private:
    const Functions& f_;
    const bool is_current_;
  };

 private:
  const Functions& f_;
  CUdevice device_;
  CUcontext context_ = nullptr;
};

class Cuda : public Accelerator {
 public:
  Cuda(const Program& program, const Functions& f, CUdevice id)
      : program_(program), f_(f), device_{"cuda", "gpu", read_name(f_, id), ""}, context_(f_, id) {
    int version = 0;
    check(f_, f_.cuDriverGetVersion(&version), "cuDriverGetVersion");
    device_.driver = "CUDA " + std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10) + ", sm_" +
                     std::to_string(read_capability(f_, id));
  }

  ~Cuda() override {
    const Context::Current current(context_);
    if (stream_) f_.cuStreamSynchronize(stream_);
    if (graph_) f_.cuGraphExecDestroy(graph_);
    if (module_) f_.cuModuleUnload(module_);
    for (void* memory : host_) f_.cuMemFreeHost(memory);
    for (const CUdeviceptr space : spaces_) {
      if (space) f_.cuMemFree_v2(space);
    }
    if (stream_) f_.cuStreamDestroy_v2(stream_);
  }

  const Device& device() const override { return device_; }

  void allocate(const std::uint64_t (&sizes)[kSpaces]) override {
    const Context::Current current(context_);
    check(f_, f_.cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    for (std::size_t i = 0; i < kSpaces; ++i) {
      if (sizes[i] == 0) continue;
      const std::string what = std::to_string(sizes[i]) + " bytes for the " + kSpaceNames[i];
      check(f_, f_.cuMemAlloc_v2(&spaces_[i], sizes[i]), "'" + device_.name + "' has no " + what + ": cuMemAlloc");
    }
  }

  void compile(std::string_view kernels) override {
    const Context::Current current(context_);
    const std::string text(kernels);  // ends with a 0
    std::string log(kLogBytes, 0);
    int options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void* values[] = {log.data(), reinterpret_cast<void*>(log.size())};
    const CUresult code = f_.cuModuleLoadDataEx(&module_, text.c_str(), 2, options, values);
    if (code == CUDA_SUCCESS) return;
    throw Error("the driver (" + device_.driver + ") cannot compile " + program_.target->kernels +
                ": cuModuleLoadDataEx gave " + error_text(f_, code) + ": " + one_line(log.c_str()));
  }

  std::size_t bind(const Call& call) override {
    const Context::Current current(context_);
    Launch launch{&call, nullptr, {}, {}};
    const CUresult code = f_.cuModuleGetFunction(&launch.function, module_, call.symbol.c_str());
    if (code != CUDA_SUCCESS) {
      throw Error("program.txt line " + std::to_string(call.line) + ": " + program_.target->kernels + " has no kernel '" +
                  call.symbol + "': cuModuleGetFunction gave " + error_text(f_, code));
    }
    int most = 0;
    check(f_, f_.cuFuncGetAttribute(&most, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, launch.function),
          "cuFuncGetAttribute");
    const std::uint64_t wanted = std::uint64_t{call.threads[0]} * call.threads[1] * call.threads[2];
    if (wanted > static_cast<std::uint64_t>(most)) {
      fail_call(call, "it wants blocks of " + std::to_string(wanted) + " threads, '" + device_.name + "' has room for " +
                          std::to_string(most));
    }
    for (const std::size_t id : call.arguments) launch.arguments.push_back(address(id));
    for (CUdeviceptr& argument : launch.arguments) launch.pointers.push_back(&argument);
    launches_.push_back(std::move(launch));
    return launches_.size() - 1;
  }

  unsigned char* host_memory(std::uint64_t bytes) override {
    if (bytes == 0) return nullptr;
    const Context::Current current(context_);
    void* memory = nullptr;
    check(f_, f_.cuMemAllocHost_v2(&memory, bytes), "cuMemAllocHost of " + std::to_string(bytes) + " bytes");
    host_.push_back(memory);
    return static_cast<unsigned char*>(memory);
  }

  void write(Space space, std::uint64_t offset, const void* data, std::uint64_t bytes) override {
    const Context::Current current(context_);
    const CUdeviceptr target = spaces_[static_cast<std::size_t>(space)] + offset;
    check(f_, f_.cuMemcpyHtoDAsync_v2(target, data, bytes, stream_), "cuMemcpyHtoDAsync");
  }

  void read(Space space, std::uint64_t offset, void* data, std::uint64_t bytes) override {
    const Context::Current current(context_);
    const CUdeviceptr origin = spaces_[static_cast<std::size_t>(space)] + offset;
    check(f_, f_.cuMemcpyDtoHAsync_v2(data, origin, bytes, stream_), "cuMemcpyDtoHAsync");
  }

  void launch(std::size_t number) override {
    const Context::Current current(context_);
    Launch& launch = launches_[number];
    const auto& [gx, gy, gz] = launch.call->blocks;
    const auto& [bx, by, bz] = launch.call->threads;
    const CUresult code =
        f_.cuLaunchKernel(launch.function, gx, gy, gz, bx, by, bz, 0, stream_, launch.pointers.data(), nullptr);
    if (code != CUDA_SUCCESS) fail_call(*launch.call, "cuLaunchKernel gave " + error_text(f_, code));
  }

  void wait() override {
    const Context::Current current(context_);
    check(f_, f_.cuStreamSynchronize(stream_), "cuStreamSynchronize");
  }

  bool record(const std::function<void()>& enqueue) override {
    const Context::Current current(context_);
    const CUgraph graph = f_.has_graphs() ? capture(enqueue) : nullptr;
    if (graph) {
      const CUresult code = instantiate(graph);
      f_.cuGraphDestroy(graph);
      if (code != CUDA_SUCCESS) graph_ = nullptr;
    }
    device_.driver += graph_ ? ", replays a graph" : ", launches in a stream";
    return graph_ != nullptr;
  }

  void replay() override {
    const Context::Current current(context_);
    check(f_, f_.cuGraphLaunch(graph_, stream_), "cuGraphLaunch");
  }

 private:
  struct Launch {
    const Call* call;
    CUfunction function;
    std::vector<CUdeviceptr> arguments;
    std::vector<void*> pointers;  // to each argument
  };

  CUdeviceptr address(std::size_t id) const {
    const Tensor& tensor = program_.tensors[id];
    return spaces_[static_cast<std::size_t>(tensor.space)] + tensor.offset;
  }

  // NULL if the driver cannot record this: then every run queues it anew, and says itself what is wrong.
  CUgraph capture(const std::function<void()>& enqueue) {
    if (f_.cuStreamBeginCapture_v2(stream_, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) != CUDA_SUCCESS) return nullptr;
    bool is_whole = true;
    try {
      enqueue();
    } catch (const Error&) {
      is_whole = false;
    }
    CUgraph graph = nullptr;
    if (f_.cuStreamEndCapture(stream_, &graph) != CUDA_SUCCESS) return nullptr;
    if (is_whole) return graph;
    f_.cuGraphDestroy(graph);
    return nullptr;
  }

  CUresult instantiate(CUgraph graph) {
    if (f_.cuGraphInstantiateWithFlags) return f_.cuGraphInstantiateWithFlags(&graph_, graph, 0);
    return f_.cuGraphInstantiate(&graph_, graph, nullptr, nullptr, 0);
  }

  const Program& program_;
  const Functions f_;
  Device device_;
  const Context context_;
  CUstream stream_ = nullptr;
  CUmodule module_ = nullptr;
  CUgraphExec graph_ = nullptr;
  CUdeviceptr spaces_[kSpaces] = {0, 0, 0};
  std::vector<void*> host_;
  std::vector<Launch> launches_;
};

}  // namespace

std::unique_ptr<Accelerator> open_cuda(const Program& program) {
  Driver driver;
  open_library(driver);
  const Functions f = load_functions(driver);
  const CUresult code = f.cuInit(0);
  if (code != CUDA_SUCCESS) throw Error(driver.name() + " is there, but finds no GPU: cuInit gave " + error_text(f, code));
  return std::make_unique<Cuda>(program, f, choose_device(f, program.target->capability));
}

}  // namespace svit
