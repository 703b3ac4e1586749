// Matrix products whose factors stay in the processor's caches.
#pragma once

#include "rows.h"

namespace jaxdarts {

// Columns that are computed together, as many rows at a time as there are registers for their sums.
template <class T>
constexpr int64_t kPanel = 2 * Vector<T>::size;
constexpr int kRowsTogether = kBytes == 64 ? 8 : 4;

template <class T>
inline int64_t padded(int64_t columns) {
  return (columns + kPanel<T> - 1) / kPanel<T> * kPanel<T>;
}

// The right factor: entry (k, panel p, c) is first[p * panel + k * row + c].
template <class T>
struct Factor {
  const T* first;
  int64_t panel, row;
};

// The left factor and the result: rows in groups, entries `along` from each other in the left one.
template <class T>
struct Grouped {
  T* first;
  int64_t group, row, along;
};

template <class T, int kRows>
inline void block(T* to, int64_t apart, const T* from, int64_t row, int64_t along, const T* panel, int64_t next,
                  int64_t inner, bool add) {
  constexpr int64_t size = Vector<T>::size;
  V<T> sum[kRows][2] = {};
  if (add)
    for (int r = 0; r < kRows; ++r)
      for (int w = 0; w < 2; ++w) sum[r][w] = load(to + r * apart + w * size);
  for (int64_t k = 0; k < inner; ++k, panel += next, from += along) {
    const V<T> a = load(panel), b = load(panel + size);
    for (int r = 0; r < kRows; ++r) {
      const T factor = from[r * row];
      sum[r][0] += factor * a, sum[r][1] += factor * b;
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int w = 0; w < 2; ++w) store(to + r * apart + w * size, sum[r][w]);
}

// to (+)= from * factor, for so many rows of each group; `columns` of `to` are padded.
template <class T>
inline void product(const Grouped<T>& to, const Grouped<const T>& from, int64_t groups, int64_t rows,
                    const Factor<T>& factor, int64_t inner, int64_t columns, bool add) {
  for (int64_t c = 0; c < columns; c += kPanel<T>) {
    const T* panel = factor.first + c / kPanel<T> * factor.panel;
    for (int64_t group = 0; group < groups; ++group) {
      T* y = to.first + group * to.group + c;
      const T* x = from.first + group * from.group;
      const auto some = [&](auto together, int64_t& r) {
        constexpr int count = decltype(together)::value;
        for (; r + count <= rows; r += count)
          block<T, count>(y + r * to.row, to.row, x + r * from.row, from.row, from.along, panel, factor.row, inner, add);
      };
      int64_t r = 0;
      some(std::integral_constant<int, kRowsTogether>{}, r);
      some(std::integral_constant<int, kRowsTogether / 2>{}, r);
      some(std::integral_constant<int, 1>{}, r);
    }
  }
}

// Copies a matrix so that its panels are contiguous, with zeros in what `columns` lack; returns it as a factor.
template <class T>
inline Factor<T> packed(T* to, const T* from, int64_t row, int64_t column, int64_t inner, int64_t columns) {
  const int64_t size = kPanel<T>;
  for (int64_t c = 0; c < padded<T>(columns); ++c)
    for (int64_t k = 0; k < inner; ++k)
      to[(c / size * inner + k) * size + c % size] = c < columns ? from[k * row + c * column] : T(0);
  return {to, inner * size, size};
}

}  // namespace jaxdarts
