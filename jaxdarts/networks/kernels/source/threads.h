// How work is divided among XLA's threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
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
