// csrc/cpu/simd_target.h: from a line of source on, functions are compiled for an instruction set; see simd.h.
#pragma once

#define PERSONAPLEX_INLINE inline __attribute__((always_inline))

#define PERSONAPLEX_PRAGMA(text) _Pragma(#text)

#if defined(__clang__)
#define PERSONAPLEX_TARGET_PUSH(features) \
  PERSONAPLEX_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define PERSONAPLEX_TARGET_POP PERSONAPLEX_PRAGMA(clang attribute pop)
#else
#define PERSONAPLEX_TARGET_PUSH(features) \
  PERSONAPLEX_PRAGMA(GCC push_options)    \
  PERSONAPLEX_PRAGMA(GCC target(features))
#define PERSONAPLEX_TARGET_POP PERSONAPLEX_PRAGMA(GCC pop_options)
#endif
