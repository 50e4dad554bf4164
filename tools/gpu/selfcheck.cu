// tools/gpu/selfcheck.cu: kernels of cuda_selfcheck.cpp, as they are in a translated .metal file: buffers, then a
// struct by value. The `extern "C" __global__` functions that call them are in cuda_selfcheck.cpp.

struct AxpyParams {
  int n;
  float a, b;
};

/// y = b * y + a * x
void axpy_body(const float* x, float* y, const AxpyParams p) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < p.n) y[i] = p.b * y[i] + p.a * x[i];
}

struct SumParams {
  int n;
};

template <typename T>
T warp_sum(T v) {  // device code without a mark, as helpers of the kernels may be
  for (int m = 16; m > 0; m >>= 1) v += __shfl_xor_sync(0xffffffffu, v, m);
  return v;
}

/// out[0] = sum of x, by one block.
template <typename T>
void sum(const T* x, T* out, const SumParams p) {
  __shared__ T partial[32];
  T v = 0;
  for (int i = threadIdx.x; i < p.n; i += blockDim.x) v += x[i];
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x < 32) {
    v = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : T(0);
    v = warp_sum(v);
    if (threadIdx.x == 0) out[0] = v;
  }
}

struct ReadParams {
  int words;  // uint4, of each block
};

/// Reads everything once: out[block] = xor of its words.
void read_all_body(const uint4* x, unsigned* out, const ReadParams p) {
  const uint4* from = x + size_t(blockIdx.x) * p.words;
  unsigned v = 0;
#pragma unroll 4
  for (int i = threadIdx.x; i < p.words; i += blockDim.x) {
    const uint4 w = from[i];
    v ^= w.x ^ w.y ^ w.z ^ w.w;
  }
  for (int m = 16; m > 0; m >>= 1) v ^= __shfl_xor_sync(0xffffffffu, v, m);
  if (threadIdx.x == 0) out[blockIdx.x] = 0;
  __syncthreads();
  if (threadIdx.x % 32 == 0) atomicXor(out + blockIdx.x, v);
}

/// Follows a pointer that leads nowhere.
void fault_body(float* const* table) { *table[0] = 1; }
