# cmake/dependencies.cmake: MLX and nanobind as installed in the Python environment that builds, and doctest.
set(PERSONAPLEX_PYTHON_PARTS Interpreter)
if(PERSONAPLEX_MODULE)
  list(APPEND PERSONAPLEX_PYTHON_PARTS Development.Module)
endif()
find_package(Python 3.10 COMPONENTS ${PERSONAPLEX_PYTHON_PARTS} REQUIRED)

# The module is bound to this MLX's C++ ABI, so the version is exact, here as in pyproject.toml.
set(PERSONAPLEX_MLX_VERSION 0.32.4)
execute_process(
  COMMAND "${Python_EXECUTABLE}" -m mlx --cmake-dir
  OUTPUT_VARIABLE MLX_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE
  RESULT_VARIABLE MLX_MISSING ERROR_QUIET)
if(MLX_MISSING)
  message(FATAL_ERROR "${Python_EXECUTABLE} has no mlx ${PERSONAPLEX_MLX_VERSION}. "
                      "Install it with: pip install 'mlx[cpu]==${PERSONAPLEX_MLX_VERSION}'")
endif()
find_package(MLX ${PERSONAPLEX_MLX_VERSION} EXACT CONFIG REQUIRED)

if(PERSONAPLEX_MODULE)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -m nanobind --cmake_dir
    OUTPUT_VARIABLE nanobind_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE)
  find_package(nanobind 3.1.0 EXACT CONFIG REQUIRED)
endif()

if(PERSONAPLEX_TESTS)
  find_package(doctest CONFIG REQUIRED)
endif()
