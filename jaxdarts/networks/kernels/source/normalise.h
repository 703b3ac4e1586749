// Batch normalisation of one channel: (z - mean) / sqrt(variance + epsilon), its reverse, and both with tangents.
#pragma once

#include <cmath>

#include "rows.h"

namespace jaxdarts {

constexpr double kEpsilon = 1e-5;

template <class T>
struct Moments {
  T mean, variance;
};

// Normalises z in place.
template <class T>
inline Moments<T> normalise(T* z, int64_t n) {
  // Moments about a value near the mean, so that the square of the mean takes no digits from the variance.
  T near = 0;
  const int64_t step = std::max<int64_t>(1, n / 64), samples = (n + step - 1) / step;
  for (int64_t t = 0; t < n; t += step) near += z[t] / samples;
  double sum, squares;
  two_sums<T>(n, [&](int64_t t, auto kind, auto& a, auto& b) {
    const auto c = at(z + t, kind) - near;
    a += c, b += c * c;
  }, sum, squares);
  const double shift = sum / n, variance = std::max(0.0, squares / n - shift * shift);
  const T mean = static_cast<T>(near + shift), factor = static_cast<T>(1 / std::sqrt(variance + kEpsilon));
  each(z, n, [&](int64_t t, auto kind) { return (at(z + t, kind) - mean) * factor; });
  return {mean, static_cast<T>(variance)};
}

template <class T>
inline T factor_of(T variance) {
  return static_cast<T>(1 / std::sqrt(static_cast<double>(variance) + kEpsilon));
}

// Makes of the tangent of z, in place, that of the normalised y; gives the tangents of the moments.
template <class T>
inline Moments<T> normalise_tangent(T* zt, const T* y, int64_t n, T variance) {
  double sum, product;
  two_sums<T>(n, [&](int64_t t, auto kind, auto& a, auto& b) {
    const auto c = at(zt + t, kind);
    a += c, b += c * at(y + t, kind);
  }, sum, product);
  const T mean = static_cast<T>(sum / n), along = static_cast<T>(product / n), factor = factor_of(variance);
  each(zt, n, [&](int64_t t, auto kind) { return (at(zt + t, kind) - mean - at(y + t, kind) * along) * factor; });
  return {mean, 2 * along / factor};
}

// dz = factor * (dy - mean(dy) - y mean(dy y)), and its tangent where there are tangents.
template <class T>
inline void normalise_back(
    T* dz, T* dzt, const T* y, const T* yt, const T* dy, const T* dyt, int64_t n, T variance, T variance_t) {
  const T factor = factor_of(variance);
  double sum, product;
  two_sums<T>(n, [&](int64_t t, auto kind, auto& a, auto& b) {
    const auto c = at(dy + t, kind);
    a += c, b += c * at(y + t, kind);
  }, sum, product);
  const T mean = static_cast<T>(sum / n), along = static_cast<T>(product / n);
  if (dzt == nullptr) {
    each(dz, n, [&](int64_t t, auto kind) { return (at(dy + t, kind) - mean - at(y + t, kind) * along) * factor; });
    return;
  }
  double sum_t, product_t;
  two_sums<T>(n, [&](int64_t t, auto kind, auto& a, auto& b) {
    const auto c = at(dyt + t, kind);
    a += c, b += c * at(y + t, kind) + at(dy + t, kind) * at(yt + t, kind);
  }, sum_t, product_t);
  const T mean_t = static_cast<T>(sum_t / n), along_t = static_cast<T>(product_t / n);
  const T relative = -factor * factor * variance_t / 2;  // the tangent of the factor, divided by it
  each(dzt, n, [&](int64_t t, auto kind) {
    const auto of_y = at(y + t, kind), back = (at(dy + t, kind) - mean - of_y * along) * factor;
    put(dz + t, back);
    return relative * back + (at(dyt + t, kind) - mean_t - at(yt + t, kind) * along - of_y * along_t) * factor;
  });
}

}  // namespace jaxdarts
