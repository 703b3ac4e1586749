// Windows of taps over an image with margins: what convolutions and pools read, and where their derivatives go.
//
// Axes: H height, W width, B batch, K window size.
#pragma once

#include <initializer_list>
#include <vector>

#include "rows.h"

namespace jaxdarts {

struct Window {
  int64_t height, width, batch, size, stride, dilation;
  int64_t padding;  // less than 0 where the first window begins inside the image
  int64_t out_height, out_width, columns, in_count, out_count, plane;

  // The middle of the first window is at the position (shift, shift).
  Window(
      int64_t height, int64_t width, int64_t batch, int64_t size, int64_t stride, int64_t dilation, int64_t shift = 0)
      : height(height), width(width), batch(batch), size(size), stride(stride), dilation(dilation) {
    padding = dilation * (size / 2) - shift;
    out_height = (height + stride - 1) / stride, out_width = (width + stride - 1) / stride;
    // Of the padded image, the columns of each remainder modulo the stride lie together: what a tap reads of them for
    // one row of outputs then lies together too.
    columns = ((out_width - 1) * stride + dilation * (size - 1)) / stride + 1;
    in_count = height * width * batch, out_count = out_height * out_width * batch;
    plane = ((out_height - 1) * stride + dilation * (size - 1) + 1) * stride * columns * batch;
  }

  // Where in the padded image the row begins that a tap reads for the outputs of row h.
  int64_t tap(int64_t h, int64_t i, int64_t j) const {
    const int64_t column = j * dilation;
    return (((h * stride + i * dilation) * stride + column % stride) * columns + column / stride) * batch;
  }
};

// value where the reference is positive, else 0 (value where there is no reference), as an image with margins.
template <class T>
void pad(const Window& s, T* plane, const T* value, const T* reference, T margin) {
  const int64_t line = s.stride * s.columns * s.batch, left = s.padding * s.batch, filled = s.width * s.batch;
  for (int64_t row = 0; row * line < s.plane; ++row) {
    T* to = plane + row * line;
    const int64_t h = row - s.padding, from = h * filled;
    if (h < 0 || h >= s.height) {
      std::fill_n(to, line, margin);
    } else if (s.stride == 1) {
      std::fill_n(to, left, margin);
      gate(to + left, value + from, reference ? reference + from : nullptr, filled);
      std::fill_n(to + left + filled, line - left - filled, margin);
    } else {
      std::fill_n(to, line, margin);
      for (int64_t w = 0; w < s.width; ++w) {
        const int64_t column = w + s.padding, place = from + w * s.batch;
        if (column < 0) continue;
        if (column / s.stride >= s.columns) break;
        T* cell = to + (column % s.stride * s.columns + column / s.stride) * s.batch;
        gate(cell, value + place, reference ? reference + place : nullptr, s.batch);
      }
    }
  }
}

template <class T>
struct Factors {  // an image and a kernel
  const T *image, *kernel;
};

// The sum of depthwise convolutions of padded images, one channel: [H', W', B].
template <class T>
void convolve(const Window& s, T* to, std::initializer_list<Factors<T>> terms) {
  std::vector<const T*> from;
  std::vector<T> by;
  for (int64_t h = 0; h < s.out_height; ++h) {
    from.clear(), by.clear();
    for (const auto& term : terms)
      for (int64_t i = 0; i < s.size; ++i)
        for (int64_t j = 0; j < s.size; ++j)
          from.push_back(term.image + s.tap(h, i, j)), by.push_back(term.kernel[i * s.size + j]);
    const int64_t n = s.out_width * s.batch;
    combine<T>(to + h * n, nullptr, n, from.data(), by.data(), static_cast<int>(from.size()));
  }
}

// Derivatives of a depthwise result lie in rows with margins of zeros, so that every input column finds what it needs:
// [H', before + columns, B].
inline int64_t before(const Window& s) { return s.dilation * (s.size - 1) / s.stride; }
inline int64_t padded_row(const Window& s) { return (before(s) + s.columns) * s.batch; }

// Clears the margins of derivatives [lines, before + columns, B].
template <class T>
void clear_margins(const Window& s, T* to, int64_t lines) {
  const int64_t left = before(s) * s.batch, filled = left + s.out_width * s.batch;
  for (int64_t line = 0; line < lines; ++line) {
    std::fill_n(to + line * padded_row(s), left, T(0));
    std::fill_n(to + line * padded_row(s) + filled, padded_row(s) - filled, T(0));
  }
}

// What one channel of the input gets of the derivatives, where the reference is positive or there is none: [H, W, B].
template <class T>
void input_back(const Window& s, T* to, const T* reference, const std::vector<Factors<T>>& terms, T* room) {
  const int64_t row = padded_row(s);
  std::vector<const T*> from;
  std::vector<T> by;
  if (s.stride > 1) std::fill_n(to, s.in_count, T(0));  // otherwise every entry is written
  for (int64_t h = 0; h < s.height; ++h)
    for (int64_t phase = 0; phase < s.stride; ++phase) {
      const int64_t first = std::max<int64_t>(0, (s.padding - phase + s.stride - 1) / s.stride);
      const int64_t last = std::min(s.columns, (s.padding + s.width - phase + s.stride - 1) / s.stride);
      if (last <= first) continue;
      from.clear(), by.clear();
      for (const auto& term : terms)
        for (int64_t i = 0; i < s.size; ++i) {
          const int64_t spread = h + s.padding - i * s.dilation;
          if (spread < 0 || spread % s.stride || spread / s.stride >= s.out_height) continue;
          for (int64_t j = 0; j < s.size; ++j) {
            const int64_t column = j * s.dilation;
            if (column % s.stride != phase) continue;
            from.push_back(term.image + spread / s.stride * row + (before(s) - column / s.stride + first) * s.batch);
            by.push_back(term.kernel[i * s.size + j]);
          }
        }
      if (from.empty()) continue;
      const int64_t n = (last - first) * s.batch;
      if (s.stride == 1) {
        const int64_t place = h * s.width * s.batch;
        const int count = static_cast<int>(from.size());
        combine(to + place, reference ? reference + place : nullptr, n, from.data(), by.data(), count);
        continue;
      }
      combine<T>(room, nullptr, n, from.data(), by.data(), static_cast<int>(from.size()));
      for (int64_t column = first; column < last; ++column) {
        const int64_t place = (h * s.width + column * s.stride + phase - s.padding) * s.batch;
        const T* found = room + (column - first) * s.batch;
        gate(to + place, found, reference ? reference + place : nullptr, s.batch);
      }
    }
}

}  // namespace jaxdarts
