// The relaxed recurrent cell over a whole text: its time steps and nodes one after another, examples side by side.
//
// Node 0 makes the cell's first state of the hidden state h before and the input x: h + c (tanh(.) - h), whose gate and
// candidate are x + (h keep) K. Every other node reads all states before it through (s keep) K, as activations.h says.
// Each is normalised over the examples, and the output is the mean of all states but the first. The reverse computes
// products and activations again from the states; that takes no longer than reading them from the memory.
//
// Axes: L time steps of which the first `length` count, B examples, H hidden units, N nodes after node 0, and R states
// that are read: 1 + N (N + 1) / 2. All loops over examples are divided into the same parts on any number of threads.

#include "columns.h"
#include "product.h"
#include "threads.h"

namespace ffi = xla::ffi;

namespace jaxdarts {
namespace {

constexpr int64_t kExamples = 8;  // of a part

// Rooms for intermediate values; those of a part are its thread's own.
enum Room {
  kOfPart, kOfPartTangent, kBackOfPart, kFactors, kTransposed, kFactorTangents, kTransposedTangents, kMasked,
  kMaskedTangent, kSum, kSumTangent, kBack, kBackTangent, kProducts, kProductTangents, kGradient
};

// All that a pass reads, or its tangents: x float[L, B, 2 H], the hidden state before float[B, H], kernels
// float[N + 1, H, 2 H], shares float[R, 4], outputs float[L, B, H], states float[L, N + 1, B, H] and their variances
// float[L, N + 1, H].
template <class T>
struct Pass {
  const T *x, *hidden, *kernels, *shares;
  const T *outputs = nullptr, *states = nullptr, *variances = nullptr;
};

template <class T>
struct Cell {
  Team& team;
  int64_t length, examples, hidden, nodes, used;
  const T* keep;  // float[B, H]
  bool own;       // normalise by the moments of the examples; else the given ones

  int64_t entries() const { return examples * hidden; }
  int64_t width() const { return padded<T>(2 * hidden); }
  int64_t depth() const { return padded<T>(hidden); }
  int64_t sources(int64_t node) const { return std::max<int64_t>(node, 1); }
  int64_t first_row(int64_t node) const { return node == 0 ? 0 : 1 + node * (node - 1) / 2; }
  int64_t rows() const { return first_row(nodes + 1); }
  int64_t activations(int64_t node) const { return node == 0 ? 1 << kTanh : used; }
  const T* variances(const Pass<T>& pass, int64_t time, int64_t node) const {
    return pass.variances + (time * (nodes + 1) + node) * hidden;
  }
  const T* state(const Pass<T>& pass, int64_t time, int64_t node) const {
    return pass.states + (time * (nodes + 1) + node) * entries();
  }
  const T* before(const Pass<T>& pass, int64_t time) const {
    return time == 0 ? pass.hidden : pass.outputs + (time - 1) * entries();
  }
  // The first of the states that a node reads; the others follow.
  const T* read(const Pass<T>& pass, int64_t time, int64_t node) const {
    return node == 0 ? before(pass, time) : state(pass, time, 0);
  }
  // In rooms that have the hidden state before the states.
  int64_t place(int64_t node) const { return node == 0 ? 0 : entries(); }

  template <class F>
  void in_parts(const F& work) const {
    team.parallel((examples + kExamples - 1) / kExamples, [&](int64_t part) {
      const int64_t start = part * kExamples;
      work(part, start, std::min(kExamples, examples - start));
    });
  }

  void mask(T* to, const T* from, int64_t count) const {
    for (int64_t row = 0; row < count; ++row)
      each(to + row * entries(), entries(), [&](int64_t t, auto kind) {
        return at(from + row * entries() + t, kind) * at(keep + t, kind);
      });
  }

  // Kernels, or their transposes, as factors of products.
  std::vector<Factor<T>> factors(Room room, const T* kernels, bool transposed) const {
    const int64_t each = transposed ? 2 * hidden * depth() : hidden * width();
    T* to = scratch<T>(room, (nodes + 1) * each);
    std::vector<Factor<T>> found;
    for (int64_t node = 0; node <= nodes; ++node, to += each, kernels += 2 * hidden * hidden)
      found.push_back(
          transposed ? packed<T>(to, kernels, 1, 2 * hidden, 2 * hidden, hidden)
                     : packed<T>(to, kernels, 2 * hidden, 1, hidden, 2 * hidden));
    return found;
  }

