// csrc/bindings/handles.h: sessions and snapshots as Python holds them.
//
// Their device memory must be freed on the model's thread, but the last reference to the model must not be dropped
// there (its destructor waits for that thread). So a handle moves the state into a task and lets go of the rest itself.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "core/error.h"
#include "session/session.h"

namespace personaplex::bindings {

/// Frees what `resident` holds, on its model's thread; in a forked child the memory is left alone instead.
template <typename T>
void let_go(std::shared_ptr<T>& resident, Worker& worker) {
  if (worker.here()) {
    worker.post([state = resident->take()]() mutable { state.reset(); });
  } else {
    (void)new std::shared_ptr<T>(resident);
  }
  resident.reset();
}

/// A session, for one caller at a time.
class SessionHandle {
 public:
  explicit SessionHandle(std::shared_ptr<Session> session) : session_(std::move(session)) {}
  ~SessionHandle() { close(); }
  SessionHandle(const SessionHandle&) = delete;
  SessionHandle& operator=(const SessionHandle&) = delete;

  void close() {
    if (!session_) return;
    const auto model = session_->model();
    let_go(session_, model->worker());
  }

  Session& get(const char* where) const {
    if (!session_) throw StreamError("[" + std::string(where) + "] the session is closed.");
    session_->model()->check(where);
    return *session_;
  }
  bool open() const { return session_ != nullptr; }

 private:
  friend class Claim;
  std::shared_ptr<Session> session_;
  std::atomic<bool> busy_{false};
};

/// Claims a session for one call.
class Claim {
 public:
  Claim(SessionHandle& handle, const char* where) : handle_(handle) {
    if (handle_.busy_.exchange(true)) {
      throw StreamError("[" + std::string(where) +
                        "] this session is in use by another thread. Give every thread its own session (clone()).");
    }
  }
  ~Claim() { handle_.busy_ = false; }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

 private:
  SessionHandle& handle_;
};

class SnapshotHandle {
 public:
  explicit SnapshotHandle(std::shared_ptr<Snapshot> snapshot) : snapshot_(std::move(snapshot)) {}
  ~SnapshotHandle() {
    const auto model = snapshot_->model;
    let_go(snapshot_, model->worker());
  }
  SnapshotHandle(const SnapshotHandle&) = delete;
  SnapshotHandle& operator=(const SnapshotHandle&) = delete;
  Snapshot& operator*() const { return *snapshot_; }

 private:
  std::shared_ptr<Snapshot> snapshot_;
};

}  // namespace personaplex::bindings
