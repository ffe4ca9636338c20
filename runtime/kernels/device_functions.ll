; Functions that TVM's PTX generator expects of CUDA's libdevice, as far as kernels use them, by LLVM's own operations.
target triple = "nvptx64-nvidia-cuda"

declare float @llvm.nearbyint.f32(float)

define float @__nv_nearbyintf(float %x) alwaysinline {
  %rounded = call float @llvm.nearbyint.f32(float %x)
  ret float %rounded
}

declare float @llvm.fma.f32(float, float, float)

define float @__nv_fmaf(float %a, float %b, float %c) alwaysinline {
  %rounded = call float @llvm.fma.f32(float %a, float %b, float %c)
  ret float %rounded
}
