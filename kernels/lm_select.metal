// kernels/lm_select.metal: what one part of a frame makes, among what the host gives to another.
//
// Contract: out[i] = which[i] < 0 ? given[i] : made[which[i]] for words i of n; a copy of given without has_which, where
// buffers 1 and 2 are not read.
// Buffers: 0 given, 4 bytes [n]; 1 which, int32 [n]; 2 made, 4 bytes [as far as which points]; 3 out, 4 bytes [n];
// 4 params.
// Work: a thread a word; grid (ceil(n / threads), 1, 1), any number of threads.
// host_names: select_words
#include <metal_stdlib>
using namespace metal;

struct SelectParams {
  int n;
  int has_which;
};

[[kernel]] void select_words(
    device const uint* given [[buffer(0)]],
    device const int* which [[buffer(1)]],
    device const uint* made [[buffer(2)]],
    device uint* out [[buffer(3)]],
    constant SelectParams& p [[buffer(4)]],
    uint i [[thread_position_in_grid]]) {
  if (i >= uint(p.n)) return;
  const int index = p.has_which != 0 ? which[i] : -1;
  out[i] = index < 0 ? given[i] : made[index];
}
