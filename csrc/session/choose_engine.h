// csrc/session/choose_engine.h: which engine runs a model: what was asked for, what fits, and why not.
#pragma once

#include <memory>
#include <string>

#include "checkpoint/weights.h"
#include "engine/engine.h"
#include "session/device.h"
#include "session/model.h"

namespace personaplex {

/// Throws std::invalid_argument for options that contradict each other, before a device is opened.
void check_engine_options(const ModelOptions& options);

/// The same for options that would be lost on this device, before anything is loaded.
void check_device_fits(const ModelOptions& options, const Device& device);

/// The engine that `options` ask for; "auto" is the fused one where it can run these weights. Takes the device's queue;
/// `device` is then where the engine runs. Fills in what `info` says of the engine. WeightsError when the fused one is
/// asked for and cannot; DeviceError when a GPU's memory does not hold the model. On the model's thread.
std::unique_ptr<Engine> choose_engine(const Weights& weights, const ModelOptions& options, Device& device,
                                      ModelInfo& info);

}  // namespace personaplex