  // (+)= the products of a part's rows of all states that a node reads.
  void multiply(T* to, int64_t group, const T* masked, const Factor<T>& factor, int64_t node, int64_t start,
                int64_t count, bool add) const {
    const Grouped<const T> from{masked + place(node) + start * hidden, entries(), hidden, 1};
    product<T>({to, group, width(), 1}, from, sources(node), count, factor, hidden, width(), add);
  }

  void add_input(T* to, const T* x, int64_t time, int64_t start, int64_t count) const {
    for (int64_t b = 0; b < count; ++b) {
      const T* own = x + (time * examples + start + b) * 2 * hidden;
      T* row = to + b * width();
      each(row, 2 * hidden, [&](int64_t t, auto kind) { return at(row + t, kind) + at(own + t, kind); });
    }
  }

  void average(T* to, const T* states) const {
    each(to, entries(), [&](int64_t t, auto kind) {
      auto sum = at(states + entries() + t, kind);
      for (int64_t node = 2; node <= nodes; ++node) sum += at(states + node * entries() + t, kind);
      return sum / static_cast<T>(nodes);
    });
  }

  // Writes outputs, states and moments, or with tangents the tangents of outputs, states and variances.
  template <bool tangent>
  void forward(const Pass<T>& at, const Pass<T>& t, T* outputs, T* states, T* means, T* variances) const {
    const auto factor = factors(kFactors, at.kernels, false);
    const auto factor_t = tangent ? factors(kFactorTangents, t.kernels, false) : factor;
    T* masked = scratch<T>(kMasked, (nodes + 2) * entries());
    T* masked_t = tangent ? scratch<T>(kMaskedTangent, (nodes + 2) * entries()) : masked;
    T* sum = scratch<T>(kSum, entries());
    const int64_t group = kExamples * width();
    for (int64_t time = 0; time < length; ++time) {
      if (tangent) mask(masked_t, before(t, time), 1);
      mask(masked, before(at, time), 1);
      for (int64_t node = 0; node <= nodes; ++node) {
        const T *values = read(at, time, node), *values_t = read(tangent ? t : at, time, node);
        in_parts([&](int64_t, int64_t start, int64_t count) {
          T* products = scratch<T>(kOfPart, sources(node) * group);
          T* products_t = tangent ? scratch<T>(kOfPartTangent, sources(node) * group) : products;
          multiply(products, group, masked, factor[node], node, start, count, false);
          if (tangent) {
            multiply(products_t, group, masked_t, factor[node], node, start, count, false);
            multiply(products_t, group, masked, factor_t[node], node, start, count, true);
          }
          if (node == 0) add_input(products, at.x, time, start, count);
          if (tangent && node == 0) add_input(products_t, t.x, time, start, count);
          std::fill_n(sum + start * hidden, count * hidden, T(0));
          for (int64_t source = 0; source < sources(node); ++source)
            for (int64_t b = 0; b < count; ++b) {
              const int64_t row = source * group + b * width(), entry = source * entries() + (start + b) * hidden;
              const int64_t share = (first_row(node) + source) * kActivations;
              activate<T, tangent>(
                  {products + row, values + entry, at.shares + share},
                  {products_t + row, values_t + entry, t.shares + share}, sum + (start + b) * hidden, hidden,
                  activations(node));
            }
        });
        const int64_t index = time * (nodes + 1) + node;
        T *to = states + index * entries(), *variance = variances + index * hidden;
        if (tangent)
          normalise_columns_tangent<T>(
              to, sum, state(at, time, node), this->variances(at, time, node), variance, examples, hidden, own);
        else normalise_columns<T>(to, sum, means + index * hidden, variance, examples, hidden, own);
        if (tangent) mask(masked_t + (node + 1) * entries(), to, 1);
        mask(masked + (node + 1) * entries(), tangent ? state(at, time, node) : to, 1);
      }
      average(outputs + time * entries(), states + time * (nodes + 1) * entries());
    }
  }

