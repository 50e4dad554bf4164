# cmake/kernels.cmake: C++ files that hold kernels/*.metal, their translation to CUDA, kernels/cuda/*.cu and
# kernels/tuning/*.json. Neither Metal nor CUDA is needed for it, only the C++ compiler and Python.
file(GLOB PERSONAPLEX_KERNELS CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/kernels/*.metal"
     "${PROJECT_SOURCE_DIR}/kernels/cuda/*.cu" "${PROJECT_SOURCE_DIR}/kernels/tuning/*.json")
file(GLOB PERSONAPLEX_CUDA_HEADERS CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/kernels/cuda/*.cuh")
file(GLOB PERSONAPLEX_TRANSLATOR CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tools/metalsim/metalsim/*.py"
     "${PROJECT_SOURCE_DIR}/tools/metalsim/cuda/*.h")
set(PERSONAPLEX_KERNEL_SOURCES "${PROJECT_BINARY_DIR}/kernels/cuda_sources.cpp"
                               "${PROJECT_BINARY_DIR}/kernels/metal_sources.cpp"
                               "${PROJECT_BINARY_DIR}/kernels/tuning_tables.cpp")
add_custom_command(
  OUTPUT ${PERSONAPLEX_KERNEL_SOURCES}
  COMMAND "${Python_EXECUTABLE}" -B "${PROJECT_SOURCE_DIR}/tools/embed_kernels.py" --compiler "${CMAKE_CXX_COMPILER}"
          --out "${PROJECT_BINARY_DIR}/kernels" ${PERSONAPLEX_KERNELS}
  DEPENDS ${PERSONAPLEX_KERNELS} ${PERSONAPLEX_CUDA_HEADERS} ${PERSONAPLEX_TRANSLATOR} "${PROJECT_SOURCE_DIR}/tools/embed_kernels.py"
  COMMENT "Embedding kernels"
  VERBATIM)
# One string is longer than the 64 KiB that the standard promises.
set_source_files_properties(${PERSONAPLEX_KERNEL_SOURCES} PROPERTIES COMPILE_OPTIONS "-Wno-overlength-strings")
