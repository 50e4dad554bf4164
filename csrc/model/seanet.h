// csrc/model/seanet.h: SEANet, the convolutional encoder and decoder of Mimi (24 kHz <-> 25 Hz), two positions a frame.
#pragma once

#include <vector>

#include "model/buffer.h"

namespace personaplex {

/// The input of one streaming convolution, in a conversation's block: carried columns, then the frame's own. [.., in]
/// float32.
struct Window {
  Field<float> values;
  std::size_t carried = 0;  // floats at the front that outlive a frame

  ops::Place in(const ops::Memory& block) const { return values.in(block); }
  ops::Place fresh(const ops::Memory& block) const { return values.in(block, carried); }  // this frame's own columns
};

/// The windows of one half of the codec, in the order of the data.
using Windows = std::vector<Window>;

/// A streaming convolution, transposed or not, with the shape of its window.
struct StreamConv {
  ops::WeightPtr weight;
  int in = 0, out = 0;
  int carried = 0;  // columns
  int stride = 1;   // input columns an output, or output columns an input
  bool transposed = false;

  static StreamConv plain(ops::Ops& ops, const Conv& c, int stride = 1, int dilation = 1);
  static StreamConv transpose(ops::Ops& ops, const Conv& c, int stride);
  /// A window for `count` new columns.
  Window window(BlockLayout& layout, int count) const;
  int outputs(int count) const { return transposed ? count * stride : count / stride; }
};

/// x + conv2(elu(conv1(elu(x)))).
struct Residual {
  StreamConv conv1, conv2;
};

/// One half of SEANet. Every convolution but the first reads elu of what the one before it gives, so producers store
/// elu of their result right into the window of the consumer.
class SeanetHalf {
 public:
  static SeanetHalf encoder(ops::Ops& ops, const Seanet& weights, const MimiConfig& config);
  static SeanetHalf decoder(ops::Ops& ops, const Seanet& weights, const MimiConfig& config);

  /// Windows of a conversation. The first one's fresh() takes the input: [input_columns, in].
  Windows windows(BlockLayout& layout) const;
  /// From windows[0].fresh() in a conversation's block to y [.., out].
  void forward(ops::Ops& ops, const Windows& windows, const ops::Memory& block, ops::Place y) const;

 private:
  struct Stage {  // of the encoder: residuals, then the strided convolution; of the decoder the other way round
    std::vector<Residual> residuals;
    StreamConv resample;
  };
  SeanetHalf(ops::Ops& ops, const Seanet& weights, const MimiConfig& config, bool decodes);
  /// Every convolution in the order of the data, with the new columns that it gets.
  template <typename Visit>
  void for_each(Visit visit) const;

  bool decodes_;
  int input_columns_;
  StreamConv first_, last_;
  std::vector<Stage> stages_;
  Buffer<float> x_;  // the residual stream between convolutions, of any stage
};

}  // namespace personaplex
