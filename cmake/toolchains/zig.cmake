# Cross-compiles with the zig of the PyPI package ziglang. A toolchain file sets SVIT_TRIPLE and CMAKE_SYSTEM_PROCESSOR first.
set(CMAKE_SYSTEM_NAME Linux)
set(SVIT_GLIBC 2.27)  # JetPack 4 is Ubuntu 18.04

# zig is asked of Python3_EXECUTABLE (default: python3), or given as SVIT_ZIG. try_compile runs this file again.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SVIT_ZIG)
if(NOT SVIT_ZIG)
  if(NOT Python3_EXECUTABLE)
    set(Python3_EXECUTABLE python3)
  endif()
  execute_process(
    COMMAND "${Python3_EXECUTABLE}" -c "import pathlib, ziglang; \
print(pathlib.Path(ziglang.__file__).parent / 'zig', end='')"
    OUTPUT_VARIABLE zig RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "${Python3_EXECUTABLE} has no ziglang: pip install ziglang, or set Python3_EXECUTABLE or SVIT_ZIG")
  endif()
  set(SVIT_ZIG "${zig}" CACHE FILEPATH "the zig program")
endif()

if(SVIT_TRIPLE MATCHES "gnu$")
  set(SVIT_TARGET ${SVIT_TRIPLE}.${SVIT_GLIBC})
else()
  set(SVIT_TARGET ${SVIT_TRIPLE})
endif()
set(CMAKE_C_COMPILER "${SVIT_ZIG}" cc -target ${SVIT_TARGET})
set(CMAKE_CXX_COMPILER "${SVIT_ZIG}" c++ -target ${SVIT_TARGET})
foreach(language C CXX)  # an ar of the system may be missing, or not know the target
  set(CMAKE_${language}_ARCHIVE_CREATE "\"${SVIT_ZIG}\" ar qcD <TARGET> <OBJECTS>")
  set(CMAKE_${language}_ARCHIVE_FINISH "\"${SVIT_ZIG}\" ranlib -D <TARGET>")
endforeach()
# Also for CMake's own checks: without it they have zig build an unoptimized C++ library first, which takes a minute.
set(CMAKE_C_FLAGS_INIT -O2)
set(CMAKE_CXX_FLAGS_INIT -O2)
