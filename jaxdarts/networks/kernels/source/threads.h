// How work is divided among XLA's threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace jaxdarts {

// work(unit) for every unit, each by one thread: results don't depend on how many threads there are. The calling thread
// takes part, and waits for units that others have begun, never for threads of the pool, which may all be taken.
template <class F>
void parallel(const xla::ffi::ThreadPool& threads, int64_t units, const F& work) {
  struct Shared {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  const int64_t helpers = std::min<int64_t>(units, threads.num_threads()) - 1;
  if (helpers < 1) {
    for (int64_t unit = 0; unit < units; ++unit) work(unit);
    return;
  }
  auto shared = std::make_shared<Shared>();  // helpers that come late read it after this function's return
  auto take = [shared, units, &work] {
    int64_t unit;
    while ((unit = shared->next.fetch_add(1)) < units) {
      work(unit);
      if (shared->done.fetch_add(1) + 1 == units) {
        std::lock_guard<std::mutex> lock(shared->mutex);
        shared->finished.notify_all();
      }
    }
  };
  xla::ffi::ThreadPool pool = threads;
  for (int64_t helper = 0; helper < helpers; ++helper) pool.Schedule(decltype(take)(take));
  take();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done.load() == units; });
}

// Threads that stay for a call of many short pieces of work, one after the other, and look for the next one awake: to be
// woken takes as long as such a piece. The calling thread takes part, and waits for units that others have begun, never
// for threads of the pool. Others on the machine go before those that wait.
class Team {
 public:
  explicit Team(const xla::ffi::ThreadPool& threads, int64_t most) : shared_(std::make_shared<Shared>()) {
    xla::ffi::ThreadPool pool = threads;
    for (int64_t helper = 1; helper < std::min<int64_t>(most, threads.num_threads()); ++helper)
      pool.Schedule([shared = shared_] { help(*shared); });
  }
  ~Team() { shared_->ticket.store(kEnd); }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  // work(unit) for every unit, each by one thread: results don't depend on how many threads there are.
  template <class F>
  void parallel(int64_t units, const F& work) {
    Shared& shared = *shared_;
    shared.call.store([](const void* work, int64_t unit) { (*static_cast<const F*>(work))(unit); });
    shared.work.store(&work);
    shared.done.store(0);
    shared.ticket.store(++count_ << 32 | static_cast<uint64_t>(units));
    while (take(shared)) {}
    for (int64_t tries = 0; shared.done.load() != units; ++tries) pause(tries);
  }

 private:
  // The number of the piece, and how many of its units nobody has taken: so who comes late takes none of another's.
  static constexpr uint64_t kEnd = ~uint64_t(0);
  struct Shared {
    std::atomic<uint64_t> ticket{0};
    std::atomic<int64_t> done{0};
    std::atomic<void (*)(const void*, int64_t)> call{nullptr};
    std::atomic<const void*> work{nullptr};
  };

  static bool take(Shared& shared) {
    uint64_t ticket = shared.ticket.load();
    while (ticket != kEnd && (ticket & 0xffffffff) != 0) {
      const auto call = shared.call.load();
      const void* work = shared.work.load();
      if (!shared.ticket.compare_exchange_weak(ticket, ticket - 1)) continue;
      call(work, static_cast<int64_t>((ticket & 0xffffffff) - 1));
      shared.done.fetch_add(1);
      return true;
    }
    return false;
  }

  static void help(Shared& shared) {
    for (int64_t tries = 0; shared.ticket.load() != kEnd; ++tries)
      if (take(shared)) tries = 0;
      else pause(tries);
  }

  static void pause(int64_t tries) {
    if (tries > 1000) std::this_thread::yield();
  }

  std::shared_ptr<Shared> shared_;
  uint64_t count_ = 0;
};

// Room for intermediate values, kept by the thread for the next call; it begins with a cache line.
template <class T>
T* scratch(int slot, int64_t count) {
  struct Free {
    void operator()(T* room) const { ::operator delete(room, std::align_val_t(64)); }
  };
  struct Room {
    std::unique_ptr<T, Free> first;
    int64_t count = 0;
  };
  thread_local std::vector<Room> rooms(16);
  Room& room = rooms[slot];
  if (room.count < count) {
    room.first.reset();
    room.first.reset(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(64))));
    room.count = count;
  }
  return room.first.get();
}

// A part of the work on a row, which begins when the part before has ended: units that any thread may take.
struct Stage {
  int64_t units;
  std::function<void(int64_t row, int64_t unit)> work;
};

// Whether a row's stages are left to one thread, so that what lies between stays in its cache.
inline bool by_rows(const xla::ffi::ThreadPool& threads, int64_t rows) { return rows >= threads.num_threads(); }

// All stages of all rows.
inline void in_stages(const xla::ffi::ThreadPool& threads, int64_t rows, const std::vector<Stage>& stages) {
  if (by_rows(threads, rows)) {
    parallel(threads, rows, [&](int64_t row) {
      for (const Stage& stage : stages)
        for (int64_t unit = 0; unit < stage.units; ++unit) stage.work(row, unit);
    });
    return;
  }
  for (const Stage& stage : stages)
    parallel(threads, rows * stage.units, [&](int64_t unit) { stage.work(unit / stage.units, unit % stage.units); });
}

// Room for a row's intermediate values: the thread's own where rows are left to threads, otherwise one a row.
template <class T>
struct Rooms {
  int slot;
  int64_t count;
  T* all;
  Rooms(const xla::ffi::ThreadPool& threads, int64_t rows, int slot, int64_t count, bool apart = false)
      : slot(slot), count(count), all(apart || !by_rows(threads, rows) ? scratch<T>(slot, rows * count) : nullptr) {}
  T* of(int64_t row) const { return all ? all + row * count : scratch<T>(slot, count); }
};

}  // namespace jaxdarts
