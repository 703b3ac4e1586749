// 3x3 pools, each followed by batch normalisation, and the reverse. A channel is computed by one thread.
//
// Given x a pool is linear: the mean of the positions inside the image, or the value at the first of the largest.
// Axes: C channels, H height, W width, B batch.

#include <limits>

#include "normalise.h"
#include "threads.h"
#include "window.h"

namespace ffi = xla::ffi;

namespace jaxdarts {
namespace {

constexpr int kTaps = 9;

// How many of the taps are inside the image, along one axis.
int64_t inside(int64_t output, int64_t stride, int64_t length) {
  const int64_t middle = output * stride;
  return std::min(middle + 1, length - 1) - std::max<int64_t>(middle - 1, 0) + 1;
}

// Divides by how many positions the mean is of.
template <class T>
void divide(const Window& s, T* row, int64_t h) {
  for (int64_t w = 0; w < s.out_width; ++w) {
    const T share = T(1) / static_cast<T>(inside(h, s.stride, s.height) * inside(w, s.stride, s.width));
    for (int64_t t = 0; t < s.batch; ++t) row[w * s.batch + t] *= share;
  }
}

template <class T>
struct Taps {
  const T* from[kTaps];
  Taps(const Window& s, const T* plane, int64_t h) {
    for (int tap = 0; tap < kTaps; ++tap) from[tap] = plane + s.tap(h, tap / 3, tap % 3);
  }
};

enum Slot { kPlane, kValues, kOut, kBack, kRoom };

// A padded image of x whose margins are `margin`.
template <class T>
T* padded(const Window& s, const T* x, T margin, Slot slot) {
  T* plane = scratch<T>(slot, s.plane);
  pad<T>(s, plane, x, nullptr, margin);
  return plane;
}

constexpr double kLow = -std::numeric_limits<double>::infinity();

// The pool of `values` [H, W, B], as x directs it: [H', W', B]. They are x, or its tangent.
template <class T>
void pool(const Window& s, T* to, const T* x, const T* values, bool largest) {
  const T* plane = largest ? padded<T>(s, x, static_cast<T>(kLow), kPlane) : nullptr;
  const T* read = largest && values == x ? plane : padded<T>(s, values, 0, kValues);
  const int64_t n = s.out_width * s.batch;
  for (int64_t h = 0; h < s.out_height; ++h) {
    const Taps<T> taps(s, read, h);
    if (largest) {
      const Taps<T> order(s, plane, h);
      each(to + h * n, n, [&](int64_t t, auto kind) {
        auto most = at(order.from[0] + t, kind), found = at(taps.from[0] + t, kind);
        for (int tap = 1; tap < kTaps; ++tap) {
          const auto other = at(order.from[tap] + t, kind);
          found = other > most ? at(taps.from[tap] + t, kind) : found;
          most = other > most ? other : most;
        }
        return found;
      });
    } else {
      const T ones[kTaps] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
      combine<T>(to + h * n, nullptr, n, taps.from, ones, kTaps);
      divide(s, to + h * n, h);
    }
  }
}

// The transpose: what x gets of derivatives [H', W', B], which are overwritten.
template <class T>
void pool_back(const Window& s, T* to, const T* x, T* derivatives, bool largest) {
  const int64_t n = s.out_width * s.batch;
  if (!largest) {
    T* back = scratch<T>(kBack, s.out_height * padded_row(s));
    clear_margins(s, back, s.out_height);
    for (int64_t h = 0; h < s.out_height; ++h) {
      divide(s, derivatives + h * n, h);
      std::copy_n(derivatives + h * n, n, back + h * padded_row(s) + before(s) * s.batch);
    }
    const T ones[kTaps] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    input_back<T>(s, to, nullptr, {{back, ones}}, scratch<T>(kRoom, s.columns * s.batch));
    return;
  }
  const T* plane = padded<T>(s, x, static_cast<T>(kLow), kPlane);
  T* sums = scratch<T>(kBack, s.plane);
  std::fill_n(sums, s.plane, T(0));
  for (int64_t h = 0; h < s.out_height; ++h) {
    const Taps<T> order(s, plane, h);
    T* row = derivatives + h * n;
    // Each tap takes what is its own, the first of the largest.
    each(scratch<T>(kRoom, n), n, [&](int64_t t, auto kind) {
      auto most = at(order.from[0] + t, kind);
      for (int tap = 1; tap < kTaps; ++tap) {
        const auto other = at(order.from[tap] + t, kind);
        most = other > most ? other : most;
      }
      auto left = at(row + t, kind);
      for (int tap = 0; tap < kTaps; ++tap) {
        const auto here = at(order.from[tap] + t, kind);
        T* place = sums + (order.from[tap] - plane) + t;
        const auto own = here == most ? left : decltype(left){};
        put(place, at(place, kind) + own);
        left = here == most ? decltype(left){} : left;
      }
      return left;
    });
  }
  for (int64_t h = 0; h < s.height; ++h)
    for (int64_t w = 0; w < s.width; ++w) {
      const int64_t row = h + s.padding, column = w + s.padding;
      T* result = to + (h * s.width + w) * s.batch;
      const int64_t place = ((row * s.stride + column % s.stride) * s.columns + column / s.stride) * s.batch;
      if (column / s.stride < s.columns && place + s.batch <= s.plane) std::copy_n(sums + place, s.batch, result);
      else std::fill_n(result, s.batch, T(0));
    }
}

enum Kind { kForward, kForwardTangent, kBackward, kBackwardTangent };

template <class T, Kind kind>
void run(
    const ffi::ThreadPool& threads, ffi::RemainingArgs& args, ffi::RemainingRets& rets, int64_t stride, bool largest) {
  const ffi::AnyBuffer x = *args.get<ffi::AnyBuffer>(0);
  const auto d = x.dimensions();  // [1, C, H, W, B]
  const Window s(d[2], d[3], d[4], 3, stride, 1);
  const auto in = [&](size_t index) { return args.get<ffi::AnyBuffer>(index)->typed_data<T>(); };
  const auto out = [&](size_t index) { return (*rets.get<ffi::AnyBuffer>(index))->typed_data<T>(); };
  parallel(threads, d[1], [&](int64_t c) {
    const int64_t inputs = c * s.in_count, outputs = c * s.out_count;
    const T* own = in(0) + inputs;
    if constexpr (kind == kForward) {  // x -> y, mean, variance
      T* y = out(0) + outputs;
      pool<T>(s, y, own, own, largest);
      const Moments<T> found = normalise(y, s.out_count);
      out(1)[c] = found.mean, out(2)[c] = found.variance;
    } else if constexpr (kind == kForwardTangent) {  // x, y, variance, x' -> y', mean', variance'
      T* yt = out(0) + outputs;
      pool<T>(s, yt, own, in(3) + inputs, largest);
      const Moments<T> found = normalise_tangent(yt, in(1) + outputs, s.out_count, in(2)[c]);
      out(1)[c] = found.mean, out(2)[c] = found.variance;
    } else {  // x, y, variance, dy, and then their tangents -> dx, or its tangent
      constexpr bool dual = kind == kBackwardTangent;
      T* dz = scratch<T>(kOut, 2 * s.out_count);
      T* dzt = dual ? dz + s.out_count : nullptr;
      normalise_back<T>(
          dz, dzt, in(1) + outputs, dual ? in(5) + outputs : nullptr, in(3) + outputs,
          dual ? in(7) + outputs : nullptr, s.out_count, in(2)[c], dual ? in(6)[c] : 0);
      pool_back<T>(s, out(0) + inputs, own, dual ? dzt : dz, largest);
    }
  });
}

template <Kind kind>
ffi::Error handle(
    ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets, int64_t stride, int64_t largest) {
  const auto type = args.get<ffi::AnyBuffer>(0)->element_type();
  if (type == ffi::F32) run<float, kind>(threads, args, rets, stride, largest != 0);
  else if (type == ffi::F64) run<double, kind>(threads, args, rets, stride, largest != 0);
  else return ffi::Error::InvalidArgument("pool: float32 or float64");
  return ffi::Error::Success();
}

#define BINDING                                                                                                      \
  ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets().Attr<int64_t>("stride").Attr<int64_t>(    \
      "largest")

}  // namespace
}  // namespace jaxdarts

XLA_FFI_DEFINE_HANDLER_SYMBOL(PoolForward, jaxdarts::handle<jaxdarts::kForward>, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(PoolForwardTangent, jaxdarts::handle<jaxdarts::kForwardTangent>, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(PoolBackward, jaxdarts::handle<jaxdarts::kBackward>, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(PoolBackwardTangent, jaxdarts::handle<jaxdarts::kBackwardTangent>, BINDING);
