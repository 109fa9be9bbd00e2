#include "runtime/failure.h"

#include <atomic>

namespace trimoe::runtime {
namespace {

std::atomic<Listener> known{nullptr};

}  // namespace

void listen_to_failures(Listener listener) { known.store(listener); }

void tell_failure(const std::exception_ptr& failure) noexcept {
  if (const Listener listener = known.load()) listener(failure);
}

}  // namespace trimoe::runtime
