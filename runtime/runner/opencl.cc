// OpenCL through whatever driver the machine has: the loader of ICDs, or Mali's library, which is OpenCL by itself.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "accelerator.h"
#include "driver.h"
#include "mapping.h"
#include "opencl_api.h"

namespace svit {
namespace {

using namespace opencl;

constexpr const char* kLibraries[] = {
    "libOpenCL.so.1",
    "libOpenCL.so",
    "libmali.so.1",
    "libmali.so",
    "/usr/lib/aarch64-linux-gnu/libmali.so.1",
    "/vendor/lib64/libOpenCL.so",  // Adreno
};
// Results must not depend on the device: a * b + c is two operations, each rounded.
constexpr const char kContraction[] = "#pragma OPENCL FP_CONTRACT OFF\n";

void check(cl_int code, const char* what) {
  if (code != CL_SUCCESS) {
    throw Error(std::string(what) + " gave " + error_name(code) + " (" + std::to_string(code) + ")");
  }
}

Functions load_functions(const Driver& driver) {
  Functions f{};
#define SVIT_NEED(name) driver.need(#name, f.name)
  SVIT_NEED(clGetPlatformIDs);
  SVIT_NEED(clGetDeviceIDs);
  SVIT_NEED(clGetDeviceInfo);
  SVIT_NEED(clCreateContext);
  SVIT_NEED(clReleaseContext);
  SVIT_NEED(clCreateCommandQueue);
  SVIT_NEED(clReleaseCommandQueue);
  SVIT_NEED(clCreateBuffer);
  SVIT_NEED(clCreateSubBuffer);
  SVIT_NEED(clReleaseMemObject);
  SVIT_NEED(clCreateProgramWithSource);
  SVIT_NEED(clBuildProgram);
  SVIT_NEED(clGetProgramBuildInfo);
  SVIT_NEED(clReleaseProgram);
  SVIT_NEED(clCreateKernel);
  SVIT_NEED(clGetKernelInfo);
  SVIT_NEED(clGetKernelWorkGroupInfo);
  SVIT_NEED(clSetKernelArg);
  SVIT_NEED(clReleaseKernel);
  SVIT_NEED(clEnqueueNDRangeKernel);
  SVIT_NEED(clEnqueueWriteBuffer);
  SVIT_NEED(clEnqueueReadBuffer);
  SVIT_NEED(clFinish);
#undef SVIT_NEED
  return f;
}

template <typename T>
T read_number(const Functions& f, cl_device_id device, cl_uint what) {
  T value{};
  check(f.clGetDeviceInfo(device, what, sizeof value, &value, nullptr), "clGetDeviceInfo");
  return value;
}

std::string read_text(const Functions& f, cl_device_id device, cl_uint what) {
  std::size_t bytes = 0;
  check(f.clGetDeviceInfo(device, what, 0, nullptr, &bytes), "clGetDeviceInfo");
  std::string text(bytes, 0);
  check(f.clGetDeviceInfo(device, what, bytes, text.data(), nullptr), "clGetDeviceInfo");
  return one_line(text.c_str());
}

bool is_gpu(const Functions& f, cl_device_id device) {
  const auto type = read_number<cl_bitfield>(f, device, CL_DEVICE_TYPE);
  return (type & (CL_DEVICE_TYPE_GPU | CL_DEVICE_TYPE_ACCELERATOR)) != 0;
}

// Of all platforms, in the driver's order.
std::vector<cl_device_id> list_devices(const Functions& f) {
  std::vector<cl_device_id> devices;
  cl_uint count = 0;
  if (f.clGetPlatformIDs(0, nullptr, &count) != CL_SUCCESS || count == 0) return devices;
  std::vector<cl_platform_id> platforms(count);
  check(f.clGetPlatformIDs(count, platforms.data(), nullptr), "clGetPlatformIDs");
  for (const cl_platform_id platform : platforms) {
    if (f.clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, nullptr, &count) != CL_SUCCESS || count == 0) continue;
    const std::size_t first = devices.size();
    devices.resize(first + count);
    check(f.clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, count, devices.data() + first, nullptr), "clGetDeviceIDs");
  }
  return devices;
}

struct Choice {
  Functions f{};
  cl_device_id device = nullptr;
};

// The first GPU of all libraries, else the first other device if a CPU will do.
Choice choose_device(bool allows_cpu) {
  Choice other;
  std::string searched, found;
  for (const char* name : kLibraries) {
    Driver driver;
    const bool is_there = driver.open(name);
    const bool is_opencl = is_there && driver.find("clGetPlatformIDs");  // Mali's library comes without it, too
    const std::string what = is_there ? std::string(name) + (is_opencl ? ": loaded" : ": no OpenCL") : driver.error();
    searched += (searched.empty() ? "" : "; ") + what;
    if (!is_opencl) continue;
    const Functions f = load_functions(driver);
    for (const cl_device_id device : list_devices(f)) {
      if (is_gpu(f, device)) return {f, device};
      if (!other.device) other = {f, device};
      const std::string text = "'" + read_text(f, device, CL_DEVICE_NAME) + "', which is no GPU";
      if (found.find(text) == std::string::npos) found += (found.empty() ? "" : ", ") + text;
    }
  }
  if (allows_cpu && other.device) return other;
  throw Error(std::string("no OpenCL ") + (allows_cpu ? "device" : "GPU") + ": found " +
              (found.empty() ? "nothing" : found) + ". Looked for libraries: " + searched +
              ". Install the GPU's driver, or build the network for this machine's CPU");
}

