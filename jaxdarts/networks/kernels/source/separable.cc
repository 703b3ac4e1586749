// ReLU, depthwise convolution, 1x1 convolution and batch normalisation of R layers, and the reverse of it.
//
// A layer is computed from end to end by one thread, so that what lies between stays in its cache; where there are
// fewer layers than threads, by several in stages. That changes no order of sums. Each way has a function for its
// tangent, which computes again what it needs of the values: then it is linear in the tangents that it is given, and
// JAX may keep one for many of them. Tangents of products are the same sums over more terms.
//
// Axes: R rows (layers), C input channels, D output channels, H height, W width, B batch, K kernel size.

#include "normalise.h"
#include "threads.h"
#include "window.h"

namespace ffi = xla::ffi;

namespace jaxdarts {
namespace {

struct Sizes : Window {
  int64_t rows, inputs, channels, features;

  Sizes(
      ffi::Span<const int64_t> x, ffi::Span<const int64_t> depthwise, ffi::Span<const int64_t> pointwise,
      int64_t stride, int64_t dilation, int64_t shift)
      : Window(x[2], x[3], x[4], depthwise[2], stride, dilation, shift), rows(depthwise[0]), inputs(x[0]), channels(x[1]),
        features(pointwise[1]) {}
};

template <class T>
struct Inputs {  // float[1 or R, C, H, W, B], float[R, C, K, K], float[R, D, C]; null where there are no tangents
  const T *x, *depthwise, *pointwise;
};

enum Slot { kPlane, kPlaneTangent, kBetween, kBetweenTangent, kOut, kOutTangent, kBack, kBackTangent, kRoom };

constexpr int kTogether = 4;  // channels that one thread takes where it doesn't take a row

template <class T>
Inputs<T> of_row(const Sizes& s, const Inputs<T>& in, int64_t r) {
  if (in.x == nullptr) return in;
  return {in.x + (s.inputs == 1 ? 0 : r * s.channels * s.in_count), in.depthwise + r * s.channels * s.size * s.size,
          in.pointwise + r * s.features * s.channels};
}

// One channel's image with margins, its depthwise convolution, and the tangents of both.
template <class T>
struct Channel {
  T *plane, *plane_t;

