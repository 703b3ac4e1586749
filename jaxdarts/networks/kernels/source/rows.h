// What is all kernels' arithmetic: sums over rows, which are numbers next to each other. Vectors are as wide as the
// compiler's target; ends of rows that fill none are done one by one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace jaxdarts {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

template <class T>
struct Vector {
  typedef T Type __attribute__((vector_size(kBytes)));
  static constexpr int64_t size = kBytes / sizeof(T);
};
template <class T>
using V = typename Vector<T>::Type;

template <class T>
inline V<T> load(const T* from) {
  V<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
inline void store(T* to, V<T> v) {
  std::memcpy(to, &v, sizeof v);
}

template <class T>
inline T total(V<T> v) {
  T sum = 0;
  for (int64_t lane = 0; lane < Vector<T>::size; ++lane) sum += v[lane];
  return sum;
}

// An entry or a vector, as the second argument says.
inline float at(const float* from, float) { return *from; }
inline double at(const double* from, double) { return *from; }
inline V<float> at(const float* from, V<float>) { return load(from); }
inline V<double> at(const double* from, V<double>) { return load(from); }

inline void put(float* to, float value) { *to = value; }
inline void put(double* to, double value) { *to = value; }
inline void put(float* to, V<float> value) { store(to, value); }
inline void put(double* to, V<double> value) { store(to, value); }

// to[t] = f(t, kind), of vectors and of what is left one by one.
template <class T, class F>
inline void each(T* to, int64_t n, F f) {
  constexpr int64_t size = Vector<T>::size;
  int64_t t = 0;
  for (; t + size <= n; t += size) put(to + t, f(t, V<T>{}));
  for (; t < n; ++t) put(to + t, f(t, T(0)));
}

// value where the reference is positive, else 0: also where that isn't a number.
inline float gated(float value, float reference) { return reference > 0 ? value : 0; }
inline double gated(double value, double reference) { return reference > 0 ? value : 0; }
inline V<float> gated(V<float> value, V<float> reference) { return reference > V<float>{} ? value : V<float>{}; }
inline V<double> gated(V<double> value, V<double> reference) { return reference > V<double>{} ? value : V<double>{}; }

// to = value where the reference is positive, else 0; value where there is no reference.
template <class T>
inline void gate(T* to, const T* value, const T* reference, int64_t n) {
  if (reference == nullptr) std::copy_n(value, n, to);
  else each(to, n, [&](int64_t t, auto kind) { return gated(at(value + t, kind), at(reference + t, kind)); });
}

// to[t] = the sum over q of by[q] * from[q][t] for t < n; with a gate 0 where that isn't positive.
template <class T, int kVectors>
inline int64_t combine_by(T* to, const T* gate, int64_t t, int64_t n, const T* const* from, const T* by, int terms) {
  constexpr int64_t size = Vector<T>::size;
  for (; t + kVectors * size <= n; t += kVectors * size) {
    V<T> sum[kVectors] = {};
    for (int q = 0; q < terms; ++q) {
      const T* s = from[q] + t;
      const T k = by[q];
      for (int w = 0; w < kVectors; ++w) sum[w] += k * load(s + w * size);
    }
    for (int w = 0; w < kVectors; ++w) {
      if (gate != nullptr) sum[w] = gated(sum[w], load(gate + t + w * size));
      store(to + t + w * size, sum[w]);
    }
  }
  return t;
}

template <class T>
inline void combine(T* to, const T* gate, int64_t n, const T* const* from, const T* by, int terms) {
  int64_t t = combine_by<T, 8>(to, gate, 0, n, from, by, terms);  // as many as hide a multiply-add's latency
  t = combine_by<T, 1>(to, gate, t, n, from, by, terms);
  for (; t < n; ++t) {
    T sum = 0;
    for (int q = 0; q < terms; ++q) sum += by[q] * from[q][t];
    to[t] = gate == nullptr ? sum : gated(sum, gate[t]);
  }
}

// to[o][t] (+)= the sum over c of matrix[o * across + c * down] * from[c][t], for t of [start, stop).
template <class T>
inline void multiply(
    T* const* to, const T* matrix, int64_t across, int64_t down, const T* const* from, int outputs, int inputs,
    int64_t start, int64_t stop, bool add) {
  constexpr int64_t size = Vector<T>::size;
  int o = 0;
  for (; o + 4 <= outputs; o += 4) {
    const T* m = matrix + o * across;
    T* const y[4] = {to[o], to[o + 1], to[o + 2], to[o + 3]};
    int64_t t = start;
    for (; t + 2 * size <= stop; t += 2 * size) {
      V<T> sum[4][2];
      for (int u = 0; u < 4; ++u)
        for (int w = 0; w < 2; ++w) sum[u][w] = add ? load(y[u] + t + w * size) : V<T>{};
      for (int c = 0; c < inputs; ++c) {
        const V<T> a = load(from[c] + t), b = load(from[c] + t + size);
        for (int u = 0; u < 4; ++u) {
          const T k = m[u * across + c * down];
          sum[u][0] += k * a, sum[u][1] += k * b;
        }
      }
      for (int u = 0; u < 4; ++u)
        for (int w = 0; w < 2; ++w) store(y[u] + t + w * size, sum[u][w]);
    }
    for (; t < stop; ++t)
      for (int u = 0; u < 4; ++u) {
        T sum = add ? y[u][t] : 0;
        for (int c = 0; c < inputs; ++c) sum += m[u * across + c * down] * from[c][t];
        y[u][t] = sum;
      }
  }
  for (; o < outputs; ++o) {
    const T* m = matrix + o * across;
    T* y = to[o];
    int64_t t = start;
    for (; t + size <= stop; t += size) {
      V<T> sum = add ? load(y + t) : V<T>{};
      for (int c = 0; c < inputs; ++c) sum += m[c * down] * load(from[c] + t);
      store(y + t, sum);
    }
    for (; t < stop; ++t) {
      T sum = add ? y[t] : 0;
      for (int c = 0; c < inputs; ++c) sum += m[c * down] * from[c][t];
      y[t] = sum;
    }
  }
}

// sums[q] += the sum over t of a[t] * from[q][t]; at most 7 rows.
template <class T, int kRows>
inline void dots_of(T* sums, const T* a, int64_t n, const T* const* from) {
  constexpr int64_t size = Vector<T>::size;
  V<T> sum[kRows] = {}, more[kRows] = {};
  int64_t t = 0;
  for (; t + 2 * size <= n; t += 2 * size) {
    const V<T> v = load(a + t), w = load(a + t + size);
    for (int q = 0; q < kRows; ++q) sum[q] += v * load(from[q] + t), more[q] += w * load(from[q] + t + size);
  }
  for (int q = 0; q < kRows; ++q) sum[q] += more[q];
  for (; t + size <= n; t += size) {
    const V<T> v = load(a + t);
    for (int q = 0; q < kRows; ++q) sum[q] += v * load(from[q] + t);
  }
  for (int q = 0; q < kRows; ++q) sums[q] += total<T>(sum[q]);
  for (; t < n; ++t)
    for (int q = 0; q < kRows; ++q) sums[q] += a[t] * from[q][t];
}

template <class T>
inline void dots(T* sums, const T* a, int64_t n, const T* const* from, int rows) {
  switch (rows) {
    case 3: return dots_of<T, 3>(sums, a, n, from);
    case 5: return dots_of<T, 5>(sums, a, n, from);
    case 7: return dots_of<T, 7>(sums, a, n, from);
    default:
      for (int q = 0; q < rows; ++q) dots_of<T, 1>(sums + q, a, n, from + q);
  }
}

// sums[o * apart + c] += the sum over t of a[o][t] * b[c][t], for t of [start, stop).
template <class T>
inline void products(
    T* sums, int apart, const T* const* a, const T* const* b, int outputs, int inputs, int64_t start, int64_t stop) {
  constexpr int64_t size = Vector<T>::size;
  for (int o = 0; o < outputs; o += 4)
    for (int c = 0; c < inputs; c += 4) {
      const int rows = std::min(4, outputs - o), columns = std::min(4, inputs - c);
      int64_t t = start;
      if (rows == 4 && columns == 4) {
        V<T> sum[4][4] = {};
        for (; t + size <= stop; t += size) {
          V<T> left[4], right[4];
          for (int u = 0; u < 4; ++u) left[u] = load(a[o + u] + t), right[u] = load(b[c + u] + t);
          for (int u = 0; u < 4; ++u)
            for (int w = 0; w < 4; ++w) sum[u][w] += left[u] * right[w];
        }
        for (int u = 0; u < 4; ++u)
          for (int w = 0; w < 4; ++w) sums[(o + u) * apart + c + w] += total<T>(sum[u][w]);
      }
      for (int u = 0; u < rows; ++u)
        for (int w = 0; w < columns; ++w) {
          const T* other = b[c + w] + t;
          dots_of<T, 1>(sums + (o + u) * apart + c + w, a[o + u] + t, stop - t, &other);
        }
    }
}

// Rows that lie `apart` from each other.
template <class T>
inline std::vector<T*> rows(T* first, int64_t count, int64_t apart) {
  std::vector<T*> found(count);
  for (int64_t row = 0; row < count; ++row) found[row] = first + row * apart;
  return found;
}

// Parts of rows for which several inputs stay in the first cache.
template <class T, class F>
inline void in_tiles(int64_t n, F f) {
  constexpr int64_t tile = 64 * Vector<T>::size;
  for (int64_t start = 0; start < n; start += tile) f(start, std::min(n, start + tile));
}

// Two sums over a row: of what f gives for vectors and for what is left one by one. Parts are added up in double
// precision.
template <class T, class F>
inline void two_sums(int64_t n, F f, double& first, double& second) {
  constexpr int64_t size = Vector<T>::size, part = 128 * size;
  first = second = 0;
  int64_t t = 0;
  while (t + size <= n) {
    V<T> a{}, b{}, c{}, d{};
    const int64_t stop = std::min(n, t + part);
    for (; t + 2 * size <= stop; t += 2 * size) f(t, V<T>{}, a, b), f(t + size, V<T>{}, c, d);
    if (t + size <= stop) f(t, V<T>{}, a, b), t += size;
    first += static_cast<double>(total<T>(a + c)), second += static_cast<double>(total<T>(b + d));
  }
  for (; t < n; ++t) {
    T a = 0, b = 0;
    f(t, T(0), a, b);
    first += static_cast<double>(a), second += static_cast<double>(b);
  }
}

}  // namespace jaxdarts
