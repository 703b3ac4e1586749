// Batch normalisation over the rows of a matrix, a column by itself: (z - mean) / sqrt(variance + epsilon), its reverse,
// and both with tangents. Moments are those of the rows, or given ones, which are constants.
#pragma once

#include "activations.h"
#include "normalise.h"

namespace jaxdarts {

template <class T>
inline V<T> factor_of_each(V<T> variance) {
  for (int64_t lane = 0; lane < Vector<T>::size; ++lane)
    variance[lane] = 1 / std::sqrt(variance[lane] + static_cast<T>(kEpsilon));
  return variance;
}

// The mean over rows of what f gives for the place of a row's entries.
template <class T, class F>
inline V<T> mean_over(int64_t rows, int64_t n, int64_t h, F f) {
  V<T> sum{};
  for (int64_t place = h; place < rows * n; place += n) sum += f(place);
  return sum / static_cast<T>(rows);
}

// y of z. `own`: the moments are written; else they are read.
template <class T>
inline void normalise_columns(T* y, const T* z, T* mean, T* variance, int64_t rows, int64_t n, bool own) {
  in_vectors<T>(n, [&](int64_t h, auto count) {
    if (own) {
      const V<T> m = mean_over<T>(rows, n, h, [&](int64_t place) { return some(z + place, count); });
      put_some<T>(mean + h, m, count);
      put_some<T>(variance + h, mean_over<T>(rows, n, h, [&](int64_t place) {
        const V<T> c = some(z + place, count) - m;
        return c * c;
      }), count);
    }
    const V<T> m = some(mean + h, count), factor = factor_of_each<T>(some(variance + h, count));
    for (int64_t place = h; place < rows * n; place += n)
      put_some<T>(y + place, (some(z + place, count) - m) * factor, count);
  });
}

// The tangents of y and of the variance, of that of z.
template <class T>
inline void normalise_columns_tangent(
    T* yt, const T* zt, const T* y, const T* variance, T* variance_t, int64_t rows, int64_t n, bool own) {
  in_vectors<T>(n, [&](int64_t h, auto count) {
    const V<T> factor = factor_of_each<T>(some(variance + h, count));
    V<T> mean{}, along{};
    if (own) {
      mean = mean_over<T>(rows, n, h, [&](int64_t place) { return some(zt + place, count); });
      along = mean_over<T>(rows, n, h, [&](int64_t place) { return some(zt + place, count) * some(y + place, count); });
    }
    put_some<T>(variance_t + h, 2 * along / factor, count);
    for (int64_t place = h; place < rows * n; place += n)
      put_some<T>(yt + place, (some(zt + place, count) - mean - some(y + place, count) * along) * factor, count);
  });
}

// What batch normalisation keeps for its reverse, or the tangents of that.
template <class T>
struct Normalised {
  const T *y, *variance;
};

// The derivative in z of that in y, or with tangents also its tangent.
template <class T, bool tangent>
inline void normalise_columns_back(
    T* dz, T* dzt, const Normalised<T>& at, const Normalised<T>& t, const T* dy, const T* dyt, int64_t rows, int64_t n,
    bool own) {
  in_vectors<T>(n, [&](int64_t h, auto count) {
    const V<T> factor = factor_of_each<T>(some(at.variance + h, count));
    V<T> mean{}, along{}, mean_t{}, along_t{}, relative{};
    if (own) {
      mean = mean_over<T>(rows, n, h, [&](int64_t place) { return some(dy + place, count); });
      along = mean_over<T>(
          rows, n, h, [&](int64_t place) { return some(dy + place, count) * some(at.y + place, count); });
      if constexpr (tangent) {
        mean_t = mean_over<T>(rows, n, h, [&](int64_t place) { return some(dyt + place, count); });
        along_t = mean_over<T>(rows, n, h, [&](int64_t place) {
          return some(dyt + place, count) * some(at.y + place, count) + some(dy + place, count) * some(t.y + place, count);
        });
        relative = -factor * factor * some(t.variance + h, count) / 2;  // the factor's tangent, divided by it
      }
    }
    for (int64_t place = h; place < rows * n; place += n) {
      const V<T> y = some(at.y + place, count), back = (some(dy + place, count) - mean - y * along) * factor;
      put_some<T>(dz + place, back, count);
      if constexpr (tangent) {
        const V<T> rest = some(dyt + place, count) - mean_t - some(t.y + place, count) * along - y * along_t;
        put_some<T>(dzt + place, relative * back + rest * factor, count);
      }
    }
  });
}

}  // namespace jaxdarts
