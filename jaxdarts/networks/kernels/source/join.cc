// Many arrays as one, and one as many, so that what is done to every parameter is one operation of a program.

#include <cstring>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace jaxdarts {
namespace {

// Arrays of one type, one after the other: [their sizes' sum].
ffi::Error join(ffi::RemainingArgs args, ffi::RemainingRets rets) {
  char* to = static_cast<char*>((*rets.get<ffi::AnyBuffer>(0))->untyped_data());
  for (size_t index = 0; index < args.size(); ++index) {
    const ffi::AnyBuffer from = *args.get<ffi::AnyBuffer>(index);
    std::memcpy(to, from.untyped_data(), from.size_bytes());
    to += from.size_bytes();
  }
  return ffi::Error::Success();
}

// The reverse: every result gets as much as it holds.
ffi::Error split(ffi::RemainingArgs args, ffi::RemainingRets rets) {
  const char* from = static_cast<const char*>(args.get<ffi::AnyBuffer>(0)->untyped_data());
  for (size_t index = 0; index < rets.size(); ++index) {
    const ffi::AnyBuffer to = **rets.get<ffi::AnyBuffer>(index);
    std::memcpy(to.untyped_data(), from, to.size_bytes());
    from += to.size_bytes();
  }
  return ffi::Error::Success();
}

#define BINDING ffi::Ffi::Bind().RemainingArgs().RemainingRets()

}  // namespace
}  // namespace jaxdarts

XLA_FFI_DEFINE_HANDLER_SYMBOL(Join, jaxdarts::join, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(Split, jaxdarts::split, BINDING);
