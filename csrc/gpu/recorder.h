// csrc/gpu/recorder.h: dispatches of a run as they come, each with a barrier where it touches what those since the last
// barrier have written, or writes what they have touched.
#pragma once

#include <cstring>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <vector>

#include "gpu/queue.h"

namespace personaplex::gpu {

/// `bytes` from a place on, as a kernel uses them.
struct Operand {
  ops::Place at;
  std::size_t bytes = 0;
  bool written = false;
  std::size_t within = 0;  // of what is reached through the addresses at `at`: where in each such memory it begins
};
inline Operand reads(ops::Place at, std::size_t bytes) { return {at, bytes, false, 0}; }
inline Operand writes(ops::Place at, std::size_t bytes) { return {at, bytes, true, 0}; }

class Recorder {
 public:
  /// Places in the memory `state` become the block of whichever conversation a list is run for.
  void begin(const ops::Memory* state);

  /// `reached`: what the kernel touches besides its buffers, through addresses: the page tables stand for the pages.
  template <typename Params>
  void add(const std::string& kernel, std::initializer_list<Operand> operands, const Params& params,
           std::initializer_list<std::uint32_t> groups, std::uint32_t threads,
           std::initializer_list<Operand> reached = {}) {
    static_assert(std::is_trivially_copyable_v<Params>);
    Dispatch& d = dispatches_.emplace_back();
    kernels_.push_back(kernel);
    d.params.resize(sizeof params);
    std::memcpy(d.params.data(), &params, sizeof params);
    std::size_t axis = 0;
    for (const std::uint32_t n : groups) d.groups[axis++] = n;
    d.threads = threads;
    place(d, operands, reached);
  }

  /// What is added from here on is of this lane, see Dispatch. Lane 2 follows lane 1, lane 0 lane 2: then
  /// std::logic_error where one has written what the other touches.
  void begin_lane(int lane);
  int lane() const { return lane_; }

  /// The dispatches, with kernels of this queue.
  std::vector<Dispatch> take(Queue& queue);

 private:
  void place(Dispatch& d, std::initializer_list<Operand> operands, std::initializer_list<Operand> reached);

  struct Touch {
    Operand operand;
    bool through_address;  // of another space than what is bound
  };
  static bool conflicts(const std::vector<Touch>& touched, const Operand& operand, bool through_address);
  const ops::Memory* state_ = nullptr;
  std::vector<Dispatch> dispatches_;
  std::vector<std::string> kernels_;  // of each
  std::vector<Touch> touched_;        // since the last barrier
  int lane_ = 0;
  bool lane_begins_ = false;
  std::vector<Touch> of_lanes_[2];  // all that lanes 1 and 2 have touched
};

}  // namespace personaplex::gpu
