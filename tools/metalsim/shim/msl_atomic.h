// tools/metalsim/shim/msl_atomic.h: MSL's atomic types and functions, relaxed, as all of MSL's are.
#pragma once
#include "msl_types.h"

namespace metal {

enum memory_order { memory_order_relaxed = 0 };
template <class T>
struct atomic {
  T v;
};
typedef atomic<uint> atomic_uint;
typedef atomic<int> atomic_int;
typedef atomic<float> atomic_float;
typedef atomic<bool> atomic_bool;

#if !MSL_STRICT_AS
template <class T>
inline T atomic_load_explicit(const volatile atomic<T>* a, memory_order) {
  T value;
  __atomic_load(&a->v, &value, __ATOMIC_RELAXED);
  return value;
}
template <class T, class U>
inline void atomic_store_explicit(volatile atomic<T>* a, U x, memory_order) {
  T value = (T)x;
  __atomic_store(&a->v, &value, __ATOMIC_RELAXED);
}
template <class T, class U>
inline T atomic_exchange_explicit(volatile atomic<T>* a, U x, memory_order) {
  T value = (T)x, before;
  __atomic_exchange(&a->v, &value, &before, __ATOMIC_RELAXED);
  return before;
}
template <class T, class U>
inline bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* a, T* expected, U x, memory_order, memory_order) {
  T value = (T)x;
  return __atomic_compare_exchange(&a->v, expected, &value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}
#define MSL_FETCH(name, expression)                                                                 \
  template <class T, class U>                                                                       \
  inline T atomic_fetch_##name##_explicit(volatile atomic<T>* a, U operand, memory_order) {         \
    T x = (T)operand, o, n;                                                                         \
    __atomic_load(&a->v, &o, __ATOMIC_RELAXED);                                                     \
    do {                                                                                            \
      n = (T)(expression);                                                                          \
    } while (!__atomic_compare_exchange(&a->v, &o, &n, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)); \
    return o;                                                                                       \
  }
MSL_FETCH(add, o + x)
MSL_FETCH(sub, o - x)
MSL_FETCH(min, o < x ? o : x)
MSL_FETCH(max, o < x ? x : o)
MSL_FETCH(and, o& x)
MSL_FETCH(or, o | x)
MSL_FETCH(xor, o ^ x)
#else  // declarations are enough for a type check
#define MSL_ATOMICS_IN(space)                                             \
  template <class T>                                                      \
  T atomic_load_explicit(const volatile space atomic<T>*, memory_order);  \
  template <class T, class U>                                             \
  void atomic_store_explicit(volatile space atomic<T>*, U, memory_order); \
  template <class T, class U>                                             \
  T atomic_exchange_explicit(volatile space atomic<T>*, U, memory_order); \
  template <class T, class U>                                             \
  bool atomic_compare_exchange_weak_explicit(volatile space atomic<T>*, T*, U, memory_order, memory_order);
#define MSL_FETCH(name)                                                          \
  template <class T, class U>                                                    \
  T atomic_fetch_##name##_explicit(volatile device atomic<T>*, U, memory_order); \
  template <class T, class U>                                                    \
  T atomic_fetch_##name##_explicit(volatile threadgroup atomic<T>*, U, memory_order);
MSL_ATOMICS_IN(device)
MSL_ATOMICS_IN(threadgroup)
MSL_FETCH(add)
MSL_FETCH(sub)
MSL_FETCH(min)
MSL_FETCH(max)
MSL_FETCH(and)
MSL_FETCH(or)
MSL_FETCH(xor)
#endif

}  // namespace metal
