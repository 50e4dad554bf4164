// csrc/checkpoint/config.h: every size of the model, read from config.json; what is absent is PersonaPlex-7B's value.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace personaplex {

/// Positions that a context may have at most: over nine days, and far from where slot numbers would overflow.
inline constexpr int kMaxContext = 10'000'000;

/// Mimi, Kyutai's neural codec (key names of its constructor arguments).
struct MimiConfig {
  int dimension = 512;  // latent channels D
  int n_filters = 64;
  int n_residual_layers = 1;
  int compress = 2;
  int dilation_base = 2;
  int kernel_size = 7;
  int residual_kernel_size = 3;
  int last_kernel_size = 3;
  std::vector<int> ratios = {8, 6, 5, 4};  // decoder order; the encoder uses them reversed
  int quantizer_dimension = 256;
  int quantizer_n_q = 32;  // levels in the file; only Config::codebooks are used
  int bins = 2048;
  int num_heads = 8;
  int num_layers = 8;
  int dim_feedforward = 2048;
  int context = 250;  // codec transformer window, positions at 25 Hz
  float max_period = 10000.0F;
  int hop_length() const;                                 // samples per latent position: product of ratios (960)
  int frame_samples() const { return 2 * hop_length(); }  // 1920: two positions a frame
};

struct Config {
  // Temporal transformer.
  int dim = 4096;
  int num_heads = 32;
  int num_layers = 32;
  double hidden_scale = 4.125;
  int n_q = 16;    // audio streams: n_q / 2 of the agent, then n_q / 2 of the user
  int dep_q = 16;  // depformer steps that the file holds: n_q / 2 or n_q
  int card = 2048;
  int text_card = 32000;
  int context = 3000;
  float max_period = 10000.0F;
  std::vector<int> delays = {0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1};
  int text_padding_id = 3;  // existing_text_padding_id
  // Depformer.
  int depformer_dim = 1024;
  int depformer_num_heads = 16;
  int depformer_num_layers = 6;
  int depformer_dim_feedforward = 4224;  // null in the file means int(hidden_scale * depformer_dim)
  // Prompt.
  std::vector<int> silence_codes = {948, 243, 1178, 546, 1736, 1030, 1978, 2008};  // agent, [n_q / 2]
  std::vector<int> sine_codes = {430, 1268, 381, 1611, 1095, 1495, 56, 472};       // user, [n_q / 2]
  int spacer_frames = 6;                                                           // int(0.5 s * 12.5)
  MimiConfig mimi;
  // Quantization that the file already has ("quantization" section of the MLX layout); 16 = none.
  int file_bits = 16;
  int file_group_size = 64;
  std::vector<std::string> quantized_components;

  int codebooks() const { return n_q / 2; }  // Q: codebooks of the agent, and of the user
  int rows() const { return n_q + 1; }       // grid rows: text, agent Q, user Q
  int head_dim() const { return dim / num_heads; }
  int ffn_hidden() const;            // 2 * F / 3 with F = int(hidden_scale * dim); 21 * dim / 8 where F is 4 * dim
  int depformer_ffn_hidden() const;  // the same with F = depformer_dim_feedforward, dim = depformer_dim
  int depformer_head_dim() const { return depformer_dim / depformer_num_heads; }
  int max_delay() const;
};

/// Parses the text of a config.json. Throws WeightsError naming every wrong key at once (`where` is the file's path).
/// Unknown keys are ignored. An empty object gives PersonaPlex-7B.
Config parse_config(const std::string& json_text, const std::string& where);

/// Throws WeightsError when the sizes contradict each other (odd n_q, dim % num_heads, delays of the wrong length...).
void validate_config(const Config& config, const std::string& where);

/// The shape of a named random model: "7b" is Config{}, "tiny" a few million parameters. std::invalid_argument
/// otherwise.
Config random_config(const std::string& preset);

}  // namespace personaplex
