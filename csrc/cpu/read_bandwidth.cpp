// csrc/cpu/read_bandwidth.cpp: loops that do nothing but read. Which one is fastest depends on the machine.
#include "cpu/read_bandwidth.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>

#include "core/stopwatch.h"
#include "cpu/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace personaplex::cpu {

namespace {

// A chunk of the pool: large enough that joining costs nothing, small enough that no thread waits for another.
constexpr std::size_t kChunk = std::size_t{2} << 20;
// Read ahead by this much; the hardware's own prefetchers stop at the end of a page of 4096.
[[maybe_unused]] constexpr std::size_t kAhead = 4096;

/// Returns something that depends on every byte, so that nothing is optimized away.
using Read = std::uint64_t (*)(const std::byte* p, std::size_t bytes);

std::uint64_t read_words(const std::byte* p, std::size_t bytes) {
  std::uint64_t sum[8] = {};
  for (std::size_t i = 0; i < bytes; i += sizeof sum) {
    std::uint64_t words[8];
    std::memcpy(words, p + i, sizeof words);
    for (int j = 0; j < 8; ++j) sum[j] += words[j];
  }
  return sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
}

#if defined(__x86_64__)

template <bool Prefetch>
__attribute__((target("avx2"))) std::uint64_t read_avx2(const std::byte* p, std::size_t bytes) {
  __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
  for (std::size_t i = 0; i < bytes; i += 128) {
    if constexpr (Prefetch) {
      _mm_prefetch(reinterpret_cast<const char*>(p + i + kAhead), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(p + i + kAhead + 64), _MM_HINT_T0);
    }
    for (std::size_t j = 0; j < 4; ++j) {
      sum[j] = _mm256_add_epi64(sum[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(p + i + 32 * j)));
    }
  }
  const __m256i all = _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
  return static_cast<std::uint64_t>(_mm256_extract_epi64(all, 0) + _mm256_extract_epi64(all, 1) +
                                    _mm256_extract_epi64(all, 2) + _mm256_extract_epi64(all, 3));
}

template <bool Prefetch>
__attribute__((target("avx512f"))) std::uint64_t read_avx512(const std::byte* p, std::size_t bytes) {
  __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
  for (std::size_t i = 0; i < bytes; i += 256) {
    for (std::size_t j = 0; j < 4; ++j) {
      if constexpr (Prefetch) _mm_prefetch(reinterpret_cast<const char*>(p + i + kAhead + 64 * j), _MM_HINT_T0);
      sum[j] = _mm512_add_epi64(sum[j], _mm512_load_si512(p + i + 64 * j));
    }
  }
  const __m512i all = _mm512_add_epi64(_mm512_add_epi64(sum[0], sum[1]), _mm512_add_epi64(sum[2], sum[3]));
  alignas(64) std::uint64_t words[8];
  _mm512_store_si512(words, all);
  return words[0] + words[1] + words[2] + words[3] + words[4] + words[5] + words[6] + words[7];
}

/// Four places at once: more pages are open, and each core's prefetcher follows several streams.
__attribute__((target("avx512f"))) std::uint64_t read_avx512_streams(const std::byte* p, std::size_t bytes) {
  const std::size_t quarter = bytes / 4;
  __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
  for (std::size_t i = 0; i < quarter; i += 64) {
    for (std::size_t j = 0; j < 4; ++j) {
      _mm_prefetch(reinterpret_cast<const char*>(p + j * quarter + i + 1024), _MM_HINT_T0);
      sum[j] = _mm512_add_epi64(sum[j], _mm512_load_si512(p + j * quarter + i));
    }
  }
  const __m512i all = _mm512_add_epi64(_mm512_add_epi64(sum[0], sum[1]), _mm512_add_epi64(sum[2], sum[3]));
  alignas(64) std::uint64_t words[8];
  _mm512_store_si512(words, all);
  return words[0] + words[1] + words[2] + words[3] + words[4] + words[5] + words[6] + words[7];
}

#endif

std::map<std::string, Read> readers() {
  std::map<std::string, Read> out = {{"words", read_words}};
#if defined(__x86_64__)
  if (supported(Isa::kAvx2)) {
    out["avx2"] = read_avx2<false>;
    out["avx2, prefetching"] = read_avx2<true>;
  }
  if (supported(Isa::kAvx512Vnni) || supported(Isa::kAvx512Bf16)) {
    out["avx512"] = read_avx512<false>;
    out["avx512, prefetching"] = read_avx512<true>;
    out["avx512, four streams"] = read_avx512_streams;
  }
#endif
  return out;
}

/// Memory of its own pages, large ones where the system gives them; what is prefetched past its end is there too.
class Pages {
 public:
  explicit Pages(std::size_t bytes) : bytes_(bytes + kChunk) {
    void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<std::byte*>(p);
#if defined(MADV_HUGEPAGE)
    madvise(data_, bytes_, MADV_HUGEPAGE);
#endif
  }
  ~Pages() { munmap(data_, bytes_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  std::byte* data() const { return data_; }

 private:
  std::byte* data_;
  std::size_t bytes_;
};

}  // namespace

std::map<std::string, std::vector<double>> read_bandwidth(Pool& pool, std::size_t bytes, int passes) {
  const auto chunks = static_cast<int>((bytes + kChunk - 1) / kChunk);
  const std::size_t size = static_cast<std::size_t>(chunks) * kChunk;
  const Pages pages(size + kAhead);
  const Pool::Step step(pool);
  const auto at = [&](int chunk) { return pages.data() + static_cast<std::size_t>(chunk) * kChunk; };
  pool.run(chunks, [&](int chunk) { std::memset(at(chunk), 1, kChunk); });
  std::atomic<std::uint64_t> sink{0};
  std::map<std::string, std::vector<double>> out;
  for (int pass = 0; pass < passes; ++pass) {
    for (const auto& [name, read] : readers()) {
      const Stopwatch stopwatch;
      pool.run(chunks, [&, of_chunk = read](int chunk) { sink += of_chunk(at(chunk), kChunk); });
      out[name].push_back(static_cast<double>(size) / 1e6 / stopwatch.ms());
    }
  }
  return out;
}

}  // namespace personaplex::cpu
