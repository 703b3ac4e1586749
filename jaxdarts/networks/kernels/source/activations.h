// What a relaxed recurrent cell does with the product (g, h) of a state s: over activations f the sum of
// p (s + c (f(h) - s)), where c = sigmoid(g). Exponentials are computed in both directions instead of stored.
#pragma once

#include "exponential.h"
#include "rows.h"

namespace jaxdarts {

enum Activation { kTanh, kRelu, kSigmoid, kIdentity, kActivations };

// Activations at x, those that are used, and as many derivatives as `order` says.
template <class T>
struct Values {
  V<T> value[kActivations] = {}, first[kActivations] = {}, second[kActivations] = {};
  template <int order>
  static Values at(V<T> x, int64_t used) {
    Values found;
    const V<T> zero{}, one = zero + 1;
    if (used & 1 << kTanh) {
      const V<T> t = hyperbolic_tangent<T>(x);
      found.value[kTanh] = t;
      if (order > 0) found.first[kTanh] = 1 - t * t;
      if (order > 1) found.second[kTanh] = -2 * t * (1 - t * t);
    }
    if (used & 1 << kRelu) {
      found.value[kRelu] = x <= zero ? zero : x;
      found.first[kRelu] = x > zero ? one : zero;
    }
    if (used & 1 << kSigmoid) {
      const V<T> q = logistic<T>(x);
      found.value[kSigmoid] = q;
      if (order > 0) found.first[kSigmoid] = q * (1 - q);
      if (order > 1) found.second[kSigmoid] = q * (1 - q) * (1 - 2 * q);
    }
    if (used & 1 << kIdentity) found.value[kIdentity] = x, found.first[kIdentity] = one;
    return found;
  }
};

template <class T>
inline V<T> weighted(const T* shares, const V<T>* values) {
  V<T> sum{};
  for (int f = 0; f < kActivations; ++f) sum += shares[f] * values[f];
  return sum;
}

template <class T>
inline T total_of(const T* shares) {
  return (shares[0] + shares[1]) + (shares[2] + shares[3]);
}

// Vectors of a row of n entries: f(where they begin, how many of theirs are inside).
template <class T, class F>
inline void in_vectors(int64_t n, F f) {
  constexpr int64_t size = Vector<T>::size;
  int64_t t = 0;
  for (; t + size <= n; t += size) f(t, std::integral_constant<int64_t, size>{});
  if (t < n) f(t, n - t);
}

template <class T, class N>
inline V<T> some(const T* from, N count) {
  V<T> v{};
  std::memcpy(&v, from, count * sizeof(T));
  return v;
}

template <class T, class N>
inline void put_some(T* to, V<T> v, N count) {
  std::memcpy(to, &v, count * sizeof(T));
}

// A row of a state, or its tangent: product T[2 H], state T[H], shares T[4].
template <class T>
struct Row {
  const T *product, *state, *shares;
};

// y += the row's part, or its tangent.
template <class T, bool tangent>
inline void activate(const Row<T>& at, const Row<T>& t, T* y, int64_t hidden, int64_t used) {
  const T *p = at.shares, sum = total_of(p);
  in_vectors<T>(hidden, [&](int64_t h, auto count) {
    const V<T> c = logistic<T>(some(at.product + h, count)), s = some(at.state + h, count);
    const V<T> x = some(at.product + hidden + h, count);
    const auto f = Values<T>::template at<tangent ? 1 : 0>(x, used);
    const V<T> still = sum * s, moved = weighted<T>(p, f.value) - still;
    V<T> found = still + c * moved;
    if constexpr (tangent) {
      const V<T> ct = c * (1 - c) * some(t.product + h, count);
      const V<T> still_t = total_of(t.shares) * s + sum * some(t.state + h, count);
      const V<T> f_t = weighted<T>(t.shares, f.value) + weighted<T>(p, f.first) * some(t.product + hidden + h, count);
      found = still_t + ct * moved + c * (f_t - still_t);
    }
    put_some<T>(y + h, some(y + h, count) + found, count);
  });
}

// Where a row's derivatives go: product over the product itself, state and sums (of the shares) are added to.
template <class T>
struct Derivatives {
  T *product, *state;
  V<T>* sums;
};

// Of dy, which is the derivative in y; with tangents also those of all derivatives, whose sums alone are added up then.
template <class T, bool tangent>
inline void activate_back(
    const Row<T>& at, const Row<T>& t, const T* dy, const T* dyt, const Derivatives<T>& to, const Derivatives<T>& to_t,
    int64_t hidden, int64_t used) {
  const T *p = at.shares, sum = total_of(p);
  in_vectors<T>(hidden, [&](int64_t h, auto count) {
    const V<T> c = logistic<T>(some(at.product + h, count)), slope = c * (1 - c);
    const V<T> s = some(at.state + h, count), x = some(at.product + hidden + h, count), y = some(dy + h, count);
    const auto f = Values<T>::template at<tangent ? 2 : 1>(x, used);
    const V<T> moved = weighted<T>(p, f.value) - sum * s, first = weighted<T>(p, f.first);
    if constexpr (tangent) {
      const T *pt = t.shares, sum_t = total_of(pt);
      const V<T> gt = some(t.product + h, count), xt = some(t.product + hidden + h, count);
      const V<T> st = some(t.state + h, count), yt = some(dyt + h, count);
      const V<T> ct = slope * gt, slope_t = (1 - 2 * c) * ct;
      const V<T> moved_t = weighted<T>(pt, f.value) + first * xt - sum_t * s - sum * st;
      const V<T> first_t = weighted<T>(pt, f.first) + weighted<T>(p, f.second) * xt;
      put_some<T>(to_t.product + h, (yt * slope + y * slope_t) * moved + y * slope * moved_t, count);
      put_some<T>(to_t.product + hidden + h, (yt * c + y * ct) * first + y * c * first_t, count);
      const V<T> direct = (yt * (1 - c) - y * ct) * sum + y * (1 - c) * sum_t;
      put_some<T>(to_t.state + h, some(to_t.state + h, count) + direct, count);
      for (int n = 0; n < kActivations; ++n) {
        const V<T> apart = f.value[n] - s;
        to_t.sums[n] += yt * (s + c * apart) + y * (st + ct * apart + c * (f.first[n] * xt - st));
      }
    } else {
      for (int n = 0; n < kActivations; ++n) to.sums[n] += y * (s + c * (f.value[n] - s));
    }
    put_some<T>(to.product + h, y * slope * moved, count);
    put_some<T>(to.product + hidden + h, y * c * first, count);
    put_some<T>(to.state + h, some(to.state + h, count) + y * (1 - c) * sum, count);
  });
}

}  // namespace jaxdarts