  // The convolutions go where there is room for them.
  Channel(const Sizes& s, const Inputs<T>& at, const Inputs<T>& along, int64_t c, T* between, T* between_t)
      : plane(scratch<T>(kPlane, s.plane)), plane_t(along.x ? scratch<T>(kPlaneTangent, s.plane) : nullptr) {
    const T *x = at.x + c * s.in_count, *kernel = at.depthwise + c * s.size * s.size;
    pad<T>(s, plane, x, x, 0);
    if (between != nullptr) convolve<T>(s, between, {{plane, kernel}});
    if (along.x == nullptr) return;
    pad<T>(s, plane_t, along.x + c * s.in_count, x, 0);
    if (between != nullptr) convolve<T>(s, between_t, {{plane_t, kernel}, {plane, along.depthwise + c * s.size * s.size}});
  }
};

// Adds what each kernel entry gets of the derivatives, and a padded image.
template <class T>
void add_kernel_back(const Sizes& s, T* kernel, const T* derivatives, const T* plane) {
  const T* from[16];
  for (int64_t h = 0; h < s.out_height; ++h)
    for (int64_t i = 0; i < s.size; ++i) {
      for (int64_t j = 0; j < s.size; ++j) from[j] = plane + s.tap(h, i, j);
      const T* row = derivatives + h * padded_row(s) + before(s) * s.batch;
      dots(kernel + i * s.size, row, s.out_width * s.batch, from, static_cast<int>(s.size));
    }
}

// The derivatives of a channel's kernel, or their tangents where there are tangents.
template <class T>
void kernel_back(const Sizes& s, T* to, const Channel<T>& channel, const T* derivatives, const T* derivatives_t) {
  std::fill_n(to, s.size * s.size, T(0));
  add_kernel_back(s, to, derivatives_t ? derivatives_t : derivatives, channel.plane);
  if (derivatives_t) add_kernel_back(s, to, derivatives, channel.plane_t);
}

template <class T>
struct Outputs {  // float[R, D, H', W', B], float[R, D] twice
  T *y, *mean, *variance;
};

// The results; or where there are tangents, the results' tangents, for which y and variance are given.
template <class T>
void forward(
    const Sizes& s, const ffi::ThreadPool& threads, const Inputs<T>& in, const Inputs<T>& along, const T* y,
    const T* variance, const Outputs<T>& out) {
  const bool dual = along.x != nullptr;
  const int inputs = static_cast<int>(s.channels);
  const Rooms<T> between(threads, s.rows, kBetween, s.channels * s.out_count);
  const Rooms<T> between_t(threads, s.rows, kBetweenTangent, dual ? s.channels * s.out_count : 0);
  const auto convolved = [&](int64_t r, int64_t c) {
    const int64_t place = c * s.out_count;
    T* tangent = dual ? between_t.of(r) + place : nullptr;
    Channel<T>(s, of_row(s, in, r), of_row(s, along, r), c, between.of(r) + place, tangent);
  };
  const int64_t together = by_rows(threads, s.rows) ? s.features : kTogether;
  const auto mixed = [&](int64_t r, int64_t unit) {
    const int64_t first = unit * together, last = std::min(s.features, first + together);
    const int count = static_cast<int>(last - first);
    const auto to = rows(out.y + (r * s.features + first) * s.out_count, count, s.out_count);
    const auto point = [&](const Inputs<T>& factor, const T* other, bool add) {
      const auto from = rows(other, inputs, s.out_count);
      const T* matrix = factor.pointwise + first * inputs;
      in_tiles<T>(s.out_count, [&](int64_t start, int64_t stop) {
        multiply<T>(to.data(), matrix, inputs, 1, from.data(), count, inputs, start, stop, add);
      });
    };
    point(of_row(s, in, r), dual ? between_t.of(r) : between.of(r), false);
    if (dual) point(of_row(s, along, r), between.of(r), true);
    for (int64_t o = first; o < last; ++o) {
      const int64_t place = r * s.features + o;
      T* z = to[o - first];
      const Moments<T> found = dual ? normalise_tangent(z, y + place * s.out_count, s.out_count, variance[place])
                                    : normalise(z, s.out_count);
      out.mean[place] = found.mean, out.variance[place] = found.variance;
    }
  };
  in_stages(threads, s.rows, {{s.channels, convolved}, {(s.features + together - 1) / together, mixed}});
}

template <class T>
struct Gradients {  // null where they are not wanted
  T *x, *depthwise, *pointwise;
};

template <class T>
struct Found {  // what the forward pass gave, and the derivatives of y
  const T *y, *variance, *dy;
};

template <class T>
void backward(
    const Sizes& s, const ffi::ThreadPool& threads, const Inputs<T>& in, const Inputs<T>& along, const Found<T>& found,
    const Found<T>& found_t, const Gradients<T>& to) {
  const int outputs = static_cast<int>(s.features), inputs = static_cast<int>(s.channels);
  const int64_t taps = s.size * s.size, each = s.out_height * padded_row(s), whole = s.channels * each;
  const bool dual = along.x != nullptr, shared = s.inputs == 1 && s.rows > 1;
  const int64_t dual_whole = dual ? whole : 0, out_whole = s.features * s.out_count, dual_out = dual ? out_whole : 0;
  const Rooms<T> dz(threads, s.rows, kOut, out_whole), dz_t(threads, s.rows, kOutTangent, dual_out);
  // Derivatives of the depthwise results, of all rows apart where their sum over rows is wanted.
  const Rooms<T> back(threads, s.rows, kBack, whole, shared), back_t(threads, s.rows, kBackTangent, dual_whole, shared);
  const auto normalised = [&](int64_t r, int64_t o) {
    const int64_t place = r * s.features + o, start = place * s.out_count, at = o * s.out_count;
    normalise_back<T>(
        dz.of(r) + at, dual ? dz_t.of(r) + at : nullptr, found.y + start, dual ? found_t.y + start : nullptr,
        found.dy + start, dual ? found_t.dy + start : nullptr, s.out_count, found.variance[place],
        dual ? found_t.variance[place] : 0);
  };
  const int64_t together = by_rows(threads, s.rows) ? s.channels : kTogether;
  const auto rest = [&](int64_t r, int64_t unit) {
    const int64_t first = unit * together, last = std::min(s.channels, first + together);
    const int count = static_cast<int>(last - first);
    const Inputs<T> at = of_row(s, in, r), tangents = of_row(s, along, r);
    T *own = back.of(r) + first * each, *own_t = dual ? back_t.of(r) + first * each : nullptr;
    const int64_t n = s.out_width * s.batch, left = before(s) * s.batch;
    for (T* to : {own, own_t})
      if (to != nullptr) clear_margins(s, to, count * s.out_height);
    const auto point = [&](T* to, const Inputs<T>& factor, const T* from, bool add) {
      for (int64_t h = 0; h < s.out_height; ++h) {
        const auto lines = rows(to + h * padded_row(s) + left, count, each);
        const auto derivatives = rows(from + h * n, outputs, s.out_count);
        multiply<T>(lines.data(), factor.pointwise + first, 1, inputs, derivatives.data(), count, outputs, 0, n, add);
      }
    };
    point(own, at, dz.of(r), false);
    if (dual) point(own_t, at, dz_t.of(r), false), point(own_t, tangents, dz.of(r), true);
    T* between = to.pointwise ? scratch<T>(kBetween, count * s.out_count) : nullptr;
    T* between_t = to.pointwise && dual ? scratch<T>(kBetweenTangent, count * s.out_count) : nullptr;
    for (int64_t c = first; c < last; ++c) {
      const int64_t index = c - first, place = index * s.out_count;
      const T *derivatives = own + index * each, *derivatives_t = dual ? own_t + index * each : nullptr;
      if (to.depthwise || to.pointwise) {
        const Channel<T> channel(
            s, at, tangents, c, between ? between + place : nullptr, between_t ? between_t + place : nullptr);
        if (to.depthwise) kernel_back(s, to.depthwise + (r * s.channels + c) * taps, channel, derivatives, derivatives_t);
      }
      if (shared || !to.x) continue;
      const T *x = at.x + c * s.in_count, *kernel = at.depthwise + c * taps;
      T* dx = to.x + (r * s.channels + c) * s.in_count;
      T* room = scratch<T>(kRoom, s.columns * s.batch);
      if (dual) input_back<T>(s, dx, x, {{derivatives_t, kernel}, {derivatives, tangents.depthwise + c * taps}}, room);
      else input_back<T>(s, dx, x, {{derivatives, kernel}}, room);
    }
    if (!to.pointwise) return;
    T* dpointwise = to.pointwise + r * s.features * s.channels + first;
    for (int o = 0; o < outputs; ++o) std::fill_n(dpointwise + o * inputs, count, T(0));
    const auto pair = [&](const T* derivatives, const T* other) {
      const auto above = rows(derivatives, outputs, s.out_count), below = rows(other, count, s.out_count);
      in_tiles<T>(s.out_count, [&](int64_t start, int64_t stop) {
        products<T>(dpointwise, inputs, above.data(), below.data(), outputs, count, start, stop);
      });
    };
    pair(dual ? dz_t.of(r) : dz.of(r), between);
    if (dual) pair(dz.of(r), between_t);
  };
  in_stages(threads, s.rows, {{s.features, normalised}, {(s.channels + together - 1) / together, rest}});
  if (!shared || !to.x) return;
  parallel(threads, s.channels, [&](int64_t c) {
    std::vector<Factors<T>> terms;
    for (int64_t r = 0; r < s.rows; ++r) {
      const int64_t kernel = (r * s.channels + c) * taps;
      const T* own = back.of(r) + c * each;
      if (!dual) terms.push_back({own, in.depthwise + kernel});
      if (!dual) continue;
      terms.push_back({back_t.of(r) + c * each, in.depthwise + kernel});
      terms.push_back({own, along.depthwise + kernel});
    }
    input_back<T>(s, to.x + c * s.in_count, in.x + c * s.in_count, terms, scratch<T>(kRoom, s.columns * s.batch));
  });
}

// A call's buffers, in their order.
template <class T>
struct Buffers {
  ffi::RemainingArgs& arguments;
  ffi::RemainingRets& results;
  const T* in(size_t index) const { return arguments.get<ffi::AnyBuffer>(index)->typed_data<T>(); }
  T* out(size_t index) const { return (*results.get<ffi::AnyBuffer>(index))->typed_data<T>(); }
  Inputs<T> inputs(size_t first) const { return {in(first), in(first + 1), in(first + 2)}; }
  Found<T> found(size_t first) const { return {in(first), in(first + 1), in(first + 2)}; }
  Gradients<T> gradients(int64_t wanted) const {  // a bit for each; only those are among the results
    size_t next = 0;
    const auto one = [&](int64_t bit) { return wanted & bit ? out(next++) : nullptr; };
    return {one(1), one(2), one(4)};  // in this order: it is a list in braces
  }
};

enum Kind { kForward, kForwardTangent, kBackward, kBackwardTangent };

template <class T, Kind kind>
void run(const Sizes& s, const ffi::ThreadPool& threads, const Buffers<T>& b, int64_t wanted) {
  const Inputs<T> none{};
  if constexpr (kind == kForward)
    forward<T>(s, threads, b.inputs(0), none, nullptr, nullptr, {b.out(0), b.out(1), b.out(2)});
  if constexpr (kind == kForwardTangent)
    forward<T>(s, threads, b.inputs(0), b.inputs(5), b.in(3), b.in(4), {b.out(0), b.out(1), b.out(2)});
  if constexpr (kind == kBackward) backward<T>(s, threads, b.inputs(0), none, b.found(3), {}, b.gradients(wanted));
  if constexpr (kind == kBackwardTangent)
    backward<T>(s, threads, b.inputs(0), b.inputs(6), b.found(3), b.found(9), b.gradients(wanted));
}

template <Kind kind>
ffi::Error handle(
    ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets, int64_t stride, int64_t dilation,
    int64_t shift, int64_t wanted) {
  const auto dimensions = [&](size_t index) { return args.get<ffi::AnyBuffer>(index)->dimensions(); };
  const Sizes sizes(dimensions(0), dimensions(1), dimensions(2), stride, dilation, shift);
  const auto type = args.get<ffi::AnyBuffer>(0)->element_type();
  if (type == ffi::F32) run<float, kind>(sizes, threads, {args, rets}, wanted);
  else if (type == ffi::F64) run<double, kind>(sizes, threads, {args, rets}, wanted);
  else return ffi::Error::InvalidArgument("separable: float32 or float64");
  return ffi::Error::Success();
}

#define BINDING                                                                        \
  ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets()              \
      .Attr<int64_t>("stride").Attr<int64_t>("dilation").Attr<int64_t>("shift")        \
      .Attr<int64_t>("wanted")

}  // namespace
}  // namespace jaxdarts

XLA_FFI_DEFINE_HANDLER_SYMBOL(SeparableForward, jaxdarts::handle<jaxdarts::kForward>, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(SeparableForwardTangent, jaxdarts::handle<jaxdarts::kForwardTangent>, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(SeparableBackward, jaxdarts::handle<jaxdarts::kBackward>, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(SeparableBackwardTangent, jaxdarts::handle<jaxdarts::kBackwardTangent>, BINDING);
