// Exponentials of vectors: in single precision polynomials, right to a few last digits; in double the library's functions.
#pragma once

#include <cmath>
#include <cstdint>

#include "rows.h"

namespace jaxdarts {

inline V<float> exponential(V<float> x) {
  typedef int32_t Whole __attribute__((vector_size(kBytes)));
  const V<float> zero{}, lowest = zero - 87.0f, highest = zero + 88.0f;
  x = x < lowest ? lowest : x;
  x = x > highest ? highest : x;
  // exp(x) = 2^n exp(r), |r| <= log(2) / 2: a number near 1.5 * 2^23 has its last binary digit at 1.
  const V<float> shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
  const V<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  V<float> sum = r * (1.0f / 720) + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * (r * r) + r + 1.0f;
  Whole power;
  std::memcpy(&power, &shifted, sizeof power);
  power = (power << 23) + (127 << 23);  // what is above n is shifted out
  V<float> scale;
  std::memcpy(&scale, &power, sizeof scale);
  return sum * scale;
}

inline V<double> exponential(V<double> x) {
  for (int64_t lane = 0; lane < Vector<double>::size; ++lane) x[lane] = std::exp(x[lane]);
  return x;
}

template <class T>
inline V<T> logistic(V<T> x) {
  return 1 / (1 + exponential(-x));
}

template <class T>
inline V<T> hyperbolic_tangent(V<T> x);

template <>
inline V<float> hyperbolic_tangent<float>(V<float> x) {
  const V<float> zero{}, size = x < zero ? -x : x, e = exponential(-2 * size);
  const V<float> large = (1 - e) / (1 + e), square = x * x;
  // Near 0, where the difference has few digits: the odd polynomial of Cephes.
  V<float> sum = square * -5.70498872745e-3f + 2.06390887954e-2f;
  sum = sum * square - 5.37397155531e-2f;
  sum = sum * square + 1.33314422036e-1f;
  sum = sum * square - 3.33332819422e-1f;
  return size < zero + 0.625f ? x + x * square * sum : (x < zero ? -large : large);
}

template <>
inline V<double> hyperbolic_tangent<double>(V<double> x) {
  for (int64_t lane = 0; lane < Vector<double>::size; ++lane) x[lane] = std::tanh(x[lane]);
  return x;
}

}  // namespace jaxdarts