  // The derivatives in x, the hidden state before, the shares and, where there is room, the kernels, of those in the
  // outputs; or with tangents their tangents.
  template <bool tangent>
  void backward(const Pass<T>& at, const Pass<T>& t, const T* d, const T* dt, T* dx, T* dhidden, T* dshares,
                T* dkernels) const {
    const auto factor = factors(kFactors, at.kernels, false), transposed = factors(kTransposed, at.kernels, true);
    const auto factor_t = tangent ? factors(kFactorTangents, t.kernels, false) : factor;
    const auto transposed_t = tangent ? factors(kTransposedTangents, t.kernels, true) : transposed;
    const int64_t all = (nodes + 2) * entries(), part_group = kExamples * width(), whole_group = examples * width();
    T *masked = scratch<T>(kMasked, all), *masked_t = tangent ? scratch<T>(kMaskedTangent, all) : masked;
    T *back = scratch<T>(kBack, all), *back_t = tangent ? scratch<T>(kBackTangent, all) : back;
    T *sum = scratch<T>(kSum, entries()), *sum_t = tangent ? scratch<T>(kSumTangent, entries()) : sum;
    T *products = nullptr, *products_t = nullptr, *gradient = nullptr;
    if (dkernels) {
      products = scratch<T>(kProducts, rows() * whole_group);
      if (tangent) products_t = scratch<T>(kProductTangents, rows() * whole_group);
      gradient = scratch<T>(kGradient, (nodes + 1) * hidden * width());
      std::fill_n(gradient, (nodes + 1) * hidden * width(), T(0));
    }
    const int64_t parts = (examples + kExamples - 1) / kExamples;
    std::vector<V<T>> sums(parts * rows() * kActivations, V<T>{});
    std::fill_n(back, entries(), T(0));
    if (tangent) std::fill_n(back_t, entries(), T(0));
    for (int64_t time = length - 1; time >= 0; --time) {
      begin_step(back, d + time * entries());
      if (tangent) begin_step(back_t, dt + time * entries());
      mask(masked, before(at, time), 1), mask(masked + entries(), state(at, time, 0), nodes + 1);
      if (tangent) mask(masked_t, before(t, time), 1), mask(masked_t + entries(), state(t, time, 0), nodes + 1);
      for (int64_t node = nodes; node >= 0; --node) {
        const int64_t own_back = (node + 1) * entries(), group = dkernels ? whole_group : part_group;
        Normalised<T> kept{state(at, time, node), variances(at, time, node)}, kept_t{};
        if (tangent) kept_t = {state(t, time, node), variances(t, time, node)};
        normalise_columns_back<T, tangent>(
            sum, sum_t, kept, kept_t, back + own_back, back_t + own_back, examples, hidden, own);
        const T *values = read(at, time, node), *values_t = read(tangent ? t : at, time, node);
        in_parts([&](int64_t part, int64_t start, int64_t count) {
          const int64_t first = first_row(node) * whole_group + start * width();
          T* of = dkernels ? products + first : scratch<T>(kOfPart, sources(node) * group);
          T* of_t = !tangent ? of : dkernels ? products_t + first : scratch<T>(kOfPartTangent, sources(node) * group);
          multiply(of, group, masked, factor[node], node, start, count, false);
          if (tangent) {
            multiply(of_t, group, masked_t, factor[node], node, start, count, false);
            multiply(of_t, group, masked, factor_t[node], node, start, count, true);
          }
          if (node == 0) add_input(of, at.x, time, start, count);
          if (tangent && node == 0) add_input(of_t, t.x, time, start, count);
          for (int64_t source = 0; source < sources(node); ++source)
            for (int64_t b = 0; b < count; ++b) {
              const int64_t row = source * group + b * width(), entry = source * entries() + (start + b) * hidden;
              const int64_t share = (first_row(node) + source) * kActivations, to = place(node) + entry;
              V<T>* own_sums = sums.data() + part * rows() * kActivations + share;
              const int64_t example = (start + b) * hidden;
              activate_back<T, tangent>(
                  {of + row, values + entry, at.shares + share}, {of_t + row, values_t + entry, t.shares + share},
                  sum + example, sum_t + example, {of + row, back + to, own_sums}, {of_t + row, back_t + to, own_sums},
                  hidden, activations(node));
            }
          give_back(back, of, group, transposed[node], node, start, count);
          if (tangent) {
            give_back(back_t, of_t, group, transposed[node], node, start, count);
            give_back(back_t, of, group, transposed_t[node], node, start, count);
          }
          if (node == 0)
            for (int64_t b = 0; b < count; ++b)
              std::copy_n((tangent ? of_t : of) + b * width(), 2 * hidden,
                          dx + (time * examples + start + b) * 2 * hidden);
        });
      }
      if (dkernels && tangent) {
        add_gradient(gradient, masked_t, products);
        add_gradient(gradient, masked, products_t);
      } else if (dkernels) {
        add_gradient(gradient, masked, products);
      }
    }
    std::copy_n(tangent ? back_t : back, entries(), dhidden);
    for (int64_t n = 0; n < rows() * kActivations; ++n) {
      V<T> sum{};
      for (int64_t part = 0; part < parts; ++part) sum += sums[part * rows() * kActivations + n];
      dshares[n] = total<T>(sum);
    }
    if (dkernels)
      for (int64_t row = 0; row < (nodes + 1) * hidden; ++row)
        std::copy_n(gradient + row * width(), 2 * hidden, dkernels + row * 2 * hidden);
  }

