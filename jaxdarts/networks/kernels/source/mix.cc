// Gated sums: each node's sum over rows of gates times rows, where the rows lie in several arrays; and the reverse.
//
// Each node has an array of its own, so that a program needs no slices of them and a reverse no copies into one.
// A call reads every row once. Tangents are sums over twice the terms. Where each gate stands is an attribute, so that
// no program places them: entry [n, r] of `places` is the number of the gate by which node n takes row r, -1 for none.
// Axes: M gates, N nodes, R rows, P entries of a row.

#include "rows.h"
#include "threads.h"

namespace ffi = xla::ffi;

namespace jaxdarts {
namespace {

constexpr int64_t kPart = 1 << 13;  // entries of a row that one thread takes

int64_t parts(int64_t entries) { return (entries + kPart - 1) / kPart; }

// Parts of [0, P) in tiles, by several threads.
template <class T, class F>
void in_parts(const ffi::ThreadPool& threads, int64_t entries, const F& work) {
  parallel(threads, parts(entries), [&](int64_t part) {
    const int64_t first = part * kPart;
    in_tiles<T>(std::min(kPart, entries - first), [&](int64_t start, int64_t stop) {
      work(part, first + start, first + stop);
    });
  });
}

template <class Buffers>
ffi::AnyBuffer buffer(Buffers& buffers, size_t index) {
  auto found = buffers.template get<ffi::AnyBuffer>(index);
  if constexpr (std::is_same_v<Buffers, ffi::RemainingRets>) return **found;
  else return *found;
}

// The rows of arguments or results [first, last), each of so many entries.
template <class T, class Buffers>
std::vector<T*> rows_of(Buffers& buffers, size_t first, size_t last, int64_t entries) {
  std::vector<T*> found;
  for (size_t index = first; index < last; ++index) {
    ffi::AnyBuffer array = buffer(buffers, index);
    const int64_t count = static_cast<int64_t>(array.element_count()) / entries;
    for (int64_t row = 0; row < count; ++row) found.push_back(array.template typed_data<T>() + row * entries);
  }
  return found;
}

using Places = ffi::Span<const int64_t>;

// float[M] -> T[N * R].
template <class T>
std::vector<T> placed(const ffi::AnyBuffer& gates, Places places) {
  const T* values = gates.typed_data<T>();
  std::vector<T> found;
  for (const int64_t place : places) found.push_back(place < 0 ? T(0) : values[place]);
  return found;
}

// float[M], arrays of R rows in all; then both again as often as there are terms: N of float[P], their sum.
template <class T>
void sums(const ffi::ThreadPool& threads, ffi::RemainingArgs& args, ffi::RemainingRets& rets, Places places,
          int64_t terms) {
  const size_t each = args.size() / terms;
  const int nodes = static_cast<int>(rets.size());
  const int64_t entries = static_cast<int64_t>(buffer(rets, 0).element_count());
  const auto to = rows_of<T>(rets, 0, rets.size(), entries);
  std::vector<std::vector<T>> gates;
  std::vector<std::vector<T*>> from;
  for (int64_t term = 0; term < terms; ++term) {
    gates.push_back(placed<T>(buffer(args, term * each), places));
    from.push_back(rows_of<T>(args, term * each + 1, (term + 1) * each, entries));
  }
  in_parts<T>(threads, entries, [&](int64_t, int64_t start, int64_t stop) {
    for (int64_t term = 0; term < terms; ++term) {
      const int count = static_cast<int>(from[term].size());
      multiply<T>(to.data(), gates[term].data(), count, 1, from[term].data(), nodes, count, start, stop, term > 0);
    }
  });
}

// float[M], derivatives N of float[P], arrays of R rows in all; with terms 2 their tangents in the same order. Gives
// the derivatives of the gates and of the arrays, or their tangents; bits of `wanted` say which of the two.
template <class T>
void back(const ffi::ThreadPool& threads, ffi::RemainingArgs& args, ffi::RemainingRets& rets, Places places,
          int64_t nodes_given, int64_t terms, int64_t wanted) {
  const bool of_gates = wanted & 1, of_arrays = wanted & 2;
  const size_t each = args.size() / terms;
  const int nodes = static_cast<int>(nodes_given);
  const int64_t entries = static_cast<int64_t>(buffer(args, 1).element_count());
  std::vector<std::vector<T>> gates;
  std::vector<std::vector<T*>> dy, from;
  for (int64_t term = 0; term < terms; ++term) {
    const size_t first = term * each, rows = first + 1 + nodes;
    gates.push_back(placed<T>(buffer(args, first), places));
    dy.push_back(rows_of<T>(args, first + 1, rows, entries));
    from.push_back(rows_of<T>(args, rows, first + each, entries));
  }
  const auto to = of_arrays ? rows_of<T>(rets, of_gates, rets.size(), entries) : std::vector<T*>();
  const int count = static_cast<int>(from[0].size()), size = nodes * count;
  std::vector<T> found(of_gates ? parts(entries) * size : 0, T(0));
  in_parts<T>(threads, entries, [&](int64_t part, int64_t start, int64_t stop) {
    for (int64_t term = 0; term < terms; ++term) {
      // Of a product's tangent, one factor is a tangent and the other not.
      const auto& d = dy[terms - 1 - term];
      if (of_arrays) multiply<T>(to.data(), gates[term].data(), 1, count, d.data(), count, nodes, start, stop, term > 0);
      if (of_gates) products<T>(found.data() + part * size, count, d.data(), from[term].data(), nodes, count, start, stop);
    }
  });
  if (!of_gates) return;
  std::vector<T> sum(size, T(0));
  for (int64_t part = 0; part < parts(entries); ++part)
    for (int place = 0; place < size; ++place) sum[place] += found[part * size + place];
  ffi::AnyBuffer dgates = buffer(rets, 0);
  std::fill_n(dgates.typed_data<T>(), dgates.element_count(), T(0));
  for (int place = 0; place < size; ++place)
    if (places[place] >= 0) dgates.typed_data<T>()[places[place]] += sum[place];
}

template <class F>
ffi::Error of_type(const ffi::RemainingArgs& args, F run) {
  const auto type = args.get<ffi::AnyBuffer>(0)->element_type();
  if (type == ffi::F32) run(0.0f);
  else if (type == ffi::F64) run(0.0);
  else return ffi::Error::InvalidArgument("mix: float32 or float64");
  return ffi::Error::Success();
}

ffi::Error forward(
    ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets, Places places, int64_t, int64_t terms) {
  return of_type(args, [&](auto kind) { sums<decltype(kind)>(threads, args, rets, places, terms); });
}

ffi::Error backward(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets, Places places,
                    int64_t nodes, int64_t terms, int64_t wanted) {
  return of_type(args, [&](auto kind) { back<decltype(kind)>(threads, args, rets, places, nodes, terms, wanted); });
}

#define BINDING                       \
  ffi::Ffi::Bind()                    \
      .Ctx<ffi::ThreadPool>()         \
      .RemainingArgs()                \
      .RemainingRets()                \
      .Attr<jaxdarts::Places>("places") \
      .Attr<int64_t>("nodes")         \
      .Attr<int64_t>("terms")

}  // namespace
}  // namespace jaxdarts

XLA_FFI_DEFINE_HANDLER_SYMBOL(Mix, jaxdarts::forward, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(MixBack, jaxdarts::backward, BINDING.Attr<int64_t>("wanted"));
