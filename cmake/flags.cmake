# cmake/flags.cmake: strict warnings for our own sources, and sanitizers for everything when asked for.
add_library(personaplex_warnings INTERFACE)
target_compile_options(personaplex_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
                       -Wno-sign-conversion)  # which clang would add and g++ does not
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(personaplex_warnings INTERFACE -Wno-restrict)  # false in g++ 12: GCC bug 105651
endif()
if(PERSONAPLEX_WERROR)
  target_compile_options(personaplex_warnings INTERFACE -Werror)
endif()

if(PERSONAPLEX_SANITIZE)
  add_compile_options(-fsanitize=${PERSONAPLEX_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${PERSONAPLEX_SANITIZE})
endif()