  // The derivatives in the states of a time step, as far as they come from its output; what is known of the hidden state
  // after it is the first, and that before it begins with nothing.
  void begin_step(T* back, const T* d) const {
    each(back, entries(), [&](int64_t t, auto kind) {
      return (at(back + t, kind) + at(d + t, kind)) / static_cast<T>(nodes);
    });
    for (int64_t node = 1; node <= nodes; ++node) std::copy_n(back, entries(), back + (node + 1) * entries());
    std::fill_n(back, 2 * entries(), T(0));
  }

  // Adds to the derivatives in the states what comes through a part's products.
  void give_back(T* back, const T* products, int64_t group, const Factor<T>& transposed, int64_t node, int64_t start,
                 int64_t count) const {
    T* found = scratch<T>(kBackOfPart, sources(node) * kExamples * depth());
    product<T>({found, kExamples * depth(), depth(), 1}, {products, group, width(), 1}, sources(node), count, transposed,
               2 * hidden, depth(), false);
    for (int64_t source = 0; source < sources(node); ++source)
      for (int64_t b = 0; b < count; ++b) {
        const T *row = found + (source * kExamples + b) * depth(), *own = keep + (start + b) * hidden;
        T* to = back + place(node) + source * entries() + (start + b) * hidden;
        each(to, hidden, [&](int64_t t, auto kind) { return at(to + t, kind) + at(row + t, kind) * at(own + t, kind); });
      }
  }