// What the driver gives, and the function that takes it back.
template <typename T>
using Owned = std::unique_ptr<T, cl_int (*)(T*)>;

class OpenCl : public Accelerator {
 public:
  OpenCl(const Program& program, const Choice& choice)
      : program_(program), f_(choice.f), id_(choice.device), device_(describe()),
        context_(make_context()), queue_(make_queue()), cl_program_(nullptr, f_.clReleaseProgram) {
    const auto alignment = read_number<cl_uint>(f_, id_, CL_DEVICE_MEM_BASE_ADDR_ALIGN) / 8;
    if (alignment > kGpuAlignment) {
      throw Error("'" + device_.name + "' wants buffers at multiples of " + std::to_string(alignment) +
                  " bytes, this network has them at multiples of " + std::to_string(kGpuAlignment));
    }
    for (std::size_t i = 0; i < program_.tensors.size(); ++i) tensors_.emplace_back(nullptr, f_.clReleaseMemObject);
  }

  ~OpenCl() override { f_.clFinish(queue_.get()); }

  const Device& device() const override { return device_; }

  void allocate(const std::uint64_t (&sizes)[kSpaces]) override {
    const auto most = read_number<cl_ulong>(f_, id_, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
    for (const std::uint64_t bytes : sizes) {
      spaces_.emplace_back(nullptr, f_.clReleaseMemObject);
      if (bytes == 0) continue;
      if (bytes > most) {
        throw Error("'" + device_.name + "' gives at most " + std::to_string(most) + " bytes in one piece, the network " +
                    "wants " + std::to_string(bytes));
      }
      cl_int code = 0;
      spaces_.back().reset(f_.clCreateBuffer(context_.get(), CL_MEM_READ_WRITE, bytes, nullptr, &code));
      check(code, ("clCreateBuffer of " + std::to_string(bytes) + " bytes").c_str());
    }
  }

  void compile(std::string_view kernels) override {
    const std::string head = kContraction + ("#line 1 \"" + program_.target->kernels) + "\"\n";
    const char* texts[] = {head.data(), kernels.data()};
    const std::size_t lengths[] = {head.size(), kernels.size()};
    cl_int code = 0;
    cl_program_.reset(f_.clCreateProgramWithSource(context_.get(), 2, texts, lengths, &code));
    check(code, "clCreateProgramWithSource");
    std::string options = "-cl-std=CL1.2";
    const auto rounding = read_number<cl_bitfield>(f_, id_, CL_DEVICE_SINGLE_FP_CONFIG);
    if ((rounding & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT) != 0) options += " -cl-fp32-correctly-rounded-divide-sqrt";
    code = f_.clBuildProgram(cl_program_.get(), 1, &id_, options.c_str(), nullptr, nullptr);
    if (code == CL_SUCCESS) return;
    throw Error("the driver (" + device_.driver + ") cannot compile " + program_.target->kernels +
                ": clBuildProgram gave " + error_name(code) + ": " + build_log());
  }

  std::size_t bind(const Call& call) override {
    cl_int code = 0;
    Owned<KernelHandle> kernel(f_.clCreateKernel(cl_program_.get(), call.symbol.c_str(), &code), f_.clReleaseKernel);
    if (code != CL_SUCCESS) {
      throw Error("program.txt line " + std::to_string(call.line) + ": " + program_.target->kernels + " has no kernel '" +
                  call.symbol + "': clCreateKernel gave " + error_name(code));
    }
    check_shape(call, kernel.get());
    for (std::size_t i = 0; i < call.arguments.size(); ++i) {
      const cl_mem buffer = view(call.arguments[i]);
      code = f_.clSetKernelArg(kernel.get(), static_cast<cl_uint>(i), sizeof buffer, &buffer);
      if (code != CL_SUCCESS) fail_call(call, std::string("clSetKernelArg gave ") + error_name(code));
    }
    Launch launch{&call, std::move(kernel), {}, {}};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      launch.local[axis] = call.threads[axis];
      launch.global[axis] = std::size_t{call.blocks[axis]} * call.threads[axis];
    }
    launches_.push_back(std::move(launch));
    return launches_.size() - 1;
  }

  unsigned char* host_memory(std::uint64_t bytes) override {
    host_.push_back(Mapping::of_memory("copies from and to the GPU", bytes));
    return host_.back().data();
  }

  void write(Space space, std::uint64_t offset, const void* data, std::uint64_t bytes) override {
    const cl_mem buffer = spaces_[static_cast<std::size_t>(space)].get();
    check(f_.clEnqueueWriteBuffer(queue_.get(), buffer, CL_FALSE, offset, bytes, data, 0, nullptr, nullptr),
          "clEnqueueWriteBuffer");
  }

