# cmake/platform.cmake: stops at once, and says why, where personaplex cannot be built.
if(WIN32)
  message(FATAL_ERROR "personaplex does not run on Windows. Use Linux (WSL 2 counts) or a Mac with Apple silicon.")
endif()
if(APPLE AND NOT CMAKE_OSX_ARCHITECTURES STREQUAL "arm64" AND NOT CMAKE_SYSTEM_PROCESSOR STREQUAL "arm64")
  message(FATAL_ERROR "personaplex needs a Mac with Apple silicon and an arm64 Python; "
                      "this one says ${CMAKE_SYSTEM_PROCESSOR}. MLX does not exist for Intel Macs.")
endif()