  // Adds a time step's derivatives in the kernels: of what was multiplied, and the derivatives in the products.
  void add_gradient(T* gradient, const T* masked, const T* products) const {
    const int64_t blocks = (hidden + 2 * kRowsTogether - 1) / (2 * kRowsTogether);
    team.parallel((nodes + 1) * blocks, [&](int64_t unit) {
      const int64_t node = unit / blocks, first = unit % blocks * 2 * kRowsTogether;
      const int64_t count = std::min<int64_t>(2 * kRowsTogether, hidden - first);
      const Factor<T> factor{products + first_row(node) * examples * width(), kPanel<T>, width()};
      product<T>({gradient + (node * hidden + first) * width(), 0, width(), 1},
                 {masked + place(node) + first, 0, 1, hidden}, 1, count, factor, sources(node) * examples, width(), true);
    });
  }
};

enum Kind { kForward, kForwardTangent, kBackward, kBackwardTangent };

// What is read comes in the order of `Pass`, with the mask after the kernels and given moments (two rows) and the length
// after the shares; then the derivative of the outputs; then the tangents of all but mask, moments and length. Of the
// derivatives, the lowest bit of `wanted` asks for those in x, the hidden state and the shares, the next for the kernels'.
template <class T, Kind kind>
void run(const ffi::ThreadPool& threads, ffi::RemainingArgs& args, ffi::RemainingRets& rets, int64_t used, int64_t own,
         int64_t wanted) {
  constexpr bool tangent = kind == kForwardTangent || kind == kBackwardTangent, back = kind >= kBackward;
  const auto in = [&](size_t index) -> const T* { return args.get<ffi::AnyBuffer>(index)->typed_data<T>(); };
  const auto out = [&](size_t index) { return (*rets.get<ffi::AnyBuffer>(index))->template typed_data<T>(); };
  const auto shape = args.get<ffi::AnyBuffer>(0)->dimensions();
  const int64_t steps = shape[0], nodes = args.get<ffi::AnyBuffer>(2)->dimensions()[0] - 1;
  const int64_t length = std::clamp<int64_t>(*args.get<ffi::AnyBuffer>(6)->typed_data<int32_t>(), 0, steps);
  Team team(threads, std::max<int64_t>((shape[1] + kExamples - 1) / kExamples, 1));
  const Cell<T> cell{team, length, shape[1], shape[2] / 2, nodes, used, in(3), own != 0};
  for (size_t index = 0; index < rets.size(); ++index)
    std::fill_n(out(index), (*rets.get<ffi::AnyBuffer>(index))->element_count(), T(0));
  Pass<T> at{in(0), in(1), in(2), in(4)}, t = at;
  if constexpr (kind == kForward) {
    for (int64_t row = 0; !own && row < length * (nodes + 1); ++row) {
      std::copy_n(in(5), cell.hidden, out(2) + row * cell.hidden);
      std::copy_n(in(5) + cell.hidden, cell.hidden, out(3) + row * cell.hidden);
    }
    at.outputs = out(0), at.states = out(1);
    cell.template forward<false>(at, t, out(0), out(1), out(2), out(3));
  } else {
    at.outputs = in(7), at.states = in(8), at.variances = in(9);
    const size_t n = back ? 11 : 10;
    if constexpr (tangent) t = {in(n), in(n + 1), in(n + 2), in(n + 3)};
    if constexpr (kind == kForwardTangent) {
      t.outputs = out(0), t.states = out(1);
      cell.template forward<true>(at, t, out(0), out(1), nullptr, out(2));
    } else {
      if constexpr (tangent) t.outputs = in(n + 4), t.states = in(n + 5), t.variances = in(n + 6);
      // Those in the kernels may be wanted alone.
      const bool others = wanted & 1;
      std::vector<T> room(others ? 0 : (2 * steps + 1) * cell.entries() + cell.rows() * kActivations);
      T* dx = others ? out(0) : room.data();
      T* dhidden = others ? out(1) : dx + 2 * steps * cell.entries();
      T* dshares = others ? out(2) : dhidden + cell.entries();
      T* dkernels = wanted & 2 ? out(others ? 3 : 0) : nullptr;
      cell.template backward<tangent>(at, t, in(10), in(tangent ? n + 7 : 10), dx, dhidden, dshares, dkernels);
    }
  }
}

template <Kind kind>
ffi::Error handle(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets, int64_t used, int64_t own,
                  int64_t wanted) {
  const auto type = args.get<ffi::AnyBuffer>(0)->element_type();
  if (type == ffi::F32) run<float, kind>(threads, args, rets, used, own, wanted);
  else if (type == ffi::F64) run<double, kind>(threads, args, rets, used, own, wanted);
  else return ffi::Error::InvalidArgument("recurrent: float32 or float64");
  return ffi::Error::Success();
}

#define BINDING                                                                                                       \
  ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets().Attr<int64_t>("used").Attr<int64_t>("own") \
      .Attr<int64_t>("wanted")

}  // namespace
}  // namespace jaxdarts

XLA_FFI_DEFINE_HANDLER_SYMBOL(RecurrentForward, jaxdarts::handle<jaxdarts::kForward>, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(RecurrentForwardTangent, jaxdarts::handle<jaxdarts::kForwardTangent>, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(RecurrentBackward, jaxdarts::handle<jaxdarts::kBackward>, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(RecurrentBackwardTangent, jaxdarts::handle<jaxdarts::kBackwardTangent>, BINDING);