  void read(Space space, std::uint64_t offset, void* data, std::uint64_t bytes) override {
    const cl_mem buffer = spaces_[static_cast<std::size_t>(space)].get();
    check(f_.clEnqueueReadBuffer(queue_.get(), buffer, CL_FALSE, offset, bytes, data, 0, nullptr, nullptr),
          "clEnqueueReadBuffer");
  }

  void launch(std::size_t number) override {
    const Launch& launch = launches_[number];
    const cl_int code = f_.clEnqueueNDRangeKernel(queue_.get(), launch.kernel.get(), 3, nullptr, launch.global,
                                                  launch.local, 0, nullptr, nullptr);
    if (code != CL_SUCCESS) fail_call(*launch.call, std::string("clEnqueueNDRangeKernel gave ") + error_name(code));
  }

  void wait() override { check(f_.clFinish(queue_.get()), "clFinish"); }

  bool record(const std::function<void()>&) override { return false; }
  void replay() override {}

 private:
  // Arguments are kept by kernel: every launch has a kernel object of its own.
  struct Launch {
    const Call* call;
    Owned<KernelHandle> kernel;
    std::size_t global[3];
    std::size_t local[3];
  };

  Device describe() const {
    return {"opencl", is_gpu(f_, id_) ? "gpu" : "cpu", read_text(f_, id_, CL_DEVICE_NAME),
            read_text(f_, id_, CL_DEVICE_VERSION) + ", driver " + read_text(f_, id_, CL_DRIVER_VERSION)};
  }

  Owned<ContextHandle> make_context() const {
    cl_int code = 0;
    Owned<ContextHandle> context(f_.clCreateContext(nullptr, 1, &id_, nullptr, nullptr, &code), f_.clReleaseContext);
    check(code, "clCreateContext");
    return context;
  }

  // Without properties: in order.
  Owned<QueueHandle> make_queue() const {
    cl_int code = 0;
    Owned<QueueHandle> queue(f_.clCreateCommandQueue(context_.get(), id_, 0, &code), f_.clReleaseCommandQueue);
    check(code, "clCreateCommandQueue");
    return queue;
  }

  std::string build_log() const {
    std::size_t bytes = 0;
    f_.clGetProgramBuildInfo(cl_program_.get(), id_, CL_PROGRAM_BUILD_LOG, 0, nullptr, &bytes);
    std::string log(bytes, 0);
    f_.clGetProgramBuildInfo(cl_program_.get(), id_, CL_PROGRAM_BUILD_LOG, bytes, log.data(), nullptr);
    return one_line(log.c_str());
  }

  // What the driver would otherwise say at the first launch, or not at all.
  void check_shape(const Call& call, cl_kernel kernel) const {
    cl_uint count = 0;
    check(f_.clGetKernelInfo(kernel, CL_KERNEL_NUM_ARGS, sizeof count, &count, nullptr), "clGetKernelInfo");
    if (count != call.arguments.size()) {
      fail_call(call, "it has " + std::to_string(count) + " parameters, program.txt gives it " +
                          std::to_string(call.arguments.size()));
    }
    std::size_t most = 0;
    check(f_.clGetKernelWorkGroupInfo(kernel, id_, CL_KERNEL_WORK_GROUP_SIZE, sizeof most, &most, nullptr),
          "clGetKernelWorkGroupInfo");
    const std::size_t wanted = std::size_t{call.threads[0]} * call.threads[1] * call.threads[2];
    if (wanted > most) {
      fail_call(call, "it wants blocks of " + std::to_string(wanted) + " threads, '" + device_.name + "' has room for " +
                          std::to_string(most));
    }
  }

  cl_mem view(std::size_t id) {
    Owned<MemoryHandle>& buffer = tensors_[id];
    if (buffer) return buffer.get();
    const Tensor& tensor = program_.tensors[id];
    const cl_buffer_region region{tensor.offset, tensor.bytes};
    cl_int code = 0;
    buffer.reset(f_.clCreateSubBuffer(spaces_[static_cast<std::size_t>(tensor.space)].get(), CL_MEM_READ_WRITE,
                                      CL_BUFFER_CREATE_TYPE_REGION, &region, &code));
    check(code, "clCreateSubBuffer");
    return buffer.get();
  }

  const Program& program_;
  const Functions f_;
  const cl_device_id id_;
  const Device device_;
  const Owned<ContextHandle> context_;
  const Owned<QueueHandle> queue_;
  Owned<ProgramHandle> cl_program_;
  std::vector<Mapping> host_;
  std::vector<Owned<MemoryHandle>> spaces_;
  std::vector<Owned<MemoryHandle>> tensors_;  // by id, of those that are arguments
  std::vector<Launch> launches_;
};

}  // namespace

std::unique_ptr<Accelerator> open_opencl(const Program& program) {
  return std::make_unique<OpenCl>(program, choose_device(program.target->allows_cpu));
}

}  // namespace svit
