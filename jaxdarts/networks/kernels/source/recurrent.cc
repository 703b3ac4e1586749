// A node of the relaxed recurrent cell: over all the states s that it reads and all activations f, the sum of
// p (s + c (f(h) - s)), where c = sigmoid(g), and g and h are the halves of the state's product; and the reverse.
//
// Exponentials are computed in both directions instead of stored. Axes: R states, B examples, H hidden units, and
// tanh, relu, sigmoid and identity, of which some may not be there.

#include "exponential.h"
#include "rows.h"
#include "threads.h"

namespace ffi = xla::ffi;

namespace jaxdarts {
namespace {

enum Kind { kForward, kForwardTangent, kBackward, kBackwardTangent };
enum Activation { kTanh, kRelu, kSigmoid, kIdentity, kActivations };

constexpr int64_t kPart = 1 << 12;  // entries of the states that one thread takes, about

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

// products float[R B, 2 H], states float[R B, H], shares float[R, 4].
template <class T>
struct Operands {
  const T *products, *states, *shares;
};

// Vectors of a row of H entries: f(where they begin, how many of theirs are inside).
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

// One row of one state: y += its part, or the tangent of that.
template <class T, bool tangent>
void forward_row(
    const Operands<T>& at, const Operands<T>& t, int64_t place, int64_t row, T* y, bool first, int64_t hidden,
    int64_t used) {
  const T *p = at.shares + row * kActivations, sum = total_of(p);
  in_vectors<T>(hidden, [&](int64_t h, auto count) {
    const int64_t gate = place * 2 * hidden + h, state = place * hidden + h;
    const V<T> c = logistic<T>(some(at.products + gate, count)), s = some(at.states + state, count);
    const V<T> x = some(at.products + gate + hidden, count);
    const auto f = Values<T>::template at<tangent ? 1 : 0>(x, used);
    const V<T> still = sum * s, moved = weighted<T>(p, f.value) - still;
    V<T> found = still + c * moved;
    if constexpr (tangent) {
      const T* pt = t.shares + row * kActivations;
      const V<T> ct = c * (1 - c) * some(t.products + gate, count);
      const V<T> still_t = total_of(pt) * s + sum * some(t.states + state, count);
      const V<T> f_t = weighted<T>(pt, f.value) + weighted<T>(p, f.first) * some(t.products + gate + hidden, count);
      found = still_t + ct * moved + c * (f_t - still_t);
    }
    put_some<T>(y + h, first ? found : some(y + h, count) + found, count);
  });
}

template <class T>
struct Results {
  T *products, *states;
};

// The derivatives in one row of one state, or their tangents; adds those in the shares up in `sums`.
template <class T, bool tangent>
void backward_row(
    const Operands<T>& at, const Operands<T>& t, const T* dy, const T* dyt, const Results<T>& to, V<T>* sums,
    int64_t place, int64_t row, int64_t hidden, int64_t used) {
  const T *p = at.shares + row * kActivations, sum = total_of(p);
  in_vectors<T>(hidden, [&](int64_t h, auto count) {
    const int64_t gate = place * 2 * hidden + h, state = place * hidden + h;
    const V<T> c = logistic<T>(some(at.products + gate, count)), slope = c * (1 - c);
    const V<T> s = some(at.states + state, count), x = some(at.products + gate + hidden, count);
    const auto f = Values<T>::template at<tangent ? 2 : 1>(x, used);
    const V<T> y = some(dy + h, count), moved = weighted<T>(p, f.value) - sum * s, first = weighted<T>(p, f.first);
    if constexpr (!tangent) {
      put_some<T>(to.products + gate, y * slope * moved, count);
      put_some<T>(to.products + gate + hidden, y * c * first, count);
      put_some<T>(to.states + state, y * (1 - c) * sum, count);
      for (int n = 0; n < kActivations; ++n) sums[n] += y * (s + c * (f.value[n] - s));
    } else {
      const T* pt = t.shares + row * kActivations;
      const V<T> gt = some(t.products + gate, count), xt = some(t.products + gate + hidden, count);
      const V<T> st = some(t.states + state, count), yt = some(dyt + h, count);
      const V<T> ct = slope * gt, slope_t = (1 - 2 * c) * ct;
      const V<T> moved_t = weighted<T>(pt, f.value) + first * xt - total_of(pt) * s - sum * st;
      const V<T> first_t = weighted<T>(pt, f.first) + weighted<T>(p, f.second) * xt;
      put_some<T>(to.products + gate, (yt * slope + y * slope_t) * moved + y * slope * moved_t, count);
      put_some<T>(to.products + gate + hidden, (yt * c + y * ct) * first + y * c * first_t, count);
      put_some<T>(to.states + state, (yt * (1 - c) - y * ct) * sum + y * (1 - c) * total_of(pt), count);
      for (int n = 0; n < kActivations; ++n) {
        const V<T> apart = f.value[n] - s;
        sums[n] += yt * (s + c * apart) + y * (st + ct * apart + c * (f.first[n] * xt - st));
      }
    }
  });
}

template <class T, Kind kind>
void run(const ffi::ThreadPool& threads, ffi::RemainingArgs& args, ffi::RemainingRets& rets, int64_t used) {
  constexpr bool tangent = kind == kForwardTangent || kind == kBackwardTangent, back = kind >= kBackward;
  const auto in = [&](size_t index) -> const T* { return args.get<ffi::AnyBuffer>(index)->typed_data<T>(); };
  const auto out = [&](size_t index) { return (*rets.get<ffi::AnyBuffer>(index))->template typed_data<T>(); };
  const auto shape = args.get<ffi::AnyBuffer>(1)->dimensions();
  const int64_t rows = args.get<ffi::AnyBuffer>(2)->dimensions()[0], examples = shape[0] / rows, hidden = shape[1];
  // Operands come first, then the derivative of the result, and then the tangents of all in the same order.
  const size_t each = back ? 4 : 3;
  const Operands<T> at{in(0), in(1), in(2)};
  const Operands<T> t = tangent ? Operands<T>{in(each), in(each + 1), in(each + 2)} : Operands<T>{};
  const int64_t wanted = std::clamp<int64_t>(rows * examples * hidden / kPart, 1, examples);
  const int64_t size = (examples + wanted - 1) / wanted, parts = (examples + size - 1) / size;
  std::vector<V<T>> sums(back ? parts * rows * kActivations : 0, V<T>{});
  parallel(threads, parts, [&](int64_t part) {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t b = part * size; b < std::min(examples, (part + 1) * size); ++b) {
        const int64_t place = row * examples + b;
        if constexpr (back) {
          const T *dy = in(3) + b * hidden, *dyt = tangent ? in(7) + b * hidden : nullptr;
          V<T>* own = sums.data() + (part * rows + row) * kActivations;
          backward_row<T, tangent>(at, t, dy, dyt, {out(0), out(1)}, own, place, row, hidden, used);
        } else {
          forward_row<T, tangent>(at, t, place, row, out(0) + b * hidden, row == 0, hidden, used);
        }
      }
  });
  if constexpr (back) {
    for (int64_t n = 0; n < rows * kActivations; ++n) {
      V<T> sum{};
      for (int64_t part = 0; part < parts; ++part) sum += sums[part * rows * kActivations + n];
      out(2)[n] = total<T>(sum);
    }
  }
}

template <Kind kind>
ffi::Error handle(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets, int64_t used) {
  const auto type = args.get<ffi::AnyBuffer>(0)->element_type();
  if (type == ffi::F32) run<float, kind>(threads, args, rets, used);
  else if (type == ffi::F64) run<double, kind>(threads, args, rets, used);
  else return ffi::Error::InvalidArgument("recurrent: float32 or float64");
  return ffi::Error::Success();
}

#define BINDING ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets().Attr<int64_t>("used")

}  // namespace
}  // namespace jaxdarts

XLA_FFI_DEFINE_HANDLER_SYMBOL(RecurrentForward, jaxdarts::handle<jaxdarts::kForward>, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(RecurrentForwardTangent, jaxdarts::handle<jaxdarts::kForwardTangent>, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(RecurrentBackward, jaxdarts::handle<jaxdarts::kBackward>, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(RecurrentBackwardTangent, jaxdarts::handle<jaxdarts::kBackwardTangent>, BINDING);
