// csrc/gpu/self_check.h: whether a GPU computes what the CPU computes, asked before a model trusts it.
#pragma once

#include <string>

#include "gpu/queue.h"

namespace personaplex::gpu {

/// Runs small operations of every kind, of ragged sizes, on the queue and on the CPU: some tenths of a second once the
/// kernels are compiled. Why the GPU cannot be trusted, as the end of a sentence; empty: their results agree.
std::string self_check(Queue& queue);

}  // namespace personaplex::gpu
